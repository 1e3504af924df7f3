"""Calibrate an opened model: its deviations against its errors on the validation set, and its domain on the training set."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import MoleculeError, PesfitError
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import covers
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.potentials.model import Model
from pesfit.uncertainty.calibration import DOMAIN_QUANTILE, MIN_CONFORMERS, Calibration, Scale

MAX_VALIDATION, MAX_TRAINING = 2000, 1000
"""Conformers that are looked at, evenly spread over the set where there are more: one factor, and a quantile, need no more."""
_ATOMS_A_PIECE = {True: 50_000, False: 1000}
"""Atoms of all conformers in one piece of work, by whether a model needs bonds: a network takes some 20 ms for the standard deviations of
a conformer of 9 atoms, a force field 0.1 ms, and one piece starts no processes. It shares work out; `Model.evaluate` bounds memory."""


def _nothing() -> FloatArray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Labels:
    """What a model was fitted to, and what it is judged by.

    Attributes:
        datasets: clustered data, by name.
        splits: of these data sets.
        parameterized: whose charges are used; rows that it has no topology of are passed over. A model that needs bonds needs it.
        sources: that the model was fitted to; all where empty.
    """

    datasets: Mapping[str, ConformerDataset]
    splits: Splits
    parameterized: ParameterizedSet | None = None
    sources: Sequence[str] = ()

    def has(self, dataset: str, record: str, source: str) -> bool:
        """Say whether a row counts."""
        is_known = self.parameterized is None or self.parameterized.index(dataset, record) is not None
        return is_known and (not self.sources or any(covers(name, source) for name in self.sources))

    def charges(self, dataset: str, record: str) -> FloatArray | None:
        """Return the stored charges of a row [e], shape (n_atoms,)."""
        topology = None if self.parameterized is None else self.parameterized.topology(dataset, record)
        return None if topology is None else topology.charges


def calibrate(model: Model, folder: Path, labels: Labels) -> dict[str, Any] | None:
    """Fit what corrects a model's deviations and write it as `calibration.json`, which opening the model finds.

    Results depend on data and model alone, not on the number of worker processes.

    Args:
        model: just fitted. Of one without a posterior nothing is asked, and nothing is written.
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
    validation_rows, training_rows = (
        list(_rows(labels, "validation", MAX_VALIDATION)),
        list(_rows(labels, "train", MAX_TRAINING)),
    )
    found = list(_judge(raw, [*validation_rows, *training_rows]))
    validation, training = _Judged.join(found[: len(validation_rows)]), _Judged.join(found[len(validation_rows) :])
    relative = Scale.fit(validation.relative_errors, validation.relative_deviations)
    total = Scale.fit(validation.energy_errors, validation.energy_deviations) if model.has_total_energies else relative
    forces = Scale.fit(validation.force_errors, validation.force_deviations)
    by_group: dict[str, list[FloatArray]] = {}
    for row, judged in zip(training_rows, found[len(validation_rows) :], strict=True):
        by_group.setdefault(row.record.group, []).append(forces.factor * judged.scores)
    scores = {group: np.concatenate(parts) for group, parts in by_group.items()}
    calibration = Calibration(
        total,
        relative,
        forces,
        _threshold(np.concatenate([_nothing(), *scores.values()])),
        {group: float(np.quantile(of, DOMAIN_QUANTILE)) for group, of in scores.items() if len(of) >= MIN_CONFORMERS},
    )
    calibration.write(folder)
    return {
        **calibration.metrics(),
        "validation_conformers": len(validation.energy_errors),
        "training_conformers": len(training.scores),
        "rows_left_out": validation.n_left_out + training.n_left_out,
    }


def _threshold(scores: FloatArray) -> float | None:
    return float(np.quantile(scores, DOMAIN_QUANTILE)) if len(scores) else None


@dataclass(frozen=True, eq=False)
class _Row:
    """A row, or a part of it, with the chosen conformers alone.

    Attributes:
        name: what messages call it.
        record: with labels.
        charges: [e], shape (n_atoms,); None where none are stored.
    """

    name: str
    record: Record
    charges: FloatArray | None


@dataclass(frozen=True, eq=False)
class _Part:
    """Some conformers of a row.

    Attributes:
        number: of the row, whose parts follow each other.
        row: with these conformers alone.
        reference: [Å], the row's first one of the set, shape (n_atoms, 3).
    """

    number: int
    row: _Row
    reference: FloatArray


@dataclass(frozen=True, eq=False)
class _Judged:
    """Errors and deviations; of relative energies without the row's first conformer, for which both are 0.

    Attributes:
        scores: `StandardDeviations.score`, shape (n_conformers,).
        n_left_out: rows that the model can say nothing of.
    """

    energy_errors: FloatArray = field(default_factory=_nothing)
    energy_deviations: FloatArray = field(default_factory=_nothing)
    relative_errors: FloatArray = field(default_factory=_nothing)
    relative_deviations: FloatArray = field(default_factory=_nothing)
    force_errors: FloatArray = field(default_factory=_nothing)
    force_deviations: FloatArray = field(default_factory=_nothing)
    scores: FloatArray = field(default_factory=_nothing)
    n_left_out: int = 0

    @classmethod
    def join(cls, rows: Iterable[_Judged]) -> _Judged:
        """Join those of all rows."""
        found = list(rows)
        names = [name for name in cls.__dataclass_fields__ if name != "n_left_out"]
        joined = {name: np.concatenate([_nothing(), *(getattr(row, name) for row in found)]) for name in names}
        return cls(**joined, n_left_out=sum(row.n_left_out for row in found))


def _rows(labels: Labels, split: str, largest: int) -> Iterator[_Row]:
    """Yield the chosen conformers of a set, row by row."""
    places = [
        (name, i, id_)
        for name, dataset in labels.datasets.items()
        for i, (id_, source) in enumerate(
            zip(*(dataset.table.column(key).to_pylist() for key in ("id", "source")), strict=True)
        )
        if labels.has(name, id_, source)
    ]
    there = [labels.splits.conformers(name, id_, split) for name, _, id_ in places]
    for (name, i, id_), chosen in zip(places, _spread(there, largest), strict=True):
        if len(chosen):
            yield _Row(f"{name}/{id_}", labels.datasets[name][i].select(chosen), labels.charges(name, id_))


def _spread(conformers: Sequence[LongArray], largest: int) -> Iterator[LongArray]:
    """Choose conformers of each row, at most `largest` in all, evenly spread."""
    n = sum(len(of_row) for of_row in conformers)
    taken = np.zeros(n, dtype=np.bool_)
    taken[np.arange(min(n, largest)) * n // max(min(n, largest), 1)] = True
    start = 0
    for of_row in conformers:
        yield of_row[taken[start : start + len(of_row)]]
        start += len(of_row)


def _judge(model: Model, rows: Iterable[_Row]) -> Iterator[_Judged]:
    """Yield one result for each row."""
    pieces = list(_pieces(rows, _ATOMS_A_PIECE[model.needs_bonds]))
    results = ordered_map(
        # As bytes: torch would otherwise send tensors through shared memory, of which containers have little.
        partial(_judge_piece, pickle.dumps(model)),
        pieces,
        label="calibrate",
        n_items=len(pieces),
        unit="piece",
    )
    waiting: list[_Judged] = []
    last = -1
    for piece, found in zip(pieces, results, strict=True):
        for part, judged in zip(piece, found, strict=True):
            if part.number != last and waiting:
                yield _relative(waiting)
                waiting = []
            waiting.append(judged)
            last = part.number
    if waiting:
        yield _relative(waiting)


def _pieces(rows: Iterable[_Row], n_atoms_a_piece: int) -> Iterator[list[_Part]]:
    """Cut rows into parts, and deal these into consecutive pieces of about as many atoms."""
    piece: list[_Part] = []
    n_atoms = 0
    for number, row in enumerate(rows):
        record = row.record
        n_in_one_go = max(1, n_atoms_a_piece // record.n_atoms)
        for start in range(0, record.n_conformers, n_in_one_go):
            part = record.select(range(start, min(start + n_in_one_go, record.n_conformers)))
            piece.append(_Part(number, replace(row, record=part), record.coords[0]))
            n_atoms += part.n_conformers * part.n_atoms
            if n_atoms >= n_atoms_a_piece:
                yield piece
                piece, n_atoms = [], 0
    if piece:
        yield piece


def _judge_piece(model: bytes, piece: Sequence[_Part]) -> list[_Judged]:
    opened: Model = pickle.loads(model)  # noqa: S301 - what `_judge` made a moment ago
    return [_judge_part(opened, part) for part in piece]


def _judge_part(model: Model, part: _Part) -> _Judged:
    """Evaluate; relative errors are not known yet, since the reference may be in another part."""
    record = part.row.record
    try:
        prepared = model.prepare(record.atomic_numbers, record.smiles, part.row.name, part.row.charges)
        if prepared.uncertainty is None:
            raise MoleculeError(f"{part.row.name}: the model has no deviations for it")
        energy, forces = model.evaluate(prepared, record.coords)
        deviations = prepared.uncertainty(record.coords, part.reference)
    except PesfitError:  # such as an element that no training molecule has; the fit has reported it
        return _Judged(n_left_out=1)
    return _Judged(
        energy_errors=energy - record.energy,
        energy_deviations=deviations.energy,
        relative_deviations=deviations.relative_energy,
        force_errors=_nothing() if record.forces is None else (forces - record.forces).reshape(-1),
        force_deviations=_nothing() if record.forces is None else deviations.forces.reshape(-1),
        scores=deviations.score,
    )


def _relative(parts: Sequence[_Judged]) -> _Judged:
    """Join the parts of a row; a row of which a part failed is left out."""
    if any(part.n_left_out for part in parts):
        return _Judged(n_left_out=1)
    row = _Judged.join(parts)
    return replace(
        row,
        relative_errors=row.energy_errors[1:] - row.energy_errors[0],
        relative_deviations=row.relative_deviations[1:],
    )
