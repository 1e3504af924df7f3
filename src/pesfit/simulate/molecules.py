"""Molecules of the data that are simulated: conformers to start from, bonds and reference conformers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pesfit.chemistry.smiles import mapped_molecule, standard_masses
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import check_source_names, covers
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet, Topology
from pesfit.params.evaluation import Rollout
from pesfit.simulate.replicas import Replicas


@dataclass(frozen=True, eq=False)
class SimulatedMolecule:
    """A molecule of the data, with all its rows from one source.

    Attributes:
        name: `<data set>/<id>`, without the number of the row where it has several.
        rows: as they are in the data set; they share all but conformers.
        starts: [Å], conformers of the test set, shape (n_starts, n_atoms, 3).
        topology: None where it could not be parameterized.
        level_of_theory: of its labels.
    """

    name: str
    rows: tuple[Record, ...]
    starts: FloatArray
    topology: Topology | None
    level_of_theory: str

    @property
    def first(self) -> Record:
        """The first row, for what all of them share."""
        return self.rows[0]

    @property
    def n_conformers(self) -> int:
        """Number of reference conformers."""
        return sum(row.n_conformers for row in self.rows)

    def bonds(self) -> IntArray:
        """Return the pairs of bonded atoms, of the topology or of the mapped SMILES, shape (n_bonds, 2).

        Raises:
            MoleculeError: where there is neither, or the SMILES cannot be read or has other atoms.
        """
        if self.topology is not None:
            return self.topology.connectivity
        if self.first.smiles is None:
            raise MoleculeError("neither a SMILES nor a topology names the bonds; stability cannot be judged")
        molecule = mapped_molecule(self.first.smiles, sanitize=False)
        if molecule.GetNumAtoms() != self.first.n_atoms:
            raise MoleculeError(
                f"SMILES {self.first.smiles!r} has {molecule.GetNumAtoms()} atoms; expected {self.first.n_atoms}"
            )
        bonds = [sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in molecule.GetBonds()]
        return np.array(sorted(bonds), dtype=np.int32).reshape(-1, 2)

    def bond_lengths(self, bonds: IntArray) -> FloatArray:
        """Return the mean length of each bond over the reference conformers [Å], shape (n_bonds,)."""
        total = np.zeros(len(bonds))
        for row in self.rows:
            total += np.linalg.norm(row.coords[:, bonds[:, 1]] - row.coords[:, bonds[:, 0]], axis=-1).sum(axis=0)
        return np.asarray(total / self.n_conformers)

    def replicas(self, n_replicas: int) -> Replicas:
        """Return replicas that start from test conformers spread evenly over all, or from each in turn where there are fewer.

        Raises:
            MoleculeError: where bonds are not known.
        """
        n_starts = len(self.starts)
        index = np.arange(n_replicas)
        chosen = index * n_starts // n_replicas if n_starts >= n_replicas else index % n_starts
        bonds = self.bonds()
        return Replicas(
            name=self.name,
            atomic_numbers=self.first.atomic_numbers,
            masses=standard_masses(self.first.atomic_numbers),
            coords=self.starts[chosen],
            total_charge=self.first.total_charge,
            bonds=bonds,
            bond_lengths=self.bond_lengths(bonds),
        )


def find_molecules(
    datasets: Mapping[str, ConformerDataset], splits: Splits, parameterized: ParameterizedSet | None, params: Rollout
) -> list[SimulatedMolecule]:
    """Find the first molecules of each source that have conformers in the test set.

    Args:
        datasets: by name.
        splits: of these data sets.
        parameterized: where topologies are; None where no potential needs them.
        params: section `rollout`.

    Raises:
        ParamsError: where `sources` names one that does not exist.
        DataError: where the splits do not fit the data sets.
    """
    present = {source for dataset in datasets.values() for source in dataset.level_of_theory}
    check_source_names("rollout.sources", params.sources, present)
    molecules = []
    for name, dataset in datasets.items():
        n_found: dict[str, int] = {}
        for (source, *_), molecule in itertools.groupby(dataset, _molecule):
            rows = tuple(molecule)
            if not any(covers(wanted, source) for wanted in params.sources):
                continue
            if n_found.get(source, 0) == params.molecules_per_source:
                continue
            test = [row.coords[splits.conformers(name, row.id, "test")] for row in rows]
            if not any(len(coords) for coords in test):
                continue
            n_found[source] = n_found.get(source, 0) + 1
            topology = None if parameterized is None else parameterized.topology(name, rows[0].id)
            level = dataset.level_of_theory[source]
            name_of = f"{name}/{re.sub(r'/[0-9]{5}$', '', rows[0].id)}"
            molecules.append(SimulatedMolecule(name_of, rows, np.concatenate(test), topology, level))
    return molecules


def _molecule(row: Record) -> tuple[str, str | None, str, bytes]:
    """Return what rows of one molecule share: source, SMILES, group and elements."""
    return row.source, row.smiles, row.group, row.atomic_numbers.tobytes()
