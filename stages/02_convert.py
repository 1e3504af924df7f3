"""Stage 02: turn data/raw, or molecules labeled on this machine, into Arrow data sets in data/arrow."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import input_folder, output_folder, run_stage
from pesfit.params.load import Params, load_params
from pesfit.sources.convert import convert_sources


def convert(params: Params) -> Mapping[str, Any]:
    with output_folder("data/arrow") as arrow:
        return convert_sources(input_folder("data/raw"), params.sources, params.convert, arrow)


if __name__ == "__main__":
    run_stage("convert", convert, load_params)
