"""Stage 03: assign SMIRNOFF parameters and charges to every molecule of data/arrow."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.load import Params, load_params


def parameterize(params: Params) -> Mapping[str, Any]:
    with output_folder("data/parameterized") as parameterized:
        return parameterize_datasets(open_datasets("data/arrow"), params.parameterize, parameterized)


if __name__ == "__main__":
    run_stage("parameterize", parameterize, load_params)
