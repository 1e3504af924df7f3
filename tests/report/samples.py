"""Test sets with predictions whose errors are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.predictions import Predicted, Predictions
from pesfit.uncertainty.standard_deviations import StandardDeviations

WATER, ETHANOL = (8, 1, 1), (6, 6, 8, 1, 1, 1, 1, 1, 1)
WATER_SMILES = "[O:1]([H:2])[H:3]"
ETHANOL_SMILES = "[C:1]([C:2]([O:3][H:9])([H:7])[H:8])([H:4])([H:5])[H:6]"


def row(
    id: str,  # noqa: A002
    numbers: tuple[int, ...] = WATER,
    n_conformers: int = 4,
    *,
    source: str = "toy",
    smiles: str | None = WATER_SMILES,
    with_forces: bool = True,
    energy: FloatArray | None = None,
    group: str | None = None,
) -> LabeledRow:
    """Make a row with random labels; its molecule is the id before the slash."""
    rng = np.random.default_rng(len(numbers) + n_conformers)
    shape = (n_conformers, len(numbers), 3)
    labels = 10.0 * rng.normal(size=n_conformers) if energy is None else energy
    return LabeledRow(
        dataset="toys",
        id=id,
        source=source,
        group=id.split("/", maxsplit=1)[0] if group is None else group,
        smiles=smiles,
        atomic_numbers=np.array(numbers, dtype=np.int32),
        coords=rng.normal(size=shape),
        energy=labels,
        forces=20.0 * rng.normal(size=shape) if with_forces else None,
        lowest_energy=float(labels.min()),
    )


def predicted(row: LabeledRow, energy: float | FloatArray = 0.0, forces: float | FloatArray = 0.0) -> Predicted:
    """Say the labels plus errors."""
    label = np.zeros(row.coords.shape) if row.forces is None else row.forces
    return Predicted(row.energy + energy, label + forces)


def unsure(row: LabeledRow, deviation: float) -> Predicted:
    """Say the labels, with standard deviations: `deviation` for forces, twice it for relative energies."""
    exact = predicted(row)
    n = row.n_conformers
    relative = np.full(n, 2.0 * deviation) * (np.arange(n) > 0)
    return Predicted(exact.energy, exact.forces, StandardDeviations(np.ones(n), relative, np.full(row.coords.shape, deviation)))


def predictions(rows: list[LabeledRow], said: Mapping[str, list[Predicted | None]]) -> Predictions:
    return Predictions(tuple(rows), {name: tuple(of_rows) for name, of_rows in said.items()})
