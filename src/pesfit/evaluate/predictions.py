"""What every fitted potential says of the conformers of the test set, beside the labels.

Each row of the data sets that has test conformers is one `TestRow`; what a potential says of it is a `Predicted`, or a `Failure` where it
can say nothing: an element that a network was not trained on, a molecule that a force field cannot be assigned to. Results do not depend on
the number of workers, since the pieces that rows are dealt into depend on the rows alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError, check_failed_fraction
from pesfit.core.parallel import ordered_map, use_one_thread
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.test_rows import TestRow, find_test_rows
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.uncertainty.standard_deviations import StandardDeviations

STAGE = "analyse"
_ATOMS_A_PIECE = 20_000
"""Atoms of all conformers of the rows in one piece of work."""
_WORTH_WORKERS = 200_000
"""Conformers times atoms times potentials, some 10 s of work, below which starting worker processes takes longer than they save."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a potential says of the conformers of a row.

    Attributes:
        energy: [kcal/mol], shape (n_conformers,).
        forces: [kcal/mol/Å], shape (n_conformers, n_atoms, 3).
        deviations: None where the potential has no posterior. Relative energies are relative to the row's first test conformer.
    """

    energy: FloatArray
    forces: FloatArray
    deviations: StandardDeviations | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What all potentials say of the test set.

    Attributes:
        rows: with test conformers, in the order of the data sets.
        predicted: by potential; for each of `rows` what it says, None where it failed.
        failures: one for each potential and row that has nothing; ids are `<potential>/<data set>/<id>`.
    """

    rows: tuple[TestRow, ...]
    predicted: Mapping[str, tuple[Predicted | None, ...]]
    failures: tuple[Failure, ...] = ()

    @property
    def potentials(self) -> tuple[str, ...]:
        """Names of the potentials, in order."""
        return tuple(self.predicted)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Sources of the rows, in alphabetical order."""
        return tuple(sorted({row.source for row in self.rows}))

    @property
    def is_complete(self) -> bool:
        """Whether every potential says something of every row."""
        return all(predicted is not None for of_rows in self.predicted.values() for predicted in of_rows)

    def of(self, potential: str, source: str | None = None) -> list[tuple[TestRow, Predicted]]:
        """Return the rows that a potential says something of, with what it says.

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
        """Return the part that every potential says something of, where numbers of different potentials can be compared."""
        return self.only([all(said[i] is not None for said in self.predicted.values()) for i in range(len(self.rows))])

    def only(self, which: Sequence[bool]) -> Predictions:
        """Return the part of some rows.

        Args:
            which: of `rows`, length n_rows.
        """
        predicted = {name: tuple(itertools.compress(of_rows, which)) for name, of_rows in self.predicted.items()}
        return Predictions(tuple(itertools.compress(self.rows, which)), predicted, self.failures)

    def force_errors(self, potential: str, source: str | None = None) -> FloatArray:
        """Return prediction minus label of every force component that has a label [kcal/mol/Å], shape (n_components,)."""
        found = [
            (predicted.forces - row.forces).reshape(-1)
            for row, predicted in self.of(potential, source)
            if row.forces is not None
        ]
        return np.concatenate([np.zeros(0), *found])

    def force_deviations(self, potential: str, source: str | None = None) -> FloatArray:
        """Return the standard deviations of the very components of `force_errors` [kcal/mol/Å], shape (n_components,).

        Raises:
            DataError: where the potential has no posterior.
        """
        found = [
            _deviations(potential, predicted).forces.reshape(-1)
            for row, predicted in self.of(potential, source)
            if row.forces is not None
        ]
        return np.concatenate([np.zeros(0), *found])

    def relative_energy_errors(self, potential: str, source: str | None = None) -> FloatArray:
        """Return prediction minus label of energies relative to the first test conformer of the row, which is left out itself.

        Returns:
            [kcal/mol], shape (n,), n the number of test conformers minus that of rows.
        """
        found = [(predicted.energy - row.energy) for row, predicted in self.of(potential, source)]
        return np.concatenate([np.zeros(0), *[error[1:] - error[0] for error in found]])

    def relative_energy_deviations(self, potential: str, source: str | None = None) -> FloatArray:
        """Return the standard deviations of the very energies of `relative_energy_errors` [kcal/mol], shape (n,).

        Raises:
            DataError: where the potential has no posterior.
        """
        found = [_deviations(potential, predicted).relative_energy[1:] for _, predicted in self.of(potential, source)]
        return np.concatenate([np.zeros(0), *found])


def _deviations(potential: str, predicted: Predicted) -> StandardDeviations:
    if predicted.deviations is None:
        raise DataError(f"{potential} has no posterior, and so no standard deviations")
    return predicted.deviations


def predict_test(
    models: Mapping[str, Model],
    datasets: Mapping[str, ConformerDataset],
    splits: Splits,
    parameterized: ParameterizedSet | None = None,
    *,
    max_failed_fraction: float = 1.0,
) -> Predictions:
    """Evaluate potentials on the test set, in worker processes.

    Args:
        models: opened potentials, by the name that the report calls them.
        datasets: clustered data, by name.
        splits: of these data sets.
        parameterized: whose charges the force fields use; what it has no topology of is a failure of theirs.
        max_failed_fraction: of pairs of a potential and a row.

    Raises:
        DataError: where the splits do not fit the data sets, or the test set is empty.
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    rows = find_test_rows(datasets, splits, parameterized)
    if not rows:
        raise DataError("the test set is empty: no data set has a conformer in it; look at `split.rules` in params.yaml")
    return predict_rows(models, rows, max_failed_fraction=max_failed_fraction)


def predict_rows(
    models: Mapping[str, Model], rows: Sequence[TestRow], *, max_failed_fraction: float = 1.0, label: str = "test set"
) -> Predictions:
    """Evaluate potentials on any labelled conformers, in worker processes; see `predict_test`.

    Args:
        models: opened potentials, by name.
        rows: the conformers.
        max_failed_fraction: of pairs of a potential and a row.
        label: what the progress bar says.

    Raises:
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    tasks = [_Task(name, model, tuple(piece)) for name, model in models.items() for piece in _pieces(rows)]
    found: dict[str, list[Predicted | Failure]] = {name: [] for name in models}
    for task, results in zip(tasks, _mapped(tasks, label), strict=True):
        found[task.name].extend(results)
    failures = tuple(result for results in found.values() for result in results if isinstance(result, Failure))
    check_failed_fraction(failures, len(models) * len(rows), max_failed_fraction)
    predicted = {
        name: tuple(None if isinstance(result, Failure) else result for result in results) for name, results in found.items()
    }
    return Predictions(tuple(rows), predicted, failures)


@dataclass(frozen=True, eq=False)
class _Task:
    name: str
    model: Model
    rows: tuple[TestRow, ...]


def _pieces(rows: Sequence[TestRow]) -> Iterator[list[TestRow]]:
    """Deal rows into consecutive pieces of at least `_ATOMS_A_PIECE` atoms."""
    piece: list[TestRow] = []
    n_atoms = 0
    for row in rows:
        piece.append(row)
        n_atoms += row.n_conformers * row.n_atoms
        if n_atoms >= _ATOMS_A_PIECE:
            yield piece
            piece, n_atoms = [], 0
    if piece:
        yield piece


def _mapped(tasks: Sequence[_Task], label: str) -> Iterator[list[Predicted | Failure]]:
    use_one_thread()
    if sum(row.n_conformers * row.n_atoms for task in tasks for row in task.rows) < _WORTH_WORKERS:
        return map(_predict_rows, tqdm(tasks, desc=label, unit="piece", dynamic_ncols=True))
    return ordered_map(_predict_rows, tasks, label=label, n_items=len(tasks), unit="piece")


def _predict_rows(task: _Task) -> list[Predicted | Failure]:
    return [_predict_row(task, row) for row in task.rows]


def _predict_row(task: _Task, row: TestRow) -> Predicted | Failure:
    name = f"{task.name}/{row.name}"
    if task.model.needs_bonds and row.is_parameterized is False:
        return Failure(name, STAGE, "NoTopology", "stage 03 could not parameterize it; its own failures say why")
    try:
        prepared = task.model.prepare(row.atomic_numbers, row.smiles, row.name, charges=row.charges)
        return _evaluate(task.model, prepared, row)
    except (MoleculeError, DataError) as error:
        return Failure.from_exception(name, STAGE, error)


def _evaluate(model: Model, prepared: PreparedMolecule, row: TestRow) -> Predicted:
    energy, forces = model.evaluate(prepared, row.coords)
    finite = np.isfinite(energy) & np.isfinite(forces).all(axis=(1, 2))
    if not finite.all():
        raise DataError(f"test conformer {int(np.argmin(finite))} has no finite energy and forces")
    return Predicted(energy, forces, None if prepared.uncertainty is None else prepared.uncertainty(row.coords, row.coords[0]))
