"""Stage minima: minima, Hessians and relaxed torsion scans of the molecules in data/arrow, by the method that labeled them."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.params.load import Params, load_params
from pesfit.sources.minima import build_minima


def minima(params: Params) -> Mapping[str, Any]:
    with output_folder("data/minima") as output:
        return build_minima(open_datasets("data/arrow"), params.minima, output)


if __name__ == "__main__":
    run_stage("minima", minima, load_params)
