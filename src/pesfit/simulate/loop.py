"""The molecular-dynamics loop: replicas of molecules, advanced together as one graph, for any potential.

Every `observe_every` steps the replicas are observed: one that has come apart is stopped there, which leaves the others unchanged, and
what is kept of it ends with the observation before. `Simulation` yields observations one by one; `simulate` collects them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import ParamsError
from pesfit.core.units import ACCELERATION
from pesfit.potentials.integrators import langevin, verlet
from pesfit.potentials.interface import Potential, Prediction
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.simulate.replicas import RandomNumbers, Replicas, as_batch

Stop: TypeAlias = Literal["not_finite", "bond", "energy"]
STOPS: tuple[Stop, ...] = ("not_finite", "bond", "energy")
"""Reasons to stop a replica, in the order in which they are checked: energy, forces or coordinates are not finite; a bond is stretched or
compressed by more than is allowed; the total energy has changed by more than is allowed."""

_DRAWN_NUMBERS = 2**22
"""Largest block of random numbers: 32 MB."""


@dataclass(frozen=True)
class Protocol:
    """Parameters of the dynamics.

    Attributes:
        timestep_fs: [fs].
        n_steps: number of steps.
        observe_every: steps between observations.
        frame_every: observations between stored frames.
        temperature_kelvin: [K], of the initial velocities and of the thermostat.
        friction_per_ps: [1/ps]; None for NVE (velocity Verlet).
        seed: of velocities and noise.
        max_stretch: [Å], largest deviation of a bond length from its mean.
        max_energy_change: [kcal/mol/atom], largest change of the total energy from its first value.
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
        """Check the numbers.

        Raises:
            ParamsError: naming the value.
        """
        for name, low in (("n_steps", 1), ("observe_every", 1), ("frame_every", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ParamsError(f"{name} = {getattr(self, name)}; at least {low} is needed")
        for name in ("timestep_fs", "friction_per_ps"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ParamsError(f"{name} = {value}; a number above 0 is needed")
        if not 0.0 <= self.temperature_kelvin < math.inf:
            raise ParamsError(f"temperature_kelvin = {self.temperature_kelvin}; a number of at least 0 is needed")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Energies, frames and ends of the replicas of one molecule.

    Attributes:
        name: of the molecule.
        step: of each observation, from 0, shape (n_observations,).
        potential_energy, kinetic_energy: [kcal/mol], NaN from where a replica was stopped, shape (n_replicas, n_observations).
        stops: the reason why each replica was stopped; None where it was not.
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


@dataclass(frozen=True, eq=False)
class Observation:
    """All replicas at one step; the values of those that were stopped have no meaning.

    Attributes:
        step: number of steps from the start.
        prediction: energies [kcal/mol], shape (n_replicas,), and forces [kcal/mol/Å], shape (n_atoms, 3).
        kinetic_energy: [kcal/mol], shape (n_replicas,).
        coords, velocities: [Å], [Å/fs], shape (n_atoms, 3).
        stopped: replicas that were stopped, shape (n_replicas,).
    """

    step: int
    prediction: Prediction
    kinetic_energy: Tensor
    coords: Tensor
    velocities: Tensor
    stopped: Tensor


def simulate(potential: Potential, molecules: Sequence[Replicas], protocol: Protocol) -> list[Trajectories]:
    """Run all replicas of all molecules, as `Simulation` does.

    Returns:
        One for each molecule.

    Raises:
        DataError: if the batch lacks what the potential needs.
    """
    simulation = Simulation(potential, molecules, protocol)
    batch = simulation.batch
    steps: list[int] = []
    energies: list[tuple[Tensor, ...]] = []
    frame_steps: list[int] = []
    frames: list[tuple[Tensor, ...]] = []
    for number, seen in enumerate(simulation.observations()):
        steps.append(seen.step)
        energies.append(
            tuple(values.masked_fill(seen.stopped, torch.nan) for values in (seen.prediction.energy, seen.kinetic_energy))
        )
        if number % protocol.frame_every == 0:
            stopped = seen.stopped[batch.conformer].unsqueeze(1)
            frame_steps.append(seen.step)
            frames.append(tuple(values.masked_fill(stopped, torch.nan) for values in (seen.coords, seen.prediction.forces)))
    potential_energy, kinetic_energy = (
        batch.split_conformers(torch.stack(values, dim=1)) for values in zip(*energies, strict=True)
    )
    coords, forces = (
        [torch.stack(of_molecule, dim=1).numpy() for of_molecule in zip(*map(batch.split_atoms, values), strict=True)]
        for values in zip(*frames, strict=True)
    )
    step, frame_step = (np.array(values, dtype=np.int32) for values in (steps, frame_steps))
    results, first = [], 0
    for i, molecule in enumerate(molecules):
        results.append(
            Trajectories(
                name=molecule.name,
                step=step,
                potential_energy=potential_energy[i].numpy(),
                kinetic_energy=kinetic_energy[i].numpy(),
                stops=tuple(simulation.stops.get(first + replica) for replica in range(molecule.n_replicas)),
                n_observed=np.isfinite(potential_energy[i].numpy()).sum(axis=1, dtype=np.int32),
                frame_step=frame_step,
                coords=coords[i],
                forces=forces[i],
            )
        )
        first += molecule.n_replicas
    return results


class Simulation:
    """Replicas in motion.

    NVE replicas start without translation and rotation; NVT replicas, whose thermostat would bring these back, with them. Same molecules,
    protocol and seed: same bytes. A replica in another batch has the same trajectory up to the rounding of its forces, which chaos
    amplifies.

    Args:
        potential: any.
        molecules: at least one; SMIRNOFF is fastest where all have the same number of replicas.
        protocol: of the dynamics.

    Attributes:
        batch: of all replicas.
        stops: the reason why each replica was stopped, for those that were.

    Raises:
        DataError: if the batch lacks what the potential needs.
    """

    def __init__(self, potential: Potential, molecules: Sequence[Replicas], protocol: Protocol) -> None:
        self.batch = as_batch(molecules)
        self.stops: dict[int, Stop] = {}
        self._protocol = protocol
        self._evaluate = potential.bind(self.batch)
        masses = np.concatenate([np.tile(molecule.masses, molecule.n_replicas) for molecule in molecules])
        self._half_masses = torch.from_numpy(0.5 * masses / ACCELERATION)
        integrator = (
            verlet(masses, protocol.timestep_fs)
            if protocol.friction_per_ps is None
            else langevin(masses, protocol.timestep_fs, protocol.temperature_kelvin, protocol.friction_per_ps)
        )
        self._integrator = integrator.converted(torch.from_numpy)
        self._random = RandomNumbers(molecules, protocol.seed)
        has_thermostat = protocol.friction_per_ps is not None
        self._velocities = self._random.velocities(protocol.temperature_kelvin, rigid_motion=has_thermostat)
        self._coords = self.batch.coords
        self._noise: Tensor | None = None
        self._noise_used = 0
        self._n_steps_done = 0
        self._bonds = _Bonds(molecules)
        self._sizes = torch.bincount(self.batch.conformer, minlength=self.batch.n_conformers)
        self._stopped = torch.zeros(self.batch.n_conformers, dtype=torch.bool)
        self._last_good = self._coords
        self._prediction = self._predict()
        self._first_energy = self._prediction.energy + self._kinetic_energy()

    def observations(self, advanced: Callable[[], object] | None = None) -> Iterator[Observation]:
        """Yield the start, the replicas after every `observe_every` steps, and the end.

        Args:
            advanced: called after each step.
        """
        yield self._observe()
        while self._n_steps_done < self._protocol.n_steps:
            for _ in range(min(self._protocol.observe_every, self._protocol.n_steps - self._n_steps_done)):
                self._advance()
                if advanced is not None:
                    advanced()
            yield self._observe()

    def _advance(self) -> None:
        """Move all replicas by one step; those that were stopped stay where they are."""
        moved = self._integrator.move(self._coords, self._velocities, self._prediction.forces, self._drawn())
        self._coords, self._velocities = moved
        self._prediction = self._predict()
        self._velocities = self._integrator.finish(self._velocities, self._prediction.forces)
        self._n_steps_done += 1

    def _observe(self) -> Observation:
        """Stop replicas that have come apart, and return what is seen of all."""
        kinetic = self._kinetic_energy()
        self._check(kinetic)
        self._last_good = self._coords
        return Observation(self._n_steps_done, self._prediction, kinetic, self._coords, self._velocities, self._stopped.clone())

    def _predict(self) -> Prediction:
        while True:
            try:
                return self._evaluate(self._coords)
            except CoincidentAtomsError as error:
                if error.molecule is None or error.conformer is None:
                    raise
                conformer = error.conformer + sum(n_conformers for n_conformers, _ in self.batch.sizes[: error.molecule])
                if conformer in self.stops:  # it was so from the start, and has no earlier position
                    raise
                self._stop(torch.tensor([conformer]), "not_finite")

    def _kinetic_energy(self) -> Tensor:
        of_atoms = (self._velocities * self._velocities).sum(1) * self._half_masses
        return of_atoms.new_zeros(self.batch.n_conformers).index_add_(0, self.batch.conformer, of_atoms)

    def _drawn(self) -> Tensor | None:
        if self._protocol.friction_per_ps is None:
            return None
        if self._noise is None or self._noise_used == len(self._noise):
            n_left = self._protocol.n_steps - self._n_steps_done
            self._noise = self._random.normal(max(1, min(n_left, _DRAWN_NUMBERS // self._coords.numel())))
            self._noise_used = 0
        self._noise_used += 1
        return self._noise[self._noise_used - 1]

    def _check(self, kinetic: Tensor) -> None:
        total = self._prediction.energy + kinetic
        # Sums of forces and coordinates are finite only if each of them is; overflow counts as not finite.
        sums = (self._prediction.forces + self._coords).sum(1)
        sums = sums.new_zeros(len(total)).index_add_(0, self.batch.conformer, sums)
        broken: dict[Stop, Tensor] = {
            "not_finite": ~torch.isfinite(total + sums),
            "bond": self._bonds.stretch(self._coords) > self._protocol.max_stretch,
            "energy": (total - self._first_energy).abs() > self._protocol.max_energy_change * self._sizes,
        }
        for reason in STOPS:
            found = torch.nonzero(broken[reason] & ~self._stopped).squeeze(1)
            if len(found):
                self._stop(found, reason)

    def _stop(self, conformers: Tensor, reason: Stop) -> None:
        """Put replicas back to their last good observation, and keep them there."""
        self._stopped[conformers] = True
        self.stops.update(dict.fromkeys(conformers.tolist(), reason))
        atoms = torch.isin(self.batch.conformer, conformers).unsqueeze(1)
        self._coords = torch.where(atoms, self._last_good, self._coords)
        self._velocities = self._velocities.masked_fill(atoms, 0.0)
        self._integrator.kick.masked_fill_(atoms, 0.0)
        self._integrator.noise.masked_fill_(atoms, 0.0)
        if hasattr(self, "_prediction"):  # its forces may be NaN, which times 0 is NaN
            forces = self._prediction.forces.masked_fill(atoms, 0.0)
            self._prediction = Prediction(self._prediction.energy, forces)


class _Bonds:
    """The bonds of all replicas that are watched."""

    def __init__(self, molecules: Sequence[Replicas]) -> None:
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
        """Return the largest deviation of a bond from its mean length [Å], shape (n_conformers,); 0 without bonds."""
        delta = coords.index_select(0, self._atoms[1]) - coords.index_select(0, self._atoms[0])
        away: Tensor = (torch.linalg.vector_norm(delta, dim=-1) - self._lengths).abs()
        return away.new_zeros(self._n_conformers).scatter_reduce_(0, self._conformers, away, "amax")
