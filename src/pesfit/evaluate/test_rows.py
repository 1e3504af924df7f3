"""The conformers of the test set, row by row, with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet


@dataclass(frozen=True, eq=False)
class TestRow:
    """The test conformers of a row of a data set, with their labels.

    Attributes:
        dataset: its name.
        id: of the record.
        source: data set and part of it.
        group: identity of the molecule; rows of one molecule share it.
        smiles: mapped; None where bonds are not known.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_conformers, n_atoms, 3).
        energy: [kcal/mol], labels, shape (n_conformers,).
        forces: [kcal/mol/Å], labels, shape (n_conformers, n_atoms, 3); None where there are none.
        lowest_energy: [kcal/mol], lowest label that the molecule has in this source, whatever the split.
        charges: [e], of the stored topology, shape (n_atoms,); None where stage 03 has none, or was not asked.
        is_parameterized: whether stage 03 has a topology of it; None where it was not asked.
    """

    __test__ = False  # it is no test of pytest's

    dataset: str
    id: str
    source: str
    group: str
    smiles: str | None
    atomic_numbers: IntArray
    coords: FloatArray
    energy: FloatArray
    forces: FloatArray | None
    lowest_energy: float
    charges: FloatArray | None = None
    is_parameterized: bool | None = None

    @property
    def name(self) -> str:
        """What failures and captions call it."""
        return f"{self.dataset}/{self.id}"

    @property
    def molecule(self) -> tuple[str, str, str]:
        """What rows with one energy zero have in common: data set, source and group."""
        return self.dataset, self.source, self.group

    @property
    def n_conformers(self) -> int:
        """Number of test conformers."""
        return len(self.energy)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)


def find_test_rows(
    datasets: Mapping[str, ConformerDataset], splits: Splits, parameterized: ParameterizedSet | None = None
) -> list[TestRow]:
    """List the rows with test conformers.

    Args:
        datasets: by name.
        splits: of these data sets.
        parameterized: where topologies are, whose charges potentials are to use; None where no potential needs any.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    rows: list[TestRow] = []
    lowest: dict[tuple[str, str, str], float] = {}
    for name, dataset in datasets.items():
        for record in dataset:
            molecule = (name, record.source, record.group)
            lowest[molecule] = min(float(record.energy.min()), lowest.get(molecule, np.inf))
            chosen = splits.conformers(name, record.id, "test")
            if not len(chosen):
                continue
            if chosen[-1] >= record.n_conformers:
                raise DataError(
                    f"{name}: {record.id} has {record.n_conformers} conformers, but the splits know more; split again"
                )
            test = record.select(chosen)
            topology = None if parameterized is None else parameterized.topology(name, record.id)
            rows.append(
                TestRow(
                    name, record.id, record.source, record.group, record.smiles, record.atomic_numbers, test.coords, test.energy,
                    test.forces, 0.0, None if topology is None else topology.charges,
                    None if parameterized is None else topology is not None,
                )
            )  # fmt: skip
    return [replace(row, lowest_energy=lowest[row.molecule]) for row in rows]


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
