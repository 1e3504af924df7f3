"""Stage 04: keep one representative of each cluster of like conformers."""

from collections.abc import Mapping
from typing import Any

import _start  # noqa: F401

from pesfit.cluster.build import cluster_datasets
from pesfit.dataset import open_datasets
from pesfit.params.load import Params
from pesfit.runtime import output_folder, run_stage


def cluster(params: Params) -> Mapping[str, Any]:
    with output_folder("data/clustered") as clustered:
        return cluster_datasets(open_datasets("data/arrow"), params.cluster, clustered)


if __name__ == "__main__":
    run_stage("cluster", cluster)
