"""Stage 09: evaluate everything that was fitted on the test set, and write the report."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import output_folder, run_stage
from pesfit.params.load import Params, load_params
from pesfit.report.build import analyse


def report(params: Params) -> Mapping[str, Any]:
    with output_folder("outputs/report") as output:
        return analyse(params, output)


if __name__ == "__main__":
    run_stage("analyse", report, load_params)
