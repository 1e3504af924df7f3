"""Runs as files: frames as a data set of our own schema, and energies of all observations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pesfit.data.dataset import MAX_FRAMES_PER_ROW, Record
from pesfit.data.rollouts import ENERGIES_SCHEMA
from pesfit.simulate.loop import Run
from pesfit.simulate.uncertainty_along import Carried


def source_of(potential: str) -> str:
    """Return the `source` of trajectories that a potential made."""
    return f"rollout/{potential}"


def frames(run: Run, potential: str, dynamics: str, like: Record) -> Iterator[Record]:
    """Yield the frames of each replica until it was stopped, in rows of at most `MAX_FRAMES_PER_ROW`.

    Energies and forces are the potential's own. `frame` is the number of steps from the start.

    Args:
        run: of one molecule.
        potential: its name.
        dynamics: likewise.
        like: a row of the molecule, for SMILES, elements, charge and group.
    """
    energies = run.potential_energy[:, (run.step[:, None] == run.frame_step).argmax(axis=0)]
    for replica in range(len(run.coords)):
        n_frames = run.n_frames(replica)
        for row, start in enumerate(range(0, n_frames, MAX_FRAMES_PER_ROW)):
            part = slice(start, min(start + MAX_FRAMES_PER_ROW, n_frames))
            yield Record(
                id=f"{dynamics}/{run.name}/{replica:04d}/{row:05d}",
                smiles=like.smiles,
                atomic_numbers=like.atomic_numbers,
                coords=run.coords[replica, part],
                energy=energies[replica, part],
                forces=run.forces[replica, part],
                charges=None,
                total_charge=like.total_charge,
                group=like.group,
                source=source_of(potential),
                frame=run.frame_step[part].astype("int64"),
            )


def energies(run: Run, carried: Carried | None, potential: str, dynamics: str, timestep_fs: float) -> pa.RecordBatch:
    """Return the energies of each replica, and how sure the potential was, as rows of `ENERGIES_SCHEMA`."""
    rows: list[dict[str, Any]] = [
        {
            "potential": potential,
            "dynamics": dynamics,
            "molecule": run.name,
            "replica": replica,
            "stopped": run.stops[replica],
            "time_fs": run.step[:n_observed] * timestep_fs,
            "potential_energy": run.potential_energy[replica, :n_observed],
            "kinetic_energy": run.kinetic_energy[replica, :n_observed],
            "frame_fs": run.frame_step[: run.n_frames(replica)] * timestep_fs,
            **_deviations(carried, replica, run.n_frames(replica)),
        }
        for replica, n_observed in enumerate(run.n_observed)
    ]
    columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in ENERGIES_SCHEMA]
    return pa.record_batch(columns, schema=ENERGIES_SCHEMA)


def _deviations(carried: Carried | None, replica: int, n_frames: int) -> dict[str, Any]:
    if carried is None:
        return dict.fromkeys(("force_std", "relative_energy_std", "left_domain_fs"))
    return {
        "force_std": carried.score[replica, :n_frames],
        "relative_energy_std": carried.relative_energy[replica, :n_frames],
        "left_domain_fs": carried.left_fs[replica],
    }
