"""Errors by element, by energy above a molecule's lowest label, by number of atoms, and by molecule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute
from ase.data import chemical_symbols

from pesfit.core.arrays import FloatArray, IntArray, LongArray
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.predictions import Predicted, Predictions, centered
from pesfit.statistics.errors import ALL


@dataclass(frozen=True)
class Kind:
    """A way to tell errors apart.

    Attributes:
        name: of the column, with its unit.
        of_atoms: whether atoms of one conformer differ; energies then belong to no category.
        index: category of each atom of a row, from 0; shape (n_conformers, n_atoms), or one that spreads to it.
        label: of a category.
    """

    name: str
    of_atoms: bool
    index: Callable[[LabeledRow], LongArray]
    label: Callable[[int], str]


def by_element() -> Kind:
    """Tell atoms apart by element; the categories are atomic numbers."""
    return Kind("element", True, lambda row: row.atomic_numbers[None, :].astype(np.int64), lambda z: str(chemical_symbols[z]))


def by_energy(width: float, n_windows: int) -> Kind:
    """Tell conformers apart by their label above the molecule's lowest.

    Args:
        width: of a window [kcal/mol].
        n_windows: how many; the last one has no upper end.
    """

    def index(row: LabeledRow) -> LongArray:
        window = np.floor((row.energy - row.lowest_energy) / width)
        return np.clip(window, 0, n_windows - 1).astype(np.int64)[:, None]

    def label(window: int) -> str:
        return f"≥ {window * width:g}" if window == n_windows - 1 else f"{window * width:g}–{(window + 1) * width:g}"

    return Kind("energy_above_lowest_kcal_per_mol", False, index, label)


def by_size(width: int) -> Kind:
    """Tell molecules apart by their number of atoms, in ranges of `width`."""

    def label(number: int) -> str:
        return f"{number + 1}" if width == 1 else f"{number * width + 1}–{(number + 1) * width}"

    return Kind("n_atoms", False, lambda row: np.full((row.n_conformers, 1), (row.n_atoms - 1) // width), label)


@dataclass(frozen=True)
class Part:
    """Errors of one potential in one category of one source.

    Attributes:
        source: `all` for all of them.
        category: index of it, for the order.
        label: of the category.
        potential: name.
        n_conformers: how many take part.
        n_components: number of force labels.
        force_mae, force_rmse: [kcal/mol/Å]; None without labels.
        n_energies: conformers of molecules with several.
        energy_mae, energy_rmse: of ΔE' (see `errors`) [kcal/mol]; None without energies, or where categories are of atoms.
    """

    source: str
    category: int
    label: str
    potential: str
    n_conformers: int
    n_components: int
    force_mae: float | None
    force_rmse: float | None
    n_energies: int
    energy_mae: float | None
    energy_rmse: float | None


def breakdown(predictions: Predictions, kind: Kind) -> list[Part]:
    """Tell errors apart.

    Returns:
        By source (`all` first, where there are several), category and potential; categories without conformers are left out.
    """
    parts: list[Part] = []
    sources = ([ALL] if len(predictions.sources) > 1 else []) + list(predictions.sources)
    for potential in predictions.potentials:
        pairs = predictions.of(potential)
        errors = centered([row for row, _ in pairs], [predicted.energy - row.energy for row, predicted in pairs])
        for source in sources:
            tally: dict[int, FloatArray] = {}
            for (row, predicted), energy in zip(pairs, errors, strict=True):
                if source in (ALL, row.source):
                    _add(tally, kind, row, predicted, energy)
            parts += [_part(source, category, potential, kind, sums) for category, sums in sorted(tally.items())]
    order = {name: i for i, name in enumerate(predictions.potentials)}
    return sorted(parts, key=lambda part: (sources.index(part.source), part.category, order[part.potential]))


def _add(tally: dict[int, FloatArray], kind: Kind, row: LabeledRow, predicted: Predicted, energy: FloatArray) -> None:
    """Add a row to sums of each category: conformers, components, |ΔF|, ΔF², energies, |ΔE'|, ΔE'²."""
    of_atoms = np.broadcast_to(kind.index(row), (row.n_conformers, row.n_atoms))
    for category in np.unique(of_atoms).tolist():
        here = of_atoms == category
        sums = tally.setdefault(category, np.zeros(7))
        sums[0] += int(here.any(axis=1).sum())
        if row.forces is not None:
            errors = (predicted.forces - row.forces)[here]
            sums[1:4] += errors.size, np.abs(errors).sum(), (errors**2).sum()
        if not kind.of_atoms:
            errors = energy[here[:, 0]]
            errors = errors[np.isfinite(errors)]
            sums[4:7] += errors.size, np.abs(errors).sum(), (errors**2).sum()


def _part(source: str, category: int, potential: str, kind: Kind, sums: FloatArray) -> Part:
    n_conformers, n_components, n_energies = (int(sums[i]) for i in (0, 1, 4))

    def mean(i: int, n: int) -> float | None:
        return float(sums[i]) / n if n else None

    def root(i: int, n: int) -> float | None:
        return float(np.sqrt(sums[i] / n)) if n else None

    return Part(
        source, category, kind.label(category), potential, n_conformers, n_components, mean(2, n_components), root(3, n_components),
        n_energies, mean(5, n_energies), root(6, n_energies),
    )  # fmt: skip


def count_training_sizes(datasets: Mapping[str, ConformerDataset], splits: Splits) -> dict[int, int]:
    """Count the training conformers of molecules with each number of atoms.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    counts: dict[int, int] = {}
    for name, dataset in datasets.items():
        sizes = pyarrow.compute.list_value_length(dataset.table.column("atomic_numbers")).to_pylist()
        for record, n_atoms in zip(dataset.table.column("id").to_pylist(), sizes, strict=True):
            n_training = len(splits.conformers(name, record, "train"))
            if n_training:
                counts[n_atoms] = counts.get(n_atoms, 0) + n_training
    return dict(sorted(counts.items()))


def count_training(counts: Mapping[int, int], width: int) -> dict[int, int]:
    """Gather numbers of training conformers by number of atoms into the ranges of `by_size`."""
    gathered: dict[int, int] = {}
    for n_atoms, n_conformers in sorted(counts.items()):
        gathered[(n_atoms - 1) // width] = gathered.get((n_atoms - 1) // width, 0) + n_conformers
    return gathered


@dataclass(frozen=True, eq=False)
class MoleculeForceErrors:
    """Force errors of every potential on one molecule of the test set.

    Attributes:
        id: of its first row.
        source: data set and part of it.
        smiles: mapped; None where bonds are not known.
        atomic_numbers: shape (n_atoms,).
        n_conformers: test conformers with force labels.
        force_rmse: by potential, [kcal/mol/Å]; potentials without predictions are not in it.
        of_atoms: by potential, root mean square of the force error's components on each atom [kcal/mol/Å], shape (n_atoms,).
    """

    id: str
    source: str
    smiles: str | None
    atomic_numbers: IntArray
    n_conformers: int
    force_rmse: dict[str, float]
    of_atoms: dict[str, FloatArray]


def molecule_errors(predictions: Predictions) -> list[MoleculeForceErrors]:
    """Gather force errors by molecule, in the order of the data; rows of one molecule with other atom orders count by themselves."""
    gathered: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(predictions.rows):
        if row.forces is not None:
            gathered.setdefault((*row.molecule, row.smiles, row.atomic_numbers.tobytes()), []).append(i)
    found = []
    for indices in gathered.values():
        first = predictions.rows[indices[0]]
        n_conformers = sum(predictions.rows[i].n_conformers for i in indices)
        of_atoms: dict[str, FloatArray] = {}
        for potential, of_rows in predictions.predicted.items():
            squares = np.zeros(first.n_atoms)
            for i in indices:
                predicted, forces = of_rows[i], predictions.rows[i].forces
                if predicted is None or forces is None:
                    break
                squares += ((predicted.forces - forces) ** 2).sum(axis=(0, 2))
            else:
                of_atoms[potential] = np.sqrt(squares / (3 * n_conformers))
        rmse = {name: float(np.sqrt((errors**2).mean())) for name, errors in of_atoms.items()}
        found.append(
            MoleculeForceErrors(first.id, first.source, first.smiles, first.atomic_numbers, n_conformers, rmse, of_atoms)
        )
    return found


def worst(errors: Sequence[MoleculeForceErrors], potential: str, n_molecules: int) -> list[MoleculeForceErrors]:
    """Return the molecules with the largest force errors of a potential, worst first."""
    known = [error for error in errors if potential in error.force_rmse]
    return sorted(known, key=lambda error: (-error.force_rmse[potential], error.source, error.id))[:n_molecules]
