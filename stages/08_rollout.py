"""Stage 08: run short simulations with every potential that was fitted, and with the method of the labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _start  # noqa: F401

from pesfit.core.runtime import RUNS, output_folder, run_stage
from pesfit.data.dataset import open_datasets
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.models.open import open_fitted
from pesfit.params.load import Params, load_params
from pesfit.simulate.molecules import find_molecules
from pesfit.simulate.rollout import run_rollouts


def rollout(params: Params) -> Mapping[str, Any]:
    molecules = find_molecules(
        open_datasets("data/clustered"),
        Splits.open(Path("data/splits/splits.arrow")),
        ParameterizedSet.open(Path("data/parameterized")),
        params.rollout,
    )
    models = open_fitted(params.rollout.potentials)
    with output_folder("outputs/rollouts") as output:
        return run_rollouts(models, molecules, params.rollout, output, timing=RUNS / "rollout/timing.json")


if __name__ == "__main__":
    run_stage("rollout", rollout, load_params)
