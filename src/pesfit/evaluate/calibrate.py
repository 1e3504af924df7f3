"""Calibration of fitted models: of standard deviations against errors on the validation set, and thresholds on the training set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.dataset import ConformerDataset
from pesfit.data.sources import covers
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.predictions import Pairs, Predicted, energy_pairs, force_pairs, predict_rows, relative_energy_pairs
from pesfit.potentials.model import Model
from pesfit.uncertainty.calibration import DOMAIN_QUANTILE, MIN_CONFORMERS, Calibration, Scale

MAX_VALIDATION, MAX_TRAINING = 2000, 1000
"""Conformers that are used, evenly spread over the set where there are more: one factor, and a quantile, need no more."""
ATOMS_A_PIECE = {True: 50_000, False: 1000}
"""Atoms of all conformers in one piece of work, by whether a model needs bonds: a network takes some 20 ms for the standard deviations of
a conformer of 9 atoms, a force field 0.1 ms."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Data that a model was fitted to, and is calibrated on.

    Attributes:
        datasets: clustered data, by name.
        splits: of these data sets.
        parameterized: whose charges are used; rows that it has no topology of are left out. A model that needs bonds needs it.
        sources: that the model was fitted to; all where empty.
    """

    datasets: Mapping[str, ConformerDataset]
    splits: Splits
    parameterized: ParameterizedSet | None = None
    sources: Sequence[str] = ()

    def rows(self, split: str, largest: int) -> Iterator[LabeledRow]:
        """Yield the rows of a split, with at most `largest` conformers in all, evenly spread."""
        places = [
            (name, i, id_)
            for name, dataset in self.datasets.items()
            for i, (id_, source) in enumerate(
                zip(*(dataset.table.column(key).to_pylist() for key in ("id", "source")), strict=True)
            )
            if self._has(name, id_, source)
        ]
        there = [self.splits.conformers(name, id_, split) for name, _, id_ in places]
        for (name, i, id_), chosen in zip(places, _spread(there, largest), strict=True):
            if len(chosen):
                topology = None if self.parameterized is None else self.parameterized.topology(name, id_)
                charges = None if topology is None else topology.charges
                yield LabeledRow.of(name, self.datasets[name][i].select(chosen), charges)

    def _has(self, dataset: str, record: str, source: str) -> bool:
        is_known = self.parameterized is None or self.parameterized.index(dataset, record) is not None
        return is_known and (not self.sources or any(covers(name, source) for name in self.sources))


def calibrate(model: Model, folder: Path, labels: Labels) -> dict[str, Any] | None:
    """Fit what corrects a model's standard deviations and write it as `calibration.json`, which opening the model finds.

    Results depend on data and model alone, not on the number of worker processes.

    Args:
        model: just fitted. Without a posterior there is nothing to calibrate, and nothing is written.
        folder: of the model.
        labels: of which validation and training set are used.

    Returns:
        Metrics; None without a posterior.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    if not model.has_posterior:
        return None
    raw = copy(model)
    raw.calibration = None
    rows = [*labels.rows("validation", MAX_VALIDATION)]
    n_validation = len(rows)
    rows += labels.rows("train", MAX_TRAINING)
    predicted = predict_rows({"": raw}, rows, label="calibrate", atoms_a_piece=ATOMS_A_PIECE[raw.needs_bonds]).predicted[""]
    known = [(row, one) if one and one.std else None for row, one in zip(rows, predicted, strict=True)]
    validation, training = [one for one in known[:n_validation] if one], [one for one in known[n_validation:] if one]
    relative, forces = _fit(validation, relative_energy_pairs), _fit(validation, force_pairs)
    total = _fit(validation, energy_pairs) if model.has_total_energies else relative
    by_group: dict[str, list[FloatArray]] = {}
    for row, one in training:
        if one.std is not None:
            by_group.setdefault(row.group, []).append(forces.factor * one.std.score)
    scores = {group: np.concatenate(parts) for group, parts in by_group.items()}
    everything = np.concatenate([np.zeros(0), *scores.values()])
    calibration = Calibration(
        total,
        relative,
        forces,
        float(np.quantile(everything, DOMAIN_QUANTILE)) if len(everything) else None,
        {group: float(np.quantile(of, DOMAIN_QUANTILE)) for group, of in scores.items() if len(of) >= MIN_CONFORMERS},
    )
    calibration.write(folder)
    return {
        **calibration.metrics(),
        "validation_conformers": sum(row.n_conformers for row, _ in validation),
        "training_conformers": len(everything),
        "rows_left_out": sum(one is None for one in known),
    }


def _fit(validation: Sequence[tuple[LabeledRow, Predicted]], pairs_of: Callable[[LabeledRow, Predicted], Pairs]) -> Scale:
    errors, stds = zip(*(pairs_of(*one) for one in validation), strict=True) if validation else ((), ())
    return Scale.fit(np.concatenate([np.zeros(0), *errors]), np.concatenate([np.zeros(0), *stds]))


def _spread(conformers: Sequence[LongArray], largest: int) -> Iterator[LongArray]:
    """Choose conformers of each row, at most `largest` in all, evenly spread."""
    n = sum(len(of_row) for of_row in conformers)
    taken = np.zeros(n, dtype=np.bool_)
    taken[np.arange(min(n, largest)) * n // max(min(n, largest), 1)] = True
    start = 0
    for of_row in conformers:
        yield of_row[taken[start : start + len(of_row)]]
        start += len(of_row)
