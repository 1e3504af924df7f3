"""Stage 06: fit SMIRNOFF parameters to the clustered data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _start  # noqa: F401

from pesfit.dataset import open_datasets
from pesfit.fit.distributed import serve_torchrun, torchrun_rank
from pesfit.fit.smirnoff import fit_smirnoff
from pesfit.params.load import Params, load_params
from pesfit.runtime import RUNS, output_folder, run_stage
from pesfit.splits import Splits
from pesfit.topology import ParameterizedSet


def fit(params: Params) -> Mapping[str, Any]:
    with output_folder("outputs/smirnoff") as output:
        return fit_smirnoff(
            open_datasets("data/clustered"),
            ParameterizedSet.open(Path("data/parameterized")),
            Splits.open(Path("data/splits/splits.arrow")),
            params.fit_smirnoff,
            output,
            runs=RUNS / "fit_smirnoff",
        )


if __name__ == "__main__":
    if torchrun_rank() == 0:
        run_stage("fit_smirnoff", fit)
    elif load_params(Path("params.yaml")).fit_smirnoff.method == "gradient":
        serve_torchrun()
