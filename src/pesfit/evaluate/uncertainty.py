"""How sure every potential is on the test set, beside how wrong it is: judged by source and quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.evaluate.errors import ALL
from pesfit.evaluate.predictions import Predicted, Predictions
from pesfit.evaluate.test_rows import TestRow
from pesfit.statistics.errors import Bootstrap
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.scores import Judgement, Sample, judge

Quantity: TypeAlias = Literal["forces", "relative_energy"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
_MOLECULES_FOR_RESAMPLES = 10
"""As in `train.metrics`: with fewer, conformers are resampled, and intervals are too narrow."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The deviations of one potential.

    Attributes:
        potential: its name.
        source: of the rows, or `ALL`.
        quantity: of what.
        sample: errors and deviations.
        judgement: of them.
    """

    potential: str
    source: str
    quantity: Quantity
    sample: Sample
    judgement: Judgement


def judge_predictions(
    predictions: Predictions, calibrations: Mapping[str, Calibration | None], bootstrap: Bootstrap
) -> list[Judged]:
    """Judge the deviations of every potential that has them, for each quantity by source and for `ALL`.

    Args:
        predictions: on the test set.
        calibrations: of the models, by name; what deviations were corrected by.
        bootstrap: for intervals, over molecules where a source has at least ten, over conformers where it has fewer.
    """
    found = []
    for potential in predictions.potentials:
        calibration = calibrations.get(potential) or Calibration()
        for quantity in QUANTITIES:
            for source in (ALL, *predictions.sources):
                sample = _sample(predictions, potential, None if source == ALL else source, quantity, calibration)
                judgement = None if sample is None else judge(sample, bootstrap)
                if sample is not None and judgement is not None:
                    found.append(Judged(potential, source, quantity, sample, judgement))
    return found


def _sample(
    predictions: Predictions, potential: str, source: str | None, quantity: Quantity, calibration: Calibration
) -> Sample | None:
    """Return errors and deviations of one kind; None where there are none."""
    pairs = [(row, said) for row, said in predictions.of(potential, source) if said.deviations is not None]
    if not pairs:
        return None
    of_row = _forces if quantity == "forces" else _relative_energies
    scale = calibration.forces if quantity == "forces" else calibration.relative_energy
    errors, deviations, conformers, molecules = [np.zeros(0)], [np.zeros(0)], [], []
    n_conformers = 0
    for row, said in pairs:
        error, deviation, conformer = of_row(row, said)
        errors.append(error)
        deviations.append(deviation)
        conformers.append(n_conformers + conformer)
        molecules += [row.molecule] * len(error)
        n_conformers += row.n_conformers
    corrected = np.concatenate(deviations)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = corrected / scale.factor
    names = {name: i for i, name in enumerate(sorted(set(molecules)))}
    by_molecule = len(names) >= _MOLECULES_FOR_RESAMPLES
    unit = np.array([names[name] for name in molecules], dtype=np.int64) if by_molecule else np.concatenate(conformers)
    return Sample.of(np.concatenate(errors), corrected, np.sqrt(raw**2 + scale.noise**2), unit)


_Parts: TypeAlias = tuple[FloatArray, FloatArray, LongArray]


def _forces(row: TestRow, said: Predicted) -> _Parts:
    if row.forces is None or said.deviations is None:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    conformer = np.repeat(np.arange(row.n_conformers), 3 * row.n_atoms)
    return (said.forces - row.forces).reshape(-1), said.deviations.forces.reshape(-1), conformer


def _relative_energies(row: TestRow, said: Predicted) -> _Parts:
    """Relative to the row's first test conformer, which is left out itself."""
    if said.deviations is None:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    error = said.energy - row.energy
    return error[1:] - error[0], said.deviations.relative_energy[1:], np.arange(1, row.n_conformers)
