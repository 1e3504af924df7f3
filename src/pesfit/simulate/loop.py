"""Dynamics of many replicas of many molecules as one graph, for any potential.

All replicas advance together. Every `observe_every` steps they are looked at: a replica that has gone astray is stopped there, which the
others do not notice, and what is kept of it ends with the observation before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.core.units import ACCELERATION
from pesfit.potentials.integrators import Integrator, langevin, verlet
from pesfit.potentials.interface import Potential, Prediction
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.simulate.replicas import Molecule, RandomNumbers, as_batch

Stop: TypeAlias = Literal["not_finite", "bond", "energy"]
STOPS: tuple[Stop, ...] = ("not_finite", "bond", "energy")
"""Why a replica is stopped, in the order in which it is asked: energy, forces or coordinates are not finite; a bond is stretched or
squeezed by more than is allowed; the total energy has changed by more than is allowed."""

_DRAWN_NUMBERS = 2**22
"""Random numbers drawn in one go at most: 32 MB."""


@dataclass(frozen=True)
class Protocol:
    """How replicas are run.

    Attributes:
        timestep_fs: [fs].
        n_steps: how many.
        observe_every: steps between observations.
        frame_every: observations between stored frames.
        temperature_kelvin: [K], of the first velocities, and of the thermostat.
        friction_per_ps: [1/ps]; None for NVE (velocity Verlet).
        seed: of velocities and noise.
        max_stretch: [Å], a replica is stopped when a bond is further from its mean.
        max_energy_change: [kcal/mol], for each atom: a replica is stopped when the total energy is further from its first value.
    """

    timestep_fs: float
    n_steps: int
    observe_every: int = 1
    frame_every: int = 1
    temperature_kelvin: float = 300.0
    friction_per_ps: float | None = None
    seed: int = 0
    max_stretch: float = 0.5
    max_energy_change: float = 20.0

    def __post_init__(self) -> None:
        for name in ("n_steps", "observe_every", "frame_every"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} = {getattr(self, name)}; at least 1 is needed")
        if self.n_steps % self.observe_every:
            raise DataError(f"n_steps = {self.n_steps} is not a multiple of observe_every = {self.observe_every}")

    @property
    def n_observations(self) -> int:
        """How many observations there are after the one at the start."""
        return self.n_steps // self.observe_every


@dataclass(frozen=True, eq=False)
class Run:
    """What became of the replicas of one molecule.

    Attributes:
        name: of the molecule.
        step: of each observation, from 0, shape (n_observations,).
        potential_energy, kinetic_energy: [kcal/mol], NaN from where a replica was stopped, shape (n_replicas, n_observations).
        stops: why each replica was stopped; None where it was not.
        n_observed: number of observations until it was stopped, shape (n_replicas,).
        frame_step: of each stored frame, shape (n_frames,).
        coords, forces: [Å], [kcal/mol/Å], NaN from where a replica was stopped, shape (n_replicas, n_frames, n_atoms, 3).
    """

    name: str
    step: IntArray
    potential_energy: FloatArray
    kinetic_energy: FloatArray
    stops: tuple[Stop | None, ...]
    n_observed: IntArray
    frame_step: IntArray
    coords: FloatArray
    forces: FloatArray

    @property
    def total_energy(self) -> FloatArray:
        """Potential and kinetic energy [kcal/mol], shape (n_replicas, n_observations)."""
        return self.potential_energy + self.kinetic_energy

    def n_frames(self, replica: int) -> int:
        """Return how many frames a replica has until it was stopped."""
        n_observed = int(self.n_observed[replica])
        return int((self.frame_step <= self.step[n_observed - 1]).sum()) if n_observed else 0


def simulate(
    potential: Potential,
    molecules: Sequence[Molecule],
    protocol: Protocol,
    advanced: Callable[[int], object] | None = None,
) -> list[Run]:
    """Run all replicas of all molecules.

    NVE replicas start without translation and rotation; with a thermostat, which would bring these back, with them.
    Same molecules, protocol and seed: same bytes. A replica in other company has the same trajectory up to the rounding of its forces,
    which chaos amplifies.

    Args:
        potential: any.
        molecules: at least one; SMIRNOFF is fastest where all have the same number of replicas.
        protocol: how.
        advanced: told the number of steps done since it was last told.

    Returns:
        One run for each molecule.

    Raises:
        DataError: if the batch lacks what the potential needs.
    """
    simulation = _Simulation(potential, molecules, protocol)
    for _ in range(protocol.n_observations):
        simulation.advance(protocol.observe_every)
        simulation.observe()
        if advanced is not None:
            advanced(protocol.observe_every)
    return simulation.runs()


class _Simulation:
    """The state of all replicas, and what was seen of them."""

    def __init__(self, potential: Potential, molecules: Sequence[Molecule], protocol: Protocol) -> None:
        self._molecules = molecules
        self._protocol = protocol
        self._batch = as_batch(molecules)
        self._evaluate = potential.bind(self._batch)
        masses = np.concatenate([np.tile(molecule.masses, molecule.n_replicas) for molecule in molecules])
        self._half_masses = torch.from_numpy(0.5 * masses / ACCELERATION)
        self._integrator = _integrator(masses, protocol)
        self._random = RandomNumbers(molecules, protocol.seed)
        has_thermostat = protocol.friction_per_ps is not None
        self._velocities = self._random.velocities(protocol.temperature_kelvin, rigid_motion=has_thermostat)
        self._coords = self._batch.coords
        self._noise: Tensor | None = None
        self._noise_used = 0
        self._n_steps_done = 0
        self._bonds = _Bonds(molecules)
        self._sizes = torch.bincount(self._batch.conformer, minlength=self._batch.n_conformers)

        self._alive = torch.ones(self._batch.n_conformers, dtype=torch.bool)
        self._stops: dict[int, Stop] = {}
        self._last_good = self._coords
        self._energies: list[tuple[Tensor, Tensor]] = []
        self._frames: list[tuple[int, Tensor, Tensor]] = []
        self._prediction = self._predict()
        self._first_energy = self._prediction.energy + self._kinetic_energy()
        self.observe()

    def advance(self, n_steps: int) -> None:
        """Move all replicas by some steps; those that were stopped stay where they are."""
        for _ in range(n_steps):
            moved = self._integrator.move(self._coords, self._velocities, self._prediction.forces, self._drawn())
            self._coords, self._velocities = moved
            self._prediction = self._predict()
            self._velocities = self._integrator.finish(self._velocities, self._prediction.forces)
        self._n_steps_done += n_steps

    def observe(self) -> None:
        """Stop replicas that have gone astray, and note energies and frames of the others."""
        kinetic = self._kinetic_energy()
        self._stop_those_astray(kinetic)
        self._last_good = self._coords
        gone = ~self._alive
        self._energies.append((self._prediction.energy.masked_fill(gone, torch.nan), kinetic.masked_fill(gone, torch.nan)))
        if (len(self._energies) - 1) % self._protocol.frame_every == 0:
            gone_atoms = gone[self._batch.conformer].unsqueeze(1)
            coords, forces = (values.masked_fill(gone_atoms, torch.nan) for values in (self._coords, self._prediction.forces))
            self._frames.append((self._n_steps_done, coords, forces))

    def _predict(self) -> Prediction:
        while True:
            try:
                return self._evaluate(self._coords)
            except CoincidentAtomsError as error:
                if error.molecule is None or error.conformer is None:
                    raise
                conformer = error.conformer + sum(n_conformers for n_conformers, _ in self._batch.sizes[: error.molecule])
                if conformer in self._stops:  # so it starts, and there is nowhere to put it back to
                    raise
                self._stop(torch.tensor([conformer]), "not_finite")

    def _kinetic_energy(self) -> Tensor:
        of_atoms = (self._velocities * self._velocities).sum(1) * self._half_masses
        return of_atoms.new_zeros(self._batch.n_conformers).index_add_(0, self._batch.conformer, of_atoms)

    def _drawn(self) -> Tensor | None:
        if self._protocol.friction_per_ps is None:
            return None
        if self._noise is None or self._noise_used == len(self._noise):
            n_left = self._protocol.n_steps - self._n_steps_done
            self._noise = self._random.normal(max(1, min(n_left, _DRAWN_NUMBERS // self._coords.numel())))
            self._noise_used = 0
        self._noise_used += 1
        return self._noise[self._noise_used - 1]

    def _stop_those_astray(self, kinetic: Tensor) -> None:
        total = self._prediction.energy + kinetic
        # Sums of forces and coordinates are finite only if each of them is, but for overflow, which is as bad.
        sums = (self._prediction.forces + self._coords).sum(1)
        sums = sums.new_zeros(len(total)).index_add_(0, self._batch.conformer, sums)
        astray: dict[Stop, Tensor] = {
            "not_finite": ~torch.isfinite(total + sums),
            "bond": self._bonds.stretch(self._coords) > self._protocol.max_stretch,
            "energy": (total - self._first_energy).abs() > self._protocol.max_energy_change * self._sizes,
        }
        for reason in STOPS:
            found = torch.nonzero(astray[reason] & self._alive).squeeze(1)
            if len(found):
                self._stop(found, reason)

    def _stop(self, conformers: Tensor, reason: Stop) -> None:
        """Put replicas back to where they were last seen sound, and let nothing move them any more."""
        self._alive[conformers] = False
        self._stops.update(dict.fromkeys(conformers.tolist(), reason))
        atoms = torch.isin(self._batch.conformer, conformers).unsqueeze(1)
        self._coords = torch.where(atoms, self._last_good, self._coords)
        self._velocities = self._velocities.masked_fill(atoms, 0.0)
        self._integrator.kick.masked_fill_(atoms, 0.0)
        self._integrator.noise.masked_fill_(atoms, 0.0)
        if hasattr(self, "_prediction"):  # its forces may be NaN, which times 0 is NaN
            forces = self._prediction.forces.masked_fill(atoms, 0.0)
            self._prediction = Prediction(self._prediction.energy, forces)

    def runs(self) -> list[Run]:
        """Cut what was seen into molecules."""
        potential_energy, kinetic_energy = (torch.stack(parts, dim=1) for parts in zip(*self._energies, strict=True))
        frame_steps, coords, forces = zip(*self._frames, strict=True)
        frames = [
            [
                torch.stack(parts, dim=1).numpy()
                for parts in zip(*(self._batch.split_atoms(frame) for frame in values), strict=True)
            ]
            for values in (coords, forces)
        ]
        step = np.arange(len(self._energies), dtype=np.int32) * self._protocol.observe_every
        runs, first = [], 0
        energies = (self._batch.split_conformers(values) for values in (potential_energy, kinetic_energy))
        for molecule, potential, kinetic, where, pushed in zip(self._molecules, *energies, *frames, strict=True):
            runs.append(
                Run(
                    name=molecule.name,
                    step=step,
                    potential_energy=potential.numpy(),
                    kinetic_energy=kinetic.numpy(),
                    stops=tuple(self._stops.get(first + replica) for replica in range(molecule.n_replicas)),
                    n_observed=np.isfinite(potential.numpy()).sum(axis=1, dtype=np.int32),
                    frame_step=np.array(frame_steps, dtype=np.int32),
                    coords=where,
                    forces=pushed,
                )
            )
            first += molecule.n_replicas
        return runs


class _Bonds:
    """The bonds of all replicas that are watched."""

    def __init__(self, molecules: Sequence[Molecule]) -> None:
        atoms, lengths, conformers = [], [], []
        first_atom = first_conformer = 0
        for molecule in molecules:
            if molecule.bonds is not None and molecule.bond_lengths is not None:
                offsets = first_atom + molecule.n_atoms * np.arange(molecule.n_replicas)
                atoms.append((offsets[:, None, None] + molecule.bonds).reshape(-1, 2))
                lengths.append(np.tile(molecule.bond_lengths, molecule.n_replicas))
                replicas = first_conformer + np.arange(molecule.n_replicas)
                conformers.append(np.repeat(replicas, len(molecule.bonds)))
            first_atom += molecule.n_atoms * molecule.n_replicas
            first_conformer += molecule.n_replicas
        self._n_conformers = first_conformer
        self._atoms = torch.from_numpy(np.concatenate([np.zeros((0, 2), dtype=np.int64), *atoms])).T.contiguous()
        self._lengths = torch.from_numpy(np.concatenate([np.zeros(0), *lengths]))
        self._conformers = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *conformers]))

    def stretch(self, coords: Tensor) -> Tensor:
        """Return how far the bond furthest from its mean length is from it [Å], shape (n_conformers,); 0 without bonds."""
        delta = coords.index_select(0, self._atoms[1]) - coords.index_select(0, self._atoms[0])
        away: Tensor = (torch.linalg.vector_norm(delta, dim=-1) - self._lengths).abs()
        return away.new_zeros(self._n_conformers).scatter_reduce_(0, self._conformers, away, "amax")


def _integrator(masses: FloatArray, protocol: Protocol) -> Integrator[Tensor]:
    if protocol.friction_per_ps is None:
        integrator = verlet(masses, protocol.timestep_fs)
    else:
        integrator = langevin(masses, protocol.timestep_fs, protocol.temperature_kelvin, protocol.friction_per_ps)
    return integrator.converted(torch.from_numpy)
