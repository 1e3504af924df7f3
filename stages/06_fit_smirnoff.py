"""Stage 06: fit SMIRNOFF parameters to the clustered data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _start  # noqa: F401

from pesfit.core.launch import is_helper
from pesfit.core.runtime import RUNS, output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.data.minima import Landscapes
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.calibrate import Labels, calibrate
from pesfit.params.load import Params, load_params
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.smirnoff.gradient.shards import serve_torchrun
from pesfit.smirnoff.model import FORCE_FIELD_FILE, open_smirnoff


def fit(params: Params) -> Mapping[str, Any]:
    datasets, splits = open_datasets("data/clustered"), Splits.open(Path("data/splits/splits.arrow"))
    parameterized = ParameterizedSet.open(Path("data/parameterized"))
    minima = Landscapes.open(Path("data/minima"))
    with output_folder("outputs/smirnoff") as output:
        runs = RUNS / "fit_smirnoff"
        metrics = fit_smirnoff(datasets, parameterized, splits, params.fit_smirnoff, output, runs=runs, minima=minima)
        model = open_smirnoff("the fitted force field", output / FORCE_FIELD_FILE, ["dataset"], parameterized)
        return {**metrics, "calibration": calibrate(model, output, Labels(datasets, splits, parameterized))}


if __name__ == "__main__":
    if not is_helper():
        run_stage("fit_smirnoff", fit, load_params)
    elif load_params(Path("params.yaml")).fit_smirnoff.method == "gradient":
        serve_torchrun()
