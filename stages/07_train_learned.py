"""Stage 07: train one variant of the network, `conservative` or `direct`, on the clustered data."""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import _start  # noqa: F401

from pesfit.dataset import open_datasets
from pesfit.params.load import Params, load_params
from pesfit.runtime import PLOTS, output_folder, run_stage
from pesfit.splits import Splits
from pesfit.train.learned import LEARNED, Variant, train_learned
from pesfit.train.workers import is_helper


def train(variant: Variant, params: Params, output: Path) -> Mapping[str, Any]:
    return train_learned(
        variant,
        open_datasets("data/clustered"),
        Splits.open(Path("data/splits/splits.arrow")),
        params.train_learned,
        output,
        plot=PLOTS / f"learning-curve-{variant}.png",
    )


def train_and_keep(variant: Variant, params: Params) -> Mapping[str, Any]:
    with output_folder(LEARNED / variant) as output:
        return train(variant, params, output)


if __name__ == "__main__":
    (chosen,) = [variant for variant in get_args(Variant) if sys.argv[1:] == [variant]] or sys.exit(
        f"usage: python {sys.argv[0]} {'|'.join(get_args(Variant))}"
    )
    if is_helper():  # of torchrun: it trains along and writes nothing
        train(chosen, load_params(Path("params.yaml")), LEARNED / chosen)
    else:
        run_stage(f"train_learned-{chosen}", functools.partial(train_and_keep, chosen))
