"""Relaxation to a minimum and Langevin dynamics, on any potential that is a function coordinates -> energy and forces."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.potentials.gfn2 import EnergyAndForces
from pesfit.potentials.integrators import langevin, thermal_speed

EnergyFunction: TypeAlias = Callable[[FloatArray], EnergyAndForces]
"""coords [Å], shape (n_atoms, 3) -> energy [kcal/mol] and forces [kcal/mol/Å]."""
_CURVATURE = 1600.0
"""kcal/mol/Å², of a typical stiff coordinate: what the first step assumes."""
_MEMORY = 30
_MAX_STEP = 0.2
"""Å, how far one atom may go in one step of the relaxation."""


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


def relax(energy_function: EnergyFunction, coords: FloatArray, max_force: float, max_steps: int) -> LabeledFrame:
    r"""Follow the forces to a minimum by L-BFGS without a line search (Nocedal, Math. Comput. 35, 773, 1980).

    .. math::

        x_{k+1} = x_k + H_k F_k, \qquad
        H_{k+1} = (1 - \rho s y^T) H_k (1 - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / y^T s

    ===========  ==========================  =======================================================
    symbol       variable                    meaning
    ===========  ==========================  =======================================================
    x            `coords`                    coordinates, Å
    F            `frame.forces`              forces, kcal/mol/Å
    H            applied by `_newton_step`   inverse of the Hessian, Å² mol/kcal; first 1/`_CURVATURE`
    s            `step`                      x_{k+1} - x_k, Å
    y            `change`                    F_k - F_{k+1}, kcal/mol/Å
    ===========  ==========================  =======================================================

    A step that moves an atom by more than 0.2 Å is scaled down as a whole. Pairs with y·s <= 0 (negative curvature) are left out.

    Args:
        energy_function: potential.
        coords: [Å], where to start, shape (n_atoms, 3).
        max_force: [kcal/mol/Å], converged when no atom feels a larger one.
        max_steps: give up after so many.

    Raises:
        MoleculeError: if it has not converged by then.
    """
    history: deque[tuple[FloatArray, FloatArray]] = deque(maxlen=_MEMORY)
    frame = _evaluate(energy_function, coords)
    for _ in range(max_steps):
        if float(np.linalg.norm(frame.forces, axis=1).max()) <= max_force:
            return frame
        step = _newton_step(frame.forces, history)
        longest = float(np.linalg.norm(step, axis=1).max())
        if longest > _MAX_STEP:
            step = step * (_MAX_STEP / longest)
        new = _evaluate(energy_function, frame.coords + step)
        change = frame.forces - new.forces
        if float((change * step).sum()) > 0.0:
            history.append((step, change))
        frame = new
    largest = float(np.linalg.norm(frame.forces, axis=1).max())
    raise MoleculeError(
        f"relaxation stopped after {max_steps} steps at a force of {largest:.2g} kcal/mol/Å; converged is {max_force:g}"
    )


def _newton_step(forces: FloatArray, history: deque[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Return H F by the two-loop recursion."""
    direction = forces.copy()
    weights = []
    for step, change in reversed(history):
        weight = float((step * direction).sum()) / float((change * step).sum())
        direction -= weight * change
        weights.append(weight)
    direction /= _CURVATURE
    for (step, change), weight in zip(history, reversed(weights), strict=True):
        direction += step * (weight - float((change * direction).sum()) / float((change * step).sum()))
    return direction


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
