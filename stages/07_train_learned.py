"""Stage 07: train one variant of the network, `conservative` or `direct`, on the clustered data."""

import argparse
import functools
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import _start  # noqa: F401

from pesfit.core.launch import is_helper
from pesfit.core.runtime import PLOTS, output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.data.splits import Splits
from pesfit.evaluate.calibrate import Labels, calibrate
from pesfit.painn.model import ENSEMBLE_FOLDER, has_ensemble, open_ensemble, open_network
from pesfit.painn.potential import Variant
from pesfit.painn.train.train_network import LEARNED, train_network
from pesfit.params.load import Params, load_params
from pesfit.params.train_learned import RANDOM_WEIGHTS


def train(variant: Variant, params: Params) -> Mapping[str, Any]:
    folder, plot = LEARNED / variant, PLOTS / f"learning-curve-{variant}.png"
    weights: str = getattr(params.initial_weights, variant)
    start = None if weights == RANDOM_WEIGHTS else Path(weights)
    datasets, splits = open_datasets("data/clustered"), Splits.open(Path("data/splits/splits.arrow"))
    with nullcontext(folder) if is_helper() else output_folder(folder) as output:  # torchrun's helpers write nothing
        metrics = train_network(variant, datasets, splits, params.train_learned, output, start=start, plot=plot)
        if is_helper():
            return metrics
        labels = Labels(datasets, splits, sources=params.train_learned.sources)
        of_ensemble = calibrate(open_ensemble(output), output / ENSEMBLE_FOLDER, labels) if has_ensemble(output) else None
        calibration = calibrate(open_network(f"the {variant} network", output), output, labels)
        return {**metrics, "calibration": calibration, "ensemble_calibration": of_ensemble}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=get_args(Variant))
    variant = parser.parse_args().variant
    if is_helper():
        train(variant, load_params(Path("params.yaml")))
    else:
        run_stage(f"train_learned-{variant}", functools.partial(train, variant), load_params)
