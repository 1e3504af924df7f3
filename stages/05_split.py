"""Stage 05: divide the clustered data into training, validation and test set."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.params.load import Params, load_params
from pesfit.split.stage import split_datasets


def split(params: Params) -> Mapping[str, Any]:
    with output_folder("data/splits") as splits:
        return split_datasets(open_datasets("data/clustered"), params.split, splits)


if __name__ == "__main__":
    run_stage("split", split, load_params)
