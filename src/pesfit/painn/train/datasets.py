"""Training, validation and test sets as flat tensors: conformers of any sizes, one after another, with the pairs within the cutoff.

Rows are views of the memory-mapped Arrow tables and are copied once into their place. A batch is then a few gathers over index
ranges, whatever the molecules: nothing is padded, and no Python object stands for a sample.

Memory a conformer: 48 bytes an atom for coordinates and forces, 4 bytes a pair (8 where a molecule has more than 32,767 atoms). Ethanol:
0.6 kB, aspirin: 1.8 kB; the 900,000 conformers of the published Espaloma sets (22 atoms and 150 pairs on average): 1.6 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, Failure, UnknownElementError
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import covers
from pesfit.data.splits import Splits
from pesfit.params.train_learned import TrainLearned
from pesfit.potentials.neighbors import find_edges


@dataclass(frozen=True)
class RowIdentity:
    """Identity of a row of a data set, for messages and metrics.

    Attributes:
        dataset: its name.
        id: of the record.
        group: identity of the molecule.
        source: data set and part of it.
    """

    dataset: str
    id: str
    group: str
    source: str


@dataclass(frozen=True, eq=False)
class LabeledGraph:
    """Conformers with labels as one graph, in the order that was asked for, and an empty conformer at the end.

    The empty one has no atoms and no weight. Compiled code treats a length of 1 as a case of its own; with it there is none.

    Attributes:
        element: index among the potential's elements, int64, shape (n_atoms,).
        r: [Å], x[second] - x[first] of each pair, float64, shape (n_pairs, 3).
        first: of each pair, once, int64, shape (n_pairs,).
        second: of each pair, same shape.
        conformer: that each atom belongs to, int64, shape (n_atoms,).
        n_atoms_of: number of atoms of each conformer, float64, shape (n_conformers + 1,); 1 for the empty one.
        energy: [kcal/mol], label minus atomrefs, float64, shape (n_conformers + 1,); 0 for the empty one.
        weight: 1 for each conformer, 0 for the empty one; float64, shape (n_conformers + 1,).
        forces: [kcal/mol/Å], float64, shape (n_atoms, 3); 0 where there are none.
        force_weight: 1 for atoms with forces, 0 for others; float64, shape (n_atoms, 1).
    """

    element: Tensor
    r: Tensor
    first: Tensor
    second: Tensor
    conformer: Tensor
    n_atoms_of: Tensor
    energy: Tensor
    weight: Tensor
    forces: Tensor
    force_weight: Tensor


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Conformers of a split. Numpy arrays, which decide on batches and shards, are on the CPU; tensors are on `device`.

    Attributes:
        rows: that have conformers here.
        row: index in `rows` of each conformer, int64, shape (n_conformers,).
        position: of each conformer in its row.
        n_atoms: of each conformer.
        n_pairs: of each conformer.
        has_forces: of each conformer, shape (n_conformers,).
        energy: [kcal/mol], label, float64, shape (n_conformers,).
        atomref_energy: [kcal/mol], sum of the atoms' atomrefs, float64, shape (n_conformers,); zeros before `relative_to`.
        atomic_numbers: of all atoms of all rows, int64; conformers of a row share them.
        forces: [kcal/mol/Å], of all atoms of all conformers, 0 where there are none; float64, shape (n_atoms, 3).
    """

    rows: tuple[RowIdentity, ...]
    row: LongArray
    position: LongArray
    n_atoms: LongArray
    n_pairs: LongArray
    has_forces: LongArray
    energy: Tensor
    atomref_energy: Tensor
    atomic_numbers: Tensor
    forces: Tensor
    _element: Tensor
    _element_start: Tensor
    _atom_start: Tensor
    _pair_start: Tensor
    _coords: Tensor
    _first: Tensor
    _second: Tensor

    def __len__(self) -> int:
        return len(self.row)

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._coords.device

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(torch.unique(self.atomic_numbers).tolist())

    @property
    def row_of_atom(self) -> LongArray:
        """Index in `rows` of each of `atomic_numbers`."""
        _, a_conformer = np.unique(self.row, return_index=True)
        return np.repeat(np.arange(len(self.rows)), self.n_atoms[a_conformer])

    def name_of(self, conformer: int) -> str:
        """Name a conformer in a message: data set, id, and position in the row."""
        row = self.rows[self.row[conformer]]
        return f"{row.dataset}: {row.id}, conformer {self.position[conformer]}"

    def to(self, device: torch.device | str) -> TrainingData:
        """Move the tensors to a device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def relative_to(self, element_index: Callable[[Tensor], Tensor], atomrefs: Tensor) -> TrainingData:
        """Return the same data relative to the atomrefs of a potential.

        Args:
            element_index: from atomic numbers, shape (n,), to indices of `atomrefs`, such as `PaiNNPotential.element_index`.
            atomrefs: [kcal/mol], float64, shape (n_elements,).

        Raises:
            DataError: from `element_index`, where the potential does not know an element.
        """
        element = element_index(self.atomic_numbers)
        row_of_atom = torch.from_numpy(self.row_of_atom).to(self.device)
        of_row = atomrefs.new_zeros(len(self.rows)).index_add(0, row_of_atom, atomrefs[element])
        return replace(self, _element=element, atomref_energy=of_row[torch.from_numpy(self.row).to(self.device)])

    def gather(self, conformers: LongArray) -> LabeledGraph:
        """Join conformers into one graph.

        Args:
            conformers: indices, at least one.
        """
        n_atoms, n_pairs = self.n_atoms[conformers], self.n_pairs[conformers]
        index = torch.from_numpy(conformers).to(self.device)
        atoms, conformer, start = _ranges(self._atom_start[index], n_atoms)
        pairs, pair_conformer, _ = _ranges(self._pair_start[index], n_pairs)
        in_row, _, _ = _ranges(self._element_start[index], n_atoms)
        first = self._first[pairs].long() + start[pair_conformer]
        second = self._second[pairs].long() + start[pair_conformer]
        coords = self._coords[atoms]
        empty = coords.new_zeros(1)
        has_forces = torch.from_numpy(self.has_forces[conformers].astype(np.float64)).to(self.device)
        return LabeledGraph(
            element=self._element[in_row],
            r=coords[second] - coords[first],
            first=first,
            second=second,
            conformer=conformer,
            n_atoms_of=torch.cat([torch.from_numpy(n_atoms).to(coords), empty + 1.0]),
            energy=torch.cat([self.energy[index] - self.atomref_energy[index], empty]),
            weight=torch.cat([torch.ones_like(has_forces), empty]),
            forces=self.forces[atoms],
            force_weight=has_forces.unsqueeze(1)[conformer],
        )


def load_training_data(  # noqa: PLR0913 - the last three are named
    datasets: Mapping[str, ConformerDataset],
    splits: Splits,
    split: str,
    cutoff: float,
    *,
    uses: Callable[[Record], bool] = lambda _: True,
    subset_size: int | None = None,
    seed: int = 0,
) -> TrainingData:
    """Gather the conformers of a split, with the pairs within the cutoff.

    Args:
        datasets: by name, as `open_datasets` gives them.
        splits: of those data sets.
        split: `train`, `validation` or `test`.
        cutoff: [Å].
        uses: whether a row takes part.
        subset_size: how many conformers to take, drawn without replacement; None for all.
        seed: of the draw, which depends on nothing else.

    Raises:
        DataError: where the split holds no conformer, or fewer than `subset_size`.
    """
    chosen = _select(datasets, splits, split, uses)
    n_found = sum(len(conformers) for _, _, conformers in chosen)
    if n_found == 0 or n_found < (subset_size or 0):
        wanted = "at least 1" if subset_size is None else f"subset_size = {subset_size}"
        raise DataError(f"the {split} split holds {n_found} conformers of the chosen sources; {wanted} needed")
    if subset_size is not None:
        chosen = _draw(chosen, n_found, subset_size, seed)
    return _join([(name, record.select(conformers), conformers) for name, record, conformers in chosen], cutoff)


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """The data of a run.

    Attributes:
        data: by split; `test` where it has conformers.
        failures: records with elements that the training set lacks.
    """

    data: dict[str, TrainingData]
    failures: list[Failure]


def load_sets(
    datasets: Mapping[str, ConformerDataset], splits: Splits, params: TrainLearned, stage: str, device: torch.device | str
) -> TrainingSets:
    """Load all splits that have conformers; training and validation set must.

    Args:
        datasets: by name.
        splits: of all conformers.
        params: for sources, cutoff, `subset_size` and seed.
        stage: of the failures.
        device: to compute on.

    Raises:
        DataError: where the training or the validation set is empty.
    """
    cutoff = params.network.cutoff_angstrom

    def is_chosen(record: Record) -> bool:
        return not params.sources or any(covers(name, record.source) for name in params.sources)

    data = {
        "train": load_training_data(
            datasets, splits, "train", cutoff, uses=is_chosen, subset_size=params.subset_size, seed=params.seed
        )
    }
    known = set(data["train"].elements)
    failures: dict[str, Failure] = {}

    def can_be_evaluated(record: Record) -> bool:
        unknown = sorted(set(record.atomic_numbers.tolist()) - known)
        if unknown and is_chosen(record):
            message = f"atomic numbers {', '.join(str(number) for number in unknown)} are not in the training set"
            failures[record.id] = Failure(record.id, stage, UnknownElementError.__name__, message)
        return is_chosen(record) and not unknown

    data["validation"] = load_training_data(datasets, splits, "validation", cutoff, uses=can_be_evaluated)
    if _select(datasets, splits, "test", can_be_evaluated):
        data["test"] = load_training_data(datasets, splits, "test", cutoff, uses=can_be_evaluated)
    return TrainingSets({split: part.to(device) for split, part in data.items()}, list(failures.values()))


def _select(
    datasets: Mapping[str, ConformerDataset], splits: Splits, split: str, uses: Callable[[Record], bool]
) -> list[tuple[str, Record, LongArray]]:
    """Return the rows that have conformers in the split, with the name of their data set and these conformers."""
    rows = (
        (name, record, splits.conformers(name, record.id, split))
        for name, dataset in datasets.items()
        for record in dataset
        if uses(record)
    )
    return [row for row in rows if len(row[2])]


def _draw(
    chosen: Sequence[tuple[str, Record, LongArray]], n_found: int, subset_size: int, seed: int
) -> list[tuple[str, Record, LongArray]]:
    kept = np.zeros(n_found, dtype=np.bool_)
    kept[np.random.default_rng(seed).choice(n_found, subset_size, replace=False)] = True
    ends = np.cumsum([len(conformers) for _, _, conformers in chosen])
    drawn = [
        (name, record, conformers[keep])
        for (name, record, conformers), keep in zip(chosen, np.split(kept, ends[:-1]), strict=True)
    ]
    return [entry for entry in drawn if len(entry[2])]


def _join(rows: Sequence[tuple[str, Record, LongArray]], cutoff: float) -> TrainingData:
    records = [record for _, record, _ in rows]
    n_conformers = np.array([record.n_conformers for record in records])
    n_atoms = np.repeat([record.n_atoms for record in records], n_conformers)
    index_type = np.int16 if n_atoms.max() <= np.iinfo(np.int16).max else np.int32
    pairs = [_find_pairs(record, cutoff, index_type) for record in records]
    n_pairs = np.concatenate([counts for _, _, counts in pairs])
    coords = np.concatenate([record.coords.reshape(-1, 3) for record in records])
    forces = np.zeros_like(coords)
    end = 0
    for record in records:
        start, end = end, end + record.n_conformers * record.n_atoms
        if record.forces is not None:
            forces[start:end] = record.forces.reshape(-1, 3)
    row_start = _starts(np.array([record.n_atoms for record in records]))
    atomic_numbers = torch.from_numpy(np.concatenate([record.atomic_numbers for record in records]).astype(np.int64))
    energy = torch.from_numpy(np.concatenate([record.energy for record in records]))
    return TrainingData(
        rows=tuple(RowIdentity(name, record.id, record.group, record.source) for name, record, _ in rows),
        row=np.repeat(np.arange(len(records)), n_conformers),
        position=np.concatenate([conformers for _, _, conformers in rows]),
        n_atoms=n_atoms,
        n_pairs=n_pairs,
        has_forces=np.repeat([record.forces is not None for record in records], n_conformers).astype(np.int64),
        energy=energy,
        atomref_energy=torch.zeros_like(energy),
        atomic_numbers=atomic_numbers,
        forces=torch.from_numpy(forces),
        _element=atomic_numbers,
        _element_start=torch.from_numpy(np.repeat(row_start, n_conformers)),
        _atom_start=torch.from_numpy(_starts(n_atoms)),
        _pair_start=torch.from_numpy(_starts(n_pairs)),
        _coords=torch.from_numpy(coords),
        _first=torch.from_numpy(np.concatenate([first for first, _, _ in pairs])),
        _second=torch.from_numpy(np.concatenate([second for _, second, _ in pairs])),
    )


def _find_pairs(record: Record, cutoff: float, index_type: type[np.signedinteger]) -> tuple[np.ndarray, np.ndarray, LongArray]:
    """Find each pair of each conformer once, as positions in the molecule, and how many each conformer has."""
    n_conformers, n_atoms = record.n_conformers, record.n_atoms
    coords = torch.from_numpy(np.array(record.coords).reshape(-1, 3))
    first, second = (index.numpy() for index in find_edges(coords, ((n_conformers, n_atoms),), cutoff).pairs())
    counts = np.bincount(first // n_atoms, minlength=n_conformers)
    return (first % n_atoms).astype(index_type), (second % n_atoms).astype(index_type), counts


def _starts(lengths: LongArray) -> LongArray:
    return np.cumsum(lengths) - lengths


def _ranges(starts: Tensor, lengths: LongArray) -> tuple[Tensor, Tensor, Tensor]:
    """List ranges of indices one after another.

    Returns:
        All indices of all ranges, shape (n,); the range each is of, shape (n,); and where each range begins in the list.
    """
    n = torch.from_numpy(lengths).to(starts.device)
    begins = torch.cumsum(n, 0) - n
    of = torch.repeat_interleave(torch.arange(len(n), device=starts.device), n, output_size=int(lengths.sum()))
    return torch.arange(len(of), device=starts.device) + (starts - begins)[of], of, begins
