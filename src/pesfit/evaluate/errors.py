"""Errors of every potential on labeled conformers: tables of `statistics.errors`, filled from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.evaluate.predictions import Predictions
from pesfit.evaluate.test_rows import TestRow
from pesfit.statistics.errors import Errors, numbers_of, summarize


def gives_total_energies(potential: str) -> bool:
    """Say whether a potential's energies have the labels' zero; those of a force field do not."""
    return not potential.startswith("smirnoff")


def errors_of(predictions: Predictions, potential: str) -> Errors:
    """Return a potential's errors of each conformer that it has a prediction of."""
    pairs = predictions.of(potential)
    n_conformers = [row.n_conformers for row, _ in pairs]

    def of_rows(values: Sequence[int]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=np.int64), n_conformers)

    forces = [predicted.forces - (predicted.forces if row.forces is None else row.forces) for row, predicted in pairs]
    none = np.zeros(0)
    return Errors.of_conformers(
        molecule=of_rows(numbers_of([(row.dataset, row.group) for row, _ in pairs]).tolist()),
        source=of_rows([predictions.sources.index(row.source) for row, _ in pairs]),
        sources=predictions.sources,
        energy=np.concatenate([none, *(predicted.energy - row.energy for row, predicted in pairs)]),
        n_components=of_rows([0 if row.forces is None else 3 * row.n_atoms for row, _ in pairs]),
        force_sq=np.concatenate([none, *((error**2).sum(axis=(1, 2)) for error in forces)]),
        force_abs=np.concatenate([none, *(np.abs(error).sum(axis=(1, 2)) for error in forces)]),
        n_atoms=of_rows([row.n_atoms for row, _ in pairs]) if gives_total_energies(potential) else None,
    )


def centered(rows: Sequence[TestRow], values: Sequence[FloatArray]) -> list[FloatArray]:
    """Subtract the mean over each molecule.

    Args:
        rows: of the test set.
        values: of each row's conformers, such as energies.

    Returns:
        Of each row's conformers the value minus the mean over all of the molecule's; NaN where the molecule has one conformer.
    """
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for row, of_row in zip(rows, values, strict=True):
        total, count = sums.get(row.molecule, (0.0, 0))
        sums[row.molecule] = total + float(of_row.sum()), count + len(of_row)
    means = {molecule: total / count if count > 1 else np.nan for molecule, (total, count) in sums.items()}
    return [of_row - means[row.molecule] for row, of_row in zip(rows, values, strict=True)]


def summaries(predictions: Predictions) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarize the errors of every potential: `{potential: {source: {key: value}}}` (`statistics.errors.summarize`)."""
    return {potential: summarize(errors_of(predictions, potential)) for potential in predictions.potentials}
