"""Potentials with known dynamics, and molecules to simulate."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from pesfit.chemistry.smiles import standard_masses
from pesfit.core.arrays import FloatArray
from pesfit.data.topology import ForceField, Topology
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.terms import Terms
from pesfit.simulate.replicas import Replicas
from pesfit.smirnoff.potential import SmirnoffPotential
from tests import openff_oracle
from tests.openff_oracle import OracleMolecule


class Springs(Potential):
    """Each atom on a spring of its own to the origin: E = ½ k r²."""

    def __init__(self, force_constant: float) -> None:
        super().__init__()
        self.force_constant = force_constant

    def forward(self, batch: Batch) -> Prediction:
        of_atoms = 0.5 * self.force_constant * (batch.coords**2).sum(1)
        energy = of_atoms.new_zeros(batch.n_conformers).index_add_(0, batch.conformer, of_atoms)
        return Prediction(energy, -self.force_constant * batch.coords)


class Bomb(Springs):
    """Springs that make conformers NaN when their first atom passes x = 1 Å, or throw them out where `push` is given."""

    def __init__(self, push: float | None = None) -> None:
        super().__init__(100.0)
        self.push = push

    def forward(self, batch: Batch) -> Prediction:
        calm = super().forward(batch)
        _, first = np.unique(batch.conformer.numpy(), return_index=True)
        lit = batch.coords[torch.from_numpy(first), 0] > 1.0
        forces = calm.forces.clone()
        forces[lit[batch.conformer]] = torch.nan if self.push is None else self.push
        return Prediction(calm.energy, forces)


def free_atoms(
    n_replicas: int = 4, masses: tuple[float, ...] = (1.008, 12.011, 35.45), scale: float = 0.3, name: str = "atoms"
) -> Replicas:
    """Atoms that are scattered about the origin."""
    coords = np.random.default_rng(11).normal(scale=scale, size=(n_replicas, len(masses), 3))
    return Replicas(name, np.full(len(masses), 6, dtype=np.int32), np.array(masses), coords)


@cache
def _parameterized(smiles: tuple[str, ...]) -> tuple[ForceField, list[Topology], list[OracleMolecule]]:
    molecules = [openff_oracle.molecule(one, n_conformers=1, jitter=0.0) for one in smiles]
    force_field, topologies = openff_oracle.tables_and_topologies(molecules)
    return force_field, topologies, molecules


def smirnoff(*smiles: str) -> Potential:
    """The SMIRNOFF potential of some molecules."""
    return SmirnoffPotential(_parameterized(smiles)[0])


def molecules(*smiles: str, n_replicas: int = 4, jitter: float = 0.03, seed: int = 5) -> list[Replicas]:
    """Replicas of molecules near a minimum, with terms for `smirnoff` of the same SMILES."""
    _, topologies, found = _parameterized(smiles)
    random = np.random.default_rng(seed)
    made = []
    for molecule, topology in zip(found, topologies, strict=True):
        coords: FloatArray = molecule.coords + random.normal(scale=jitter, size=(n_replicas, *molecule.coords.shape[1:]))
        numbers = molecule.atomic_numbers.astype(np.int32)
        bonds = topology.connectivity
        lengths = np.linalg.norm(molecule.coords[0, bonds[:, 1]] - molecule.coords[0, bonds[:, 0]], axis=1)
        made.append(
            Replicas(
                topology.smiles, numbers, standard_masses(numbers), coords, Terms.from_topology(topology), 0, bonds, lengths
            )
        )
    return made


def topologies(*smiles: str) -> list[Topology]:
    """The topologies of `molecules`."""
    return _parameterized(smiles)[1]


def oracle(*smiles: str) -> list[OracleMolecule]:
    """The same molecules as Interchange parameterized them."""
    return _parameterized(smiles)[2]
