"""Predictions of models on labeled conformers, in worker processes, and their errors.

A `LabeledRow` is predicted by each model: the result is a `Predicted`, or a `Failure` where a model does not cover the molecule, such as an
element that a network was not trained on, or a molecule that a force field cannot be assigned to. Results do not depend on the number of
workers, since the pieces that rows are dealt into depend on the rows alone.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError, check_failed_fraction
from pesfit.core.parallel import ordered_map, use_one_thread
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.labeled_rows import LabeledRow, find_test_rows
from pesfit.potentials.model import Model
from pesfit.statistics.errors import Errors, numbers_of, summarize
from pesfit.uncertainty.standard_deviations import StandardDeviations

STAGE = "analyse"
_ATOMS_A_PIECE = 20_000
"""Atoms of all conformers in one piece of work."""
_WORTH_WORKERS = 10
"""Pieces of work, some 10 s, below which starting worker processes takes longer than they save."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of one model for the conformers of a row.

    Attributes:
        energy: [kcal/mol], shape (n_conformers,).
        forces: [kcal/mol/Å], shape (n_conformers, n_atoms, 3).
        std: predicted standard deviations; None where the model has no posterior. Relative energies are relative to the row's first
            conformer.
    """

    energy: FloatArray
    forces: FloatArray
    std: StandardDeviations | None = None

    @classmethod
    def joined(cls, parts: Sequence[Predicted]) -> Predicted:
        """Join the predictions for consecutive parts of a row."""
        stds = [part.std for part in parts if part.std is not None]
        columns = ([getattr(std, name) for std in stds] for name in ("energy", "relative_energy", "forces"))
        return cls(
            np.concatenate([part.energy for part in parts]),
            np.concatenate([part.forces for part in parts]),
            StandardDeviations(*(np.concatenate(column) for column in columns)) if stds else None,
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of several models for the same rows.

    Attributes:
        rows: in the order of the data sets.
        predicted: by model; for each of `rows` its prediction, None where it failed.
        failures: one for each model and row without a prediction; ids are `<model>/<data set>/<id>`.
    """

    rows: tuple[LabeledRow, ...]
    predicted: Mapping[str, tuple[Predicted | None, ...]]
    failures: tuple[Failure, ...] = ()

    @property
    def potentials(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(self.predicted)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Sources of the rows, in alphabetical order."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def is_complete(self) -> bool:
        """Whether there is a prediction of every model for every row."""
        return all(predicted is not None for of_rows in self.predicted.values() for predicted in of_rows)

    def of(self, potential: str, source: str | None = None) -> list[tuple[LabeledRow, Predicted]]:
        """Return the rows that a model has predictions for, with these.

        Args:
            potential: one of `potentials`.
            source: of the rows; None for all.
        """
        return [
            (row, predicted)
            for row, predicted in zip(self.rows, self.predicted[potential], strict=True)
            if predicted is not None and source in (None, row.source)
        ]

    def common(self) -> Predictions:
        """Return the rows that every model has predictions for, where numbers of different models can be compared."""
        return self.only([all(of_rows[i] is not None for of_rows in self.predicted.values()) for i in range(len(self.rows))])

    def only(self, which: Iterable[bool]) -> Predictions:
        """Return the part of some rows; `which` of `rows`, length n_rows."""
        chosen = list(which)
        predicted = {name: tuple(itertools.compress(of_rows, chosen)) for name, of_rows in self.predicted.items()}
        return Predictions(tuple(itertools.compress(self.rows, chosen)), predicted, self.failures)


def predict_test(
    models: Mapping[str, Model],
    datasets: Mapping[str, ConformerDataset],
    splits: Splits,
    parameterized: ParameterizedSet | None = None,
    *,
    max_failed_fraction: float = 1.0,
) -> Predictions:
    """Predict the test set.

    Args:
        models: by name.
        datasets: clustered data, by name.
        splits: of these data sets.
        parameterized: whose charges the force fields use; what it has no topology of is a failure of theirs.
        max_failed_fraction: of pairs of a model and a row.

    Raises:
        DataError: where the splits do not fit the data sets, or the test set is empty.
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    rows = find_test_rows(datasets, splits, parameterized)
    if not rows:
        raise DataError("the test set is empty: no data set has a conformer in it; look at `split.rules` in params.yaml")
    return predict_rows(models, rows, max_failed_fraction=max_failed_fraction)


def predict_rows(
    models: Mapping[str, Model],
    rows: Sequence[LabeledRow],
    *,
    max_failed_fraction: float = 1.0,
    label: str = "test set",
    atoms_a_piece: int = _ATOMS_A_PIECE,
) -> Predictions:
    """Predict any labeled conformers.

    Args:
        models: by name.
        rows: the conformers.
        max_failed_fraction: of pairs of a model and a row.
        label: of the progress bar.
        atoms_a_piece: atoms of all conformers in one piece of work; longer rows are cut.

    Raises:
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    pieces = [tuple(piece) for piece in _pieces(rows, atoms_a_piece)]
    # As bytes: torch would otherwise send tensors through shared memory, of which containers have little.
    tasks = [_Task(name, stored, piece) for name, stored in _pickled(models) for piece in pieces]
    parts: dict[str, list[list[Predicted | Failure]]] = {name: [[] for _ in rows] for name in models}
    for task, results in zip(tasks, _mapped(tasks, label, atoms_a_piece), strict=True):
        for part, result in zip(task.parts, results, strict=True):
            parts[task.name][part.number].append(result)
    found = {name: tuple(_whole(of_row) for of_row in of_rows) for name, of_rows in parts.items()}
    failures = tuple(one for of_rows in found.values() for one in of_rows if isinstance(one, Failure))
    check_failed_fraction(failures, len(models) * len(rows), max_failed_fraction)
    predicted = {name: tuple(None if isinstance(one, Failure) else one for one in of_rows) for name, of_rows in found.items()}
    return Predictions(tuple(rows), predicted, failures)


@dataclass(frozen=True, eq=False)
class _Part:
    """Consecutive conformers of a row.

    Attributes:
        number: of the row.
        row: with these conformers alone.
        reference: [Å], the row's first conformer, shape (n_atoms, 3).
    """

    number: int
    row: LabeledRow
    reference: FloatArray


@dataclass(frozen=True, eq=False)
class _Task:
    """Parts of rows for one model to predict, which is pickled."""

    name: str
    model: bytes
    parts: tuple[_Part, ...]


def _pickled(models: Mapping[str, Model]) -> Iterator[tuple[str, bytes]]:
    for name, model in models.items():
        yield name, pickle.dumps(model)


def _pieces(rows: Sequence[LabeledRow], atoms_a_piece: int) -> Iterator[list[_Part]]:
    """Cut rows into parts, and deal these into consecutive pieces of at least so many atoms."""
    piece: list[_Part] = []
    n_atoms = 0
    for number, row in enumerate(rows):
        n_at_once = max(1, atoms_a_piece // row.n_atoms)
        for start in range(0, row.n_conformers, n_at_once):
            part = row.select(slice(start, start + n_at_once))
            piece.append(_Part(number, part, row.coords[0]))
            n_atoms += part.n_conformers * row.n_atoms
            if n_atoms >= atoms_a_piece:
                yield piece
                piece, n_atoms = [], 0
    if piece:
        yield piece


def _mapped(tasks: Sequence[_Task], label: str, atoms_a_piece: int) -> Iterator[list[Predicted | Failure]]:
    use_one_thread()
    if sum(part.row.n_conformers * part.row.n_atoms for task in tasks for part in task.parts) < _WORTH_WORKERS * atoms_a_piece:
        return map(_predict_parts, tqdm(tasks, desc=label, unit="piece", dynamic_ncols=True))
    return ordered_map(_predict_parts, tasks, label=label, n_items=len(tasks), unit="piece")


def _predict_parts(task: _Task) -> list[Predicted | Failure]:
    model: Model = pickle.loads(task.model)  # noqa: S301 - what `predict_rows` made a moment ago
    return [_predict_part(task.name, model, part) for part in task.parts]


def _predict_part(name: str, model: Model, part: _Part) -> Predicted | Failure:
    row = part.row
    if model.needs_bonds and row.is_parameterized is False:
        return Failure(f"{name}/{row.name}", STAGE, "NoTopology", "stage 03 could not parameterize it; see its own failures")
    try:
        prepared = model.prepare(row.atomic_numbers, row.smiles, row.name, charges=row.charges)
        energy, forces = model.evaluate(prepared, row.coords)
        std = None if prepared.uncertainty is None else prepared.uncertainty(row.coords, part.reference)
    except (MoleculeError, DataError) as error:
        return Failure.from_exception(f"{name}/{row.name}", STAGE, error)
    finite = np.isfinite(energy) & np.isfinite(forces).all(axis=(1, 2))
    if not finite.all():
        message = f"conformer {int(np.argmin(finite))} has no finite energy and forces"
        return Failure(f"{name}/{row.name}", STAGE, DataError.__name__, message)
    return Predicted(energy, forces, std)


def _whole(parts: Sequence[Predicted | Failure]) -> Predicted | Failure:
    """Join the parts of a row; the first failure is that of the row."""
    found = [part for part in parts if isinstance(part, Predicted)]
    return Predicted.joined(found) if len(found) == len(parts) else next(part for part in parts if isinstance(part, Failure))


Pairs: TypeAlias = tuple[FloatArray, FloatArray]
"""Errors (prediction minus label) with their predicted standard deviations, each of shape (n,)."""
_NO_PAIRS = np.zeros(0), np.zeros(0)


def energy_pairs(row: LabeledRow, predicted: Predicted) -> Pairs:
    """Return errors and standard deviations of total energies [kcal/mol]; none without a posterior."""
    return _NO_PAIRS if predicted.std is None else (predicted.energy - row.energy, predicted.std.energy)


def relative_energy_pairs(row: LabeledRow, predicted: Predicted) -> Pairs:
    """Return those of energies relative to the row's first conformer [kcal/mol], for which both are 0 and which is left out."""
    errors = predicted.energy - row.energy
    return _NO_PAIRS if predicted.std is None else (errors[1:] - errors[0], predicted.std.relative_energy[1:])


def force_pairs(row: LabeledRow, predicted: Predicted) -> Pairs:
    """Return those of force components [kcal/mol/Å]; none without labels."""
    if predicted.std is None or row.forces is None:
        return _NO_PAIRS
    return (predicted.forces - row.forces).reshape(-1), predicted.std.forces.reshape(-1)


def gives_total_energies(potential: str) -> bool:
    """Say whether a model's energies have the labels' zero; those of a force field do not."""
    return not potential.startswith("smirnoff")


def errors_of(predictions: Predictions, potential: str) -> Errors:
    """Return a model's errors of each conformer that it has a prediction of."""
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


def summaries(predictions: Predictions) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarize the errors of every model: `{model: {source: {key: value}}}` (`statistics.errors.summarize`)."""
    return {potential: summarize(errors_of(predictions, potential)) for potential in predictions.potentials}


def centered(rows: Sequence[LabeledRow], values: Sequence[FloatArray]) -> list[FloatArray]:
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
