"""Stage benchmark: minima, frequencies and torsion scans of every potential, compared with those of the labels' method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _start  # noqa: F401

from pesfit.benchmark.build import BenchmarkData, run_benchmark
from pesfit.core.runtime import output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.data.minima import Landscapes
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.out_of_distribution import training_groups
from pesfit.models.open import open_fitted
from pesfit.params.load import Params, load_params


def benchmark(params: Params) -> Mapping[str, Any]:
    data = BenchmarkData(
        Landscapes.open(Path("data/minima")),
        ParameterizedSet.open(Path("data/parameterized")),
        training_groups(open_datasets("data/clustered"), Splits.open(Path("data/splits/splits.arrow"))),
    )
    models = open_fitted(params.benchmark.potentials)
    with output_folder("outputs/benchmark") as output:
        return run_benchmark(models, data, params.benchmark, output)


if __name__ == "__main__":
    run_stage("benchmark", benchmark, load_params)
