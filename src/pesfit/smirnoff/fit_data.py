"""The data of a fit: which rows make up a molecule, which molecules make up a shard, and how much each label counts.

The objective is a sum over molecules,

    J(x) = Σ_molecules s [ a_E w_E Σ w (ΔE)² + a_F w_F Σ w |ΔF|² ]

| symbol | parameter |
| --- | --- |
| s | `source_weights` |
| w_E, w_F | `energy_weight`, `force_weight` |
| w | `conformer_weight` |
| a_E, a_F | `normalization`: sum 1, 1; component 1, 1/(3 n_atoms); molecule 1/W, 1/(3 n_atoms W), W = Σ w over the molecule in its split |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.core.units import BOLTZMANN
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import most_specific
from pesfit.data.splits import SplitArray, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.params.fit_smirnoff import ConformerWeight, Objective


@dataclass(frozen=True)
class FitInputs:
    """Data sets, topologies and splits.

    Attributes:
        datasets: by name.
        parameterized: holds the topologies of their molecules.
        splits: of their conformers.
    """

    datasets: Mapping[str, ConformerDataset]
    parameterized: ParameterizedSet
    splits: Splits

    def paths(self) -> dict[str, Path]:
        """Return where the data sets are."""
        return {name: dataset.path.resolve() for name, dataset in self.datasets.items()}


@dataclass(frozen=True)
class MoleculeRows:
    """Consecutive rows of a data set that are one molecule, and share one energy zero: a long trajectory is cut into many rows.

    Attributes:
        dataset: name of the data set.
        rows: positions in it.
        ids: of the rows.
        source: their `source`.
        group: names the molecule in all data sets.
        topology: index in the parameterized set.
        cost: conformers times atoms.
    """

    dataset: str
    rows: tuple[int, ...]
    ids: tuple[str, ...]
    source: str
    group: str
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
        ids, sources, groups = (dataset.table.column(column).to_pylist() for column in ("id", "source", "group"))
        sizes = [
            pyarrow.compute.list_value_length(dataset.table.column(column)).to_pylist()
            for column in ("energy", "atomic_numbers")
        ]
        for row, (id, source, group, n_conformers, n_atoms) in enumerate(zip(ids, sources, groups, *sizes, strict=True)):  # noqa: A001
            topology = parameterized.index(name, id)
            if topology is None:
                n_left_out += 1
                continue
            cost = n_conformers * n_atoms
            last = molecules[-1] if molecules else None
            if last and (last.dataset, last.source, last.topology, last.rows[-1]) == (name, source, topology, row - 1):
                molecules[-1] = MoleculeRows(
                    name, (*last.rows, row), (*last.ids, id), source, group, topology, last.cost + cost
                )
            else:
                molecules.append(MoleculeRows(name, (row,), (id,), source, group, topology, cost))
    return molecules, n_left_out


def cut(molecules: Sequence[MoleculeRows], n_shards: int) -> list[list[MoleculeRows]]:
    """Cut a list of molecules into consecutive pieces of about the same cost; no piece is empty."""
    ends = np.cumsum([molecule.cost for molecule in molecules])
    piece = np.minimum((ends - 1) * n_shards // max(int(ends[-1]), 1), n_shards - 1) if len(ends) else []
    shards: dict[int, list[MoleculeRows]] = {}
    for molecule, number in zip(molecules, piece, strict=True):
        shards.setdefault(int(number), []).append(molecule)
    return list(shards.values())


def check_rows(records: Sequence[Record], splits: Sequence[SplitArray]) -> None:
    """Check a molecule's rows before anything is made of them.

    Args:
        records: the rows.
        splits: of each row's conformers.

    Raises:
        DataError: naming the row and the conformer, where a label is not finite or there are more splits than conformers.
    """
    for record, split in zip(records, splits, strict=True):
        record.validate()
        if len(split) != record.n_conformers:
            raise DataError(f"{record.id}: {record.n_conformers} conformers, but the splits have {len(split)}; split again")


def conformer_weights(above_lowest: FloatArray, params: ConformerWeight) -> FloatArray:
    """Weigh conformers by their energy.

    Args:
        above_lowest: label minus the molecule's lowest, [kcal/mol], shape (n_conformers,).
        params: the rule.

    Returns:
        Weights from 0 to 1, shape (n_conformers,); below 1e-6 they are 0.
    """
    if params.kind == "window":
        return np.asarray(above_lowest <= params.window, dtype=np.float64)
    if params.kind == "boltzmann":
        weights = np.exp(-above_lowest / (BOLTZMANN * params.temperature_kelvin))
        return np.where(weights < 1e-6, 0.0, weights)
    return np.ones(len(above_lowest))


def source_weight(source: str, weights: Mapping[str, float]) -> float:
    """Return the weight of a source: that of the longest name that covers it, 1 where there is none."""
    return most_specific(weights, source, 1.0)


def factors(n_atoms: int, weight: float, source: str, objective: Objective) -> tuple[float, float]:
    """Return s a_E and s a_F of a molecule.

    Args:
        n_atoms: of the molecule.
        weight: W, above 0.
        source: of its rows.
        objective: weights and normalization.
    """
    of_source = source_weight(source, objective.source_weights)
    if objective.normalization == "sum":
        return of_source, of_source
    per_component = of_source / (3.0 * n_atoms)
    if objective.normalization == "component":
        return of_source, per_component
    return of_source / weight, per_component / weight
