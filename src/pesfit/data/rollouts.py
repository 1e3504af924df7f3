"""Files of stage 08 in `outputs/rollouts`: their names, and the table of energies along the simulations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pyarrow as pa

from pesfit.core.exceptions import DataError

Dynamics: TypeAlias = Literal["nve", "nvt"]
"""Kinds of dynamics: velocity Verlet, and Langevin dynamics."""
DYNAMICS: tuple[Dynamics, ...] = get_args(Dynamics)
TRAJECTORIES, PROBES = "trajectories", "probes"
"""Folders: data sets of frames, one for each potential, and of conformers outside of the training domain."""
ENERGIES_FILE, MEASURES_FILE = "energies.arrow", "measures.json"

ENERGIES_SCHEMA = pa.schema(
    [
        ("potential", pa.string()),
        ("dynamics", pa.string()),
        ("molecule", pa.string()),
        ("replica", pa.int32()),
        ("stopped", pa.string()),
        ("time_fs", pa.list_(pa.float64())),
        ("potential_energy", pa.list_(pa.float64())),
        ("kinetic_energy", pa.list_(pa.float64())),
        ("frame_fs", pa.list_(pa.float64())),
        ("force_std", pa.list_(pa.float64())),
        ("relative_energy_std", pa.list_(pa.float64())),
        ("left_domain_fs", pa.float64()),
    ],
    metadata={
        "units": "time_fs, frame_fs, left_domain_fs: fs; potential_energy, kinetic_energy, relative_energy_std: kcal/mol; "
        "force_std: kcal/mol/angstrom"
    },
)
"""One row is one replica, until it was stopped; `stopped` is the reason, and null where it was not. Standard deviations are at the stored
frames, and null for a potential without a posterior: `force_std` is that of the force on the atom where it is largest,
`relative_energy_std` that of the energy minus the first frame's. `left_domain_fs` is null where the replica stayed in the domain."""


def write_energies(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write energies as one Arrow file; bytes depend on the rows alone."""
    with pa.ipc.new_file(path, ENERGIES_SCHEMA) as file:
        for batch in batches:
            file.write_batch(batch)


def read_energies(path: Path) -> list[dict[str, Any]]:
    """Read the rows of `write_energies`.

    Raises:
        DataError: if the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; `dvc repro` runs 08_rollout, which writes it")
    with pa.OSFile(str(path)) as file:
        rows: list[dict[str, Any]] = pa.ipc.open_file(file).read_all().to_pylist()
    return rows
