"""Replicas of molecules as one batch, with random numbers of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.potentials.integrators import remove_rigid_motion, thermal_speed
from pesfit.potentials.interface import Batch, collate
from pesfit.potentials.model import PreparedMolecule
from pesfit.potentials.terms import Terms


@dataclass(frozen=True, eq=False)
class Replicas:
    """A molecule in as many replicas as it has starting conformers.

    Attributes:
        name: unique in the simulation; with the seed and the number of the replica it determines all random numbers.
        atomic_numbers: shape (n_atoms,).
        masses: [g/mol], shape (n_atoms,).
        coords: [Å], initial positions, shape (n_replicas, n_atoms, 3).
        terms: None for potentials that need none.
        total_charge: [e].
        bonds: pairs of bonded atoms, whose lengths are checked, shape (n_bonds, 2); None where bonds are not known.
        bond_lengths: [Å], their means in the reference data, shape (n_bonds,); None where `bonds` is None.
    """

    name: str
    atomic_numbers: IntArray
    masses: FloatArray
    coords: FloatArray
    terms: Terms | None = None
    total_charge: int = 0
    bonds: IntArray | None = None
    bond_lengths: FloatArray | None = None

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len(self.coords)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of one replica."""
        return len(self.atomic_numbers)


def as_batch(molecules: Sequence[Replicas]) -> Batch:
    """Join all replicas of all molecules into one graph."""
    prepared = (PreparedMolecule(each.atomic_numbers, None, each.total_charge, each.terms) for each in molecules)
    return collate([one.conformers(each.coords) for one, each in zip(prepared, molecules, strict=True)])


class RandomNumbers:
    """Random numbers of every replica, which depend on the seed, the name of its molecule and its number there alone.

    Args:
        molecules: in the order of the batch.
        seed: of all.
    """

    def __init__(self, molecules: Sequence[Replicas], seed: int) -> None:
        self._molecules = molecules
        self._generators = []
        for molecule in molecules:
            key = int.from_bytes(hashlib.sha256(molecule.name.encode()).digest()[:8], "little")
            seeds = (np.random.SeedSequence(seed, spawn_key=(key, replica)) for replica in range(molecule.n_replicas))
            self._generators.append([np.random.Generator(np.random.PCG64(each)) for each in seeds])

    def normal(self, n_steps: int) -> torch.Tensor:
        """Draw normal numbers of mean 0 and variance 1 for each coordinate, shape (n_steps, n_atoms, 3)."""
        blocks = [
            generator.standard_normal((n_steps, molecule.n_atoms, 3))
            for molecule, generators in zip(self._molecules, self._generators, strict=True)
            for generator in generators
        ]
        return torch.from_numpy(np.concatenate(blocks, axis=1))

    def velocities(self, temperature_kelvin: float, *, rigid_motion: bool) -> torch.Tensor:
        """Draw velocities [Å/fs] from the Maxwell-Boltzmann distribution, shape (n_atoms, 3).

        Args:
            temperature_kelvin: of the distribution.
            rigid_motion: whether translation and rotation of the whole are in it (`integrators.remove_rigid_motion`).
        """
        blocks = []
        for molecule, generators in zip(self._molecules, self._generators, strict=True):
            speed = thermal_speed(molecule.masses, temperature_kelvin)
            for coords, generator in zip(molecule.coords, generators, strict=True):
                drawn = speed * generator.standard_normal(coords.shape)
                blocks.append(drawn if rigid_motion else remove_rigid_motion(coords, drawn, molecule.masses))
        return torch.from_numpy(np.concatenate(blocks))
