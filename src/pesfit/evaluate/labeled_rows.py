"""Conformers of a row of a data set with their labels: what models are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pesfit.core.arrays import FloatArray, IntArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet


@dataclass(frozen=True, eq=False)
class LabeledRow:
    """Some conformers of a row of a data set, with their labels.

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
        lowest_energy: [kcal/mol], lowest label of the row, or of the molecule in this source, whatever the split.
        charges: [e], partial charges to use, shape (n_atoms,); None where there are none.
        is_parameterized: whether stage 03 has a topology of it; None where that is not known.
    """

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

    @classmethod
    def of(
        cls, dataset: str, record: Record, charges: FloatArray | None, *, is_parameterized: bool | None = None
    ) -> LabeledRow:
        """Return all conformers of a record."""
        return cls(
            dataset, record.id, record.source, record.group, record.smiles, record.atomic_numbers, record.coords, record.energy,
            record.forces, float(record.energy.min()), charges, is_parameterized,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Name in failures and captions."""
        return f"{self.dataset}/{self.id}"

    @property
    def molecule(self) -> tuple[str, str, str]:
        """Data set, source and group, which rows with one energy zero have in common."""
        return self.dataset, self.source, self.group

    @property
    def n_conformers(self) -> int:
        """Number of conformers."""
        return len(self.energy)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    def select(self, which: slice | LongArray) -> LabeledRow:
        """Return some of the conformers."""
        forces = None if self.forces is None else self.forces[which]
        return replace(self, coords=self.coords[which], energy=self.energy[which], forces=forces)


def find_test_rows(
    datasets: Mapping[str, ConformerDataset], splits: Splits, parameterized: ParameterizedSet | None = None
) -> list[LabeledRow]:
    """List the rows with test conformers.

    Args:
        datasets: by name.
        splits: of these data sets.
        parameterized: where topologies are, whose charges models are to use; None where no model needs any.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    rows: list[LabeledRow] = []
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
                    f"{name}: {record.id} has {record.n_conformers} conformers, but the splits have more; split again"
                )
            topology = None if parameterized is None else parameterized.topology(name, record.id)
            charges = None if topology is None else topology.charges
            is_parameterized = None if parameterized is None else topology is not None
            rows.append(LabeledRow.of(name, record, charges, is_parameterized=is_parameterized).select(chosen))
    return [replace(row, lowest_energy=lowest[row.molecule]) for row in rows]
