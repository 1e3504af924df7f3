"""Stage 01: fetch the archives that `sources` names into data/raw."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import output_folder, run_stage
from pesfit.params.load import Params, load_params
from pesfit.sources.download.stage import download_sources


def download(params: Params) -> Mapping[str, Any]:
    with output_folder("data/raw") as raw:
        return download_sources(params.sources, params.download, raw)


if __name__ == "__main__":
    run_stage("download", download, load_params)
