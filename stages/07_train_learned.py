"""Stage 07: train one variant of the network, `conservative` or `direct`, on the clustered data."""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import _start  # noqa: F401

from pesfit.dataset import open_datasets
from pesfit.params.load import Params
from pesfit.runtime import output_folder, run_stage
from pesfit.splits import Splits
from pesfit.train.learned import LEARNED, Variant, train_learned


def train(variant: Variant, params: Params) -> Mapping[str, Any]:
    with output_folder(LEARNED / variant) as output:
        return train_learned(
            variant,
            open_datasets("data/clustered"),
            Splits.open(Path("data/splits/splits.arrow")),
            params.train_learned,
            output,
        )


if __name__ == "__main__":
    (chosen,) = [variant for variant in get_args(Variant) if sys.argv[1:] == [variant]] or sys.exit(
        f"usage: python {sys.argv[0]} {'|'.join(get_args(Variant))}"
    )
    run_stage(f"train_learned-{chosen}", functools.partial(train, chosen))
