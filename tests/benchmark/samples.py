"""Landscapes of a force field itself, and a potential that takes every conformer to one place."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.dataset import Record
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.potentials.interface import Batch, Conformers, Potential, Prediction
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.terms import Terms
from pesfit.potentials.vibrations import hessians
from pesfit.smirnoff.potential import SmirnoffPotential
from tests import openff_oracle

N_POINTS = 12


class Well(Potential):
    """E = ½ k |x - x₀|² with one x₀ for all conformers of one molecule."""

    def __init__(self, target: FloatArray, force_constant: float = 1600.0) -> None:
        super().__init__()
        self.target, self.force_constant = torch.from_numpy(np.array(target)), force_constant

    def forward(self, batch: Batch) -> Prediction:
        away = batch.coords - self.target.repeat(batch.n_conformers, 1)
        energy = away.new_zeros(batch.n_conformers).index_add_(0, batch.conformer, 0.5 * self.force_constant * (away**2).sum(1))
        return Prediction(energy, -self.force_constant * away)


@cache
def force_field_and_molecule(smiles: str) -> tuple[Potential, Conformers, str]:
    """Return the force field, the molecule near a minimum, and its mapped SMILES."""
    molecule = openff_oracle.molecule(smiles, n_conformers=1, jitter=0.0)
    force_field, (topology,) = openff_oracle.tables_and_topologies([molecule])
    numbers = torch.from_numpy(molecule.atomic_numbers.astype(np.int64))
    conformers = Conformers(numbers, torch.from_numpy(np.array(molecule.coords)), Terms.from_topology(topology), 0)
    return SmirnoffPotential(force_field), conformers, molecule.smiles


def landscape(
    potential: Potential, conformers: Conformers, smiles: str, scanned: LongArray | None = None, name: str = "molecule"
) -> tuple[MoleculeMinima, tuple[TorsionScan, ...]]:
    """Relax a molecule with a potential, find its Hessian, and scan a dihedral."""
    found = minimize(potential, [conformers], max_force=1e-3, max_steps=2000)[0]
    assert found.converged.all()
    curvatures = np.stack(list(hessians(potential, conformers.at(found.coords))))
    minima = MoleculeMinima(record(conformers, smiles, name, found.coords, found.energy), "made", curvatures)
    if scanned is None:
        return minima, ()
    angles = (-np.pi + 2.0 * np.pi * np.arange(N_POINTS) / N_POINTS)[:, None]
    scanned = scanned[None]
    starts = conformers.at(np.repeat(found.coords[:1], N_POINTS, axis=0))
    points = minimize(potential, [starts], max_force=1e-2, max_steps=3000, restraints=[Restraint(scanned, angles)])[0]
    assert points.converged.all()
    scan = TorsionScan(record(conformers, smiles, f"{name}/scan", points.coords, points.energy), "made", name, scanned, angles)
    return minima, (scan,)


def record(conformers: Conformers, smiles: str, name: str, coords: FloatArray, energy: FloatArray) -> Record:
    return Record(
        id=name,
        smiles=smiles,
        atomic_numbers=conformers.atomic_numbers.numpy().astype(np.int32),
        coords=coords,
        energy=energy,
        forces=np.zeros_like(coords),
        charges=None,
        total_charge=0,
        group=smiles,
        source="made/minima",
        frame=np.arange(len(energy)),
    )
