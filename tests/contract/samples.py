"""Molecules for the contract tests, and what can be done to them: renumber the atoms, put two into one conformer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import Topology
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.terms import Terms

_ATOMS_IN = ("connectivity", "bonds", "angles", "propers", "impropers")


@dataclass(frozen=True)
class Sample:
    """A molecule with conformers.

    Attributes:
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_conformers, n_atoms, 3).
        topology: None for potentials that need none.
    """

    atomic_numbers: LongArray
    coords: FloatArray
    topology: Topology | None = None

    @property
    def conformers(self) -> Conformers:
        """The molecule as `collate` takes it."""
        terms = None if self.topology is None else Terms.from_topology(self.topology)
        return Conformers(torch.tensor(self.atomic_numbers), torch.tensor(self.coords), terms)

    def moved(self, coords: FloatArray) -> Sample:
        """The molecule with other coordinates."""
        return replace(self, coords=coords)

    def renumbered(self, order: LongArray) -> Sample:
        """The molecule with its atoms in another order: new atom i is old atom order[i]."""
        topology = self.topology
        if topology is not None:
            new_index = np.argsort(order)
            atoms = {name: new_index[getattr(topology, name)].astype(np.int32) for name in _ATOMS_IN}
            topology = replace(
                topology, vdw_parameters=topology.vdw_parameters[order], charges=topology.charges[order], **atoms
            )
        return Sample(self.atomic_numbers[order], self.coords[:, order], topology)

    def beside(self, other: Sample, displacement: FloatArray) -> Sample:
        """The molecule and another one, moved by `displacement` [Å], shape (3,), in one conformer."""
        topology = None
        if self.topology is not None and other.topology is not None:
            n_atoms, mine, others = len(self.atomic_numbers), self.topology, other.topology
            joined = {
                name: np.concatenate([getattr(mine, name), getattr(others, name) + (n_atoms if name in _ATOMS_IN else 0)])
                for name in (
                    *_ATOMS_IN,
                    "bond_parameters",
                    "angle_parameters",
                    "proper_parameters",
                    "improper_parameters",
                    "vdw_parameters",
                    "charges",
                )
            }
            topology = Topology(smiles=f"{mine.smiles}.{others.smiles}", charge_method=mine.charge_method, **joined)
        n_conformers = min(len(self.coords), len(other.coords))
        return Sample(
            np.concatenate([self.atomic_numbers, other.atomic_numbers]),
            np.concatenate([self.coords[:n_conformers], other.coords[:n_conformers] + displacement], axis=1),
            topology,
        )


def batch_of(*samples: Sample) -> Batch:
    """Join samples into a batch."""
    return collate([sample.conformers for sample in samples])
