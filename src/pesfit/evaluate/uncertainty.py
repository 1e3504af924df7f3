"""How sure every potential is on the test set, beside how wrong it is: judged by source and quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.evaluate.predictions import Predicted, Predictions
from pesfit.evaluate.test_rows import TestRow
from pesfit.statistics.errors import ALL, numbers_of
from pesfit.statistics.resampling import Units, units_of
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.scores import Judgement, Sample, judge

Quantity: TypeAlias = Literal["forces", "relative_energy"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


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


def judge_predictions(predictions: Predictions, calibrations: Mapping[str, Calibration | None]) -> list[Judged]:
    """Judge the deviations of every potential that has them, for each quantity by source and for `ALL`.

    Args:
        predictions: on the test set.
        calibrations: of the models, by name; what deviations were corrected by.
    """
    found = []
    for potential in predictions.potentials:
        calibration = calibrations.get(potential) or Calibration()
        for quantity in QUANTITIES:
            for source in (ALL, *predictions.sources):
                sample = _sample(predictions, potential, None if source == ALL else source, quantity, calibration)
                judgement = None if sample is None else judge(sample)
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
    errors, deviations, conformers = [np.zeros(0)], [np.zeros(0)], []
    molecules: list[tuple[str, str]] = []
    for row, said in pairs:
        error, deviation, conformer = of_row(row, said)
        errors.append(error)
        deviations.append(deviation)
        conformers.append(len(molecules) + conformer)
        molecules += [(row.dataset, row.group)] * row.n_conformers
    corrected = np.concatenate(deviations)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = corrected / scale.factor
    all_errors, conformer = np.concatenate(errors), np.concatenate(conformers)
    squares: FloatArray = np.bincount(conformer, all_errors**2, len(molecules)).astype(np.float64)
    units = units_of(numbers_of(molecules), squares[:, None])
    of_values = None if units is None else Units(units.kind, units.number[conformer])
    return Sample.of(all_errors, corrected, np.sqrt(raw**2 + scale.noise**2), of_values)


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
