"""Minima of one molecule by GFN2-xTB, and Langevin dynamics on any function coordinates -> energy and forces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import elements_of, standard_masses
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.potentials.gfn2 import EnergyAndForces
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.integrators import langevin, thermal_speed
from pesfit.potentials.interface import Conformers
from pesfit.potentials.minimize import minimize

EnergyFunction: TypeAlias = Callable[[FloatArray], EnergyAndForces]
"""coords [Å], shape (n_atoms, 3) -> energy [kcal/mol] and forces [kcal/mol/Å]."""
_MAX_STEPS = 1000
_SAME_ENERGY = 0.1
"""kcal/mol. Two minima are one if they agree in energy within this and in their moments of inertia, as CREST tells them apart."""
_SAME_INERTIA = 0.02
"""Largest relative difference of the principal moments of inertia of one minimum."""


@dataclass(frozen=True)
class LabeledFrame:
    """One set of coordinates with its labels.

    Attributes:
        coords: [Å], shape (n_atoms, 3).
        energy: [kcal/mol].
        forces: [kcal/mol/Å], shape (n_atoms, 3).
    """

    coords: FloatArray
    energy: float
    forces: FloatArray


def find_minima(mol: Chem.Mol, n_conformers: int, seed: int, max_force: float) -> list[LabeledFrame]:
    """Embed conformers (ETKDG, MMFF), relax them with GFN2-xTB, and return the distinct minima with the molecule's bonds, lowest first.

    Args:
        mol: with all atoms.
        n_conformers: that are embedded.
        seed: of the embedding.
        max_force: [kcal/mol/Å], on the atom that feels most, at a minimum.

    Raises:
        MoleculeError: where nothing can be embedded, or no conformer ends in a minimum with the molecule's bonds.
    """
    settings: Any = rdDistGeom.ETKDGv3()
    settings.randomSeed, settings.numThreads = seed, 1
    embedded = Chem.Mol(mol)
    if not list(rdDistGeom.EmbedMultipleConfs(embedded, n_conformers, settings)):
        raise MoleculeError("ETKDG found no conformer")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(embedded):  # halves the steps that GFN2 needs
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(embedded, numThreads=1)
    coords = np.stack([np.array(conformer.GetPositions(), dtype=np.float64) for conformer in embedded.GetConformers()])
    elements = elements_of(mol)
    numbers = torch.from_numpy(elements.astype(np.int64))
    start = Conformers(numbers, torch.from_numpy(coords), total_charge=int(Chem.GetFormalCharge(mol)))
    (ended,) = minimize(Gfn2Potential(), [start], max_force=max_force, max_steps=_MAX_STEPS)
    sound = np.flatnonzero(ended.converged & Connectivity(mol).holds(ended.coords))
    if not len(sound):
        raise MoleculeError(f"none of {len(coords)} conformers relaxed to a minimum with the molecule's bonds")
    frames = [LabeledFrame(ended.coords[i], float(ended.energy[i]), ended.forces[i]) for i in sound]
    return distinct_minima(frames, standard_masses(elements))


def distinct_minima(frames: list[LabeledFrame], masses: FloatArray) -> list[LabeledFrame]:
    """Return the minima without duplicates, lowest first. Mirror images, and copies with like atoms exchanged, are duplicates.

    Args:
        frames: relaxed.
        masses: [g/mol], shape (n_atoms,).
    """
    kept: list[tuple[LabeledFrame, FloatArray]] = []
    for frame in sorted(frames, key=lambda frame: frame.energy):
        moments = _moments_of_inertia(frame.coords, masses)
        if not any(
            abs(frame.energy - other.energy) < _SAME_ENERGY and (np.abs(moments - others) <= _SAME_INERTIA * others[-1]).all()
            for other, others in kept
        ):
            kept.append((frame, moments))
    return [frame for frame, _ in kept]


def _moments_of_inertia(coords: FloatArray, masses: FloatArray) -> FloatArray:
    """Return the principal moments, ascending, in g/mol·Å², shape (3,)."""
    centered = coords - (masses @ coords) / masses.sum()
    squares = (masses * (centered**2).sum(axis=1)).sum()
    tensor = squares * np.eye(3) - (centered * masses[:, None]).T @ centered
    return np.asarray(np.linalg.eigvalsh(tensor), dtype=np.float64)


@dataclass(frozen=True)
class Langevin:
    """Langevin dynamics of one molecule (`potentials.integrators`).

    Attributes:
        masses: [g/mol], shape (n_atoms,).
        temperature_kelvin: [K].
        friction_per_ps: [1/ps].
        timestep_fs: [fs].
    """

    masses: FloatArray
    temperature_kelvin: float
    friction_per_ps: float
    timestep_fs: float

    def run(
        self, energy_function: EnergyFunction, coords: FloatArray, random: np.random.Generator, heating: float = 2.0
    ) -> Iterator[LabeledFrame]:
        """Yield the frame after every step, without end.

        Args:
            energy_function: potential.
            coords: [Å], where to start, shape (n_atoms, 3).
            random: source of the first velocities and of the noise.
            heating: the first velocities have this many times the temperature. At a minimum 2 is right: vibrations soon turn half of
                it into potential energy.

        Raises:
            MoleculeError: what `energy_function` raises.
        """
        step = langevin(self.masses, self.timestep_fs, self.temperature_kelvin, self.friction_per_ps)
        velocities = (
            math.sqrt(heating) * thermal_speed(self.masses, self.temperature_kelvin) * random.standard_normal(coords.shape)
        )
        frame = _evaluate(energy_function, coords)
        while True:
            moved, velocities = step.move(frame.coords, velocities, frame.forces, random.standard_normal(coords.shape))
            frame = _evaluate(energy_function, moved)
            velocities = step.finish(velocities, frame.forces)
            yield frame


def _evaluate(energy_function: EnergyFunction, coords: FloatArray) -> LabeledFrame:
    labels = energy_function(coords)
    return LabeledFrame(coords, labels.energy, labels.forces)
