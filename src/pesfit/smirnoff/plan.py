"""Which rows make up a molecule, and which molecules make up a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute

from pesfit.data.dataset import ConformerDataset
from pesfit.data.topology import ParameterizedSet


@dataclass(frozen=True)
class MoleculeRows:
    """Consecutive rows of a data set that are one molecule, and share one energy zero: a long trajectory is cut into many rows.

    Attributes:
        dataset: name of the data set.
        rows: positions in it.
        ids: of the rows.
        source: their `source`.
        topology: index in the parameterized set.
        cost: conformers times atoms.
    """

    dataset: str
    rows: tuple[int, ...]
    ids: tuple[str, ...]
    source: str
    topology: int
    cost: int

    @property
    def id(self) -> str:
        """Name of the molecule in results."""
        return f"{self.dataset}/{self.ids[0]}"


def list_molecules(datasets: Mapping[str, ConformerDataset], parameterized: ParameterizedSet) -> tuple[list[MoleculeRows], int]:
    """List the molecules of data sets in their order.

    Returns:
        The molecules, and how many rows were left out because they could not be parameterized.
    """
    molecules: list[MoleculeRows] = []
    n_left_out = 0
    for name, dataset in datasets.items():
        ids, sources = (dataset.table.column(column).to_pylist() for column in ("id", "source"))
        sizes = [
            pyarrow.compute.list_value_length(dataset.table.column(column)).to_pylist()
            for column in ("energy", "atomic_numbers")
        ]
        for row, (id, source, n_conformers, n_atoms) in enumerate(zip(ids, sources, *sizes, strict=True)):  # noqa: A001
            topology = parameterized.index(name, id)
            if topology is None:
                n_left_out += 1
                continue
            cost = n_conformers * n_atoms
            last = molecules[-1] if molecules else None
            if last and (last.dataset, last.source, last.topology, last.rows[-1]) == (name, source, topology, row - 1):
                molecules[-1] = MoleculeRows(name, (*last.rows, row), (*last.ids, id), source, topology, last.cost + cost)
            else:
                molecules.append(MoleculeRows(name, (row,), (id,), source, topology, cost))
    return molecules, n_left_out


def cut(molecules: Sequence[MoleculeRows], n_shards: int) -> list[list[MoleculeRows]]:
    """Cut a list of molecules into consecutive pieces of about the same cost; no piece is empty."""
    ends = np.cumsum([molecule.cost for molecule in molecules])
    piece = np.minimum((ends - 1) * n_shards // max(int(ends[-1]), 1), n_shards - 1) if len(ends) else []
    shards: dict[int, list[MoleculeRows]] = {}
    for molecule, number in zip(molecules, piece, strict=True):
        shards.setdefault(int(number), []).append(molecule)
    return list(shards.values())
