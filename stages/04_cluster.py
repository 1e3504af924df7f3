"""Stage 04: keep one representative of each cluster of like conformers."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.cluster.stage import cluster_datasets
from pesfit.core.files import FAILURES_FILE
from pesfit.core.runtime import PLOTS, input_folder, output_folder, run_stage
from pesfit.data.dataset import open_datasets, read_failures
from pesfit.params.load import Params, load_params


def cluster(params: Params) -> Mapping[str, Any]:
    unparameterized = {failure.id for failure in read_failures(input_folder("data/parameterized") / FAILURES_FILE)}
    with output_folder("data/clustered") as clustered:
        return cluster_datasets(
            open_datasets("data/arrow"),
            params.cluster,
            clustered,
            excluded=unparameterized,
            plot=PLOTS / "cluster-sizes.png",
        )


if __name__ == "__main__":
    run_stage("cluster", cluster, load_params)
