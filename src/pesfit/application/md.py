"""Dynamics of one molecule with a model, frame by frame into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pesfit.application.extxyz import Frame
from pesfit.application.geometries import Geometry
from pesfit.application.predict import FrameDeviations, predict_molecule
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ParamsError, PesfitError
from pesfit.core.units import ACCELERATION, BOLTZMANN
from pesfit.potentials.integrators import Integrator, langevin, rigid_directions, verlet
from pesfit.potentials.interface import Prediction
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.simulate.loop import Protocol
from pesfit.simulate.replicas import RandomNumbers, Replicas, as_batch, standard_masses

_DRAWN_STEPS = 256
"""Steps whose random numbers are drawn in one go."""
_MAX_ENERGY_CHANGE = Protocol.max_energy_change
"""[kcal/mol] for each atom: as in rollouts, a total energy further from its first value is that of a molecule that has flown apart."""


class ExplodedError(PesfitError):
    """Coordinates, forces or energy are not finite any more, or the energy has left all bounds."""


@dataclass(frozen=True)
class Run:
    """How a molecule is simulated.

    Attributes:
        n_steps: at least 1.
        timestep_fs: [fs].
        temperature_kelvin: [K], of the first velocities, and of the bath.
        friction_per_ps: [1/ps], of Langevin dynamics (BAOAB); None for velocity Verlet at constant energy.
        every: steps between frames.
        seed: of velocities and noise; same seed, same frames.
    """

    n_steps: int
    timestep_fs: float = 0.5
    temperature_kelvin: float = 300.0
    friction_per_ps: float | None = 1.0
    every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ParamsError: naming the value.
        """
        for name, low in (("n_steps", 1), ("every", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ParamsError(f"{name} = {getattr(self, name)}; at least {low} is needed")
        positive = {"timestep_fs": self.timestep_fs}
        if self.friction_per_ps is not None:
            positive["friction_per_ps"] = self.friction_per_ps
        for name, value in positive.items():
            if not 0.0 < value < np.inf:
                raise ParamsError(f"{name} = {value}; a number above 0 is needed")
        if not 0.0 <= self.temperature_kelvin < np.inf:
            raise ParamsError(f"temperature_kelvin = {self.temperature_kelvin}; a number of at least 0 is needed")


class Simulation:
    """One molecule in motion.

    At constant energy it starts without translation and rotation; with a bath, which would bring these back, with them.

    Args:
        model: any.
        geometry: where it starts.
        run: how.

    Raises:
        PesfitError: where the model cannot evaluate the molecule (`predict.predict`).
    """

    def __init__(self, model: Model, geometry: Geometry, run: Run) -> None:
        self._model, self._geometry, self._run = model, geometry, run
        self.prepared: PreparedMolecule = model.prepare(geometry.atomic_numbers, geometry.smiles, geometry.where)
        predict_molecule(model, self.prepared, [geometry])  # says clearly what is wrong with the start
        self._masses = standard_masses(geometry.atomic_numbers)
        molecule = Replicas(
            "md", geometry.atomic_numbers, self._masses, geometry.coords[None], self.prepared.terms, self.prepared.total_charge
        )
        batch = as_batch([molecule])
        self._evaluate: Callable[[Tensor], Prediction] = model.potential.bind(batch)
        self._random = RandomNumbers([molecule], run.seed)
        self._integrator = _integrator(self._masses, run)
        self._coords = batch.coords
        self._velocities = self._random.velocities(run.temperature_kelvin, rigid_motion=run.friction_per_ps is not None)
        self._prediction = self._evaluate(self._coords)
        self._first_energy = self._total_energy()
        self._step = 0

    def frames(self, advanced: Callable[[], object] | None = None) -> Iterator[Frame]:
        """Yield the start, and a frame after every `every` steps; the last steps may have none.

        Args:
            advanced: called after each step.

        Raises:
            ExplodedError: where the dynamics cannot go on; the frames before are sound.
        """
        yield self._frame()
        drawn: Iterator[Tensor | None] = self._drawn()
        while self._step < self._run.n_steps:
            moved = self._integrator.move(self._coords, self._velocities, self._prediction.forces, next(drawn))
            self._coords, self._velocities = moved
            self._prediction = self._evaluate(self._coords)
            self._velocities = self._integrator.finish(self._velocities, self._prediction.forces)
            self._step += 1
            if advanced is not None:
                advanced()
            if self._step % self._run.every == 0:
                self._check()
                yield self._frame()

    def _drawn(self) -> Iterator[Tensor | None]:
        while True:
            if self._run.friction_per_ps is None:
                yield None
            else:
                yield from self._random.normal(_DRAWN_STEPS)

    def _kinetic_energy(self) -> float:
        squares = (self._velocities**2).sum(1).numpy()
        return float(0.5 * (self._masses * squares).sum() / ACCELERATION)

    def _total_energy(self) -> float:
        return float(self._prediction.energy[0]) + self._kinetic_energy()

    def _check(self) -> None:
        change = self._total_energy() - self._first_energy
        finite = bool(torch.isfinite(self._prediction.forces).all())
        if not finite or not abs(change) <= _MAX_ENERGY_CHANGE * len(self._masses):
            what = (
                f"the energy has changed by {change:.3g} kcal/mol"
                if np.isfinite(change) and finite
                else "forces are not finite"
            )
            raise ExplodedError(
                f"{self._geometry.where}: the molecule has flown apart by step {self._step} "
                f"({self._step * self._run.timestep_fs:g} fs): {what}; try a shorter time step, or relax the start"
            )

    def _frame(self) -> Frame:
        coords, deviations = self._coords.numpy().copy(), None
        if self.prepared.uncertainty is not None:
            found = self.prepared.uncertainty(coords[None], self._geometry.coords)
            deviations = FrameDeviations.of(self._model, found, 0)
        kinetic = self._kinetic_energy()
        return Frame(
            self._geometry.atomic_numbers,
            coords,
            float(self._prediction.energy[0]),
            self._prediction.forces.numpy(),
            deviations,
            velocities=self._velocities.numpy(),
            masses=self._masses,
            info={
                "step": self._step,
                "time_fs": self._step * self._run.timestep_fs,
                "temperature_kelvin": 2.0 * kinetic / (self._n_degrees * BOLTZMANN),
                "smiles": self.prepared.smiles,
            },
        )

    @property
    def _n_degrees(self) -> int:
        """How many degrees of freedom have kinetic energy."""
        if self._run.friction_per_ps is not None:
            return 3 * len(self._masses)
        return max(1, 3 * len(self._masses) - len(rigid_directions(self._geometry.coords, self._masses)))


def _integrator(masses: FloatArray, run: Run) -> Integrator[Tensor]:
    if run.friction_per_ps is None:
        return verlet(masses, run.timestep_fs).converted(torch.from_numpy)
    return langevin(masses, run.timestep_fs, run.temperature_kelvin, run.friction_per_ps).converted(torch.from_numpy)
