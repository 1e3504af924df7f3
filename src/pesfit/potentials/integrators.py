"""One step of molecular dynamics, and the velocities it starts from, for numpy arrays of one molecule and torch tensors of many alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.units import ACCELERATION, BOLTZMANN

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", FloatArray, "Tensor")
Other = TypeVar("Other", FloatArray, "Tensor")


@dataclass(frozen=True, eq=False)
class Integrator(Generic[Array]):
    r"""Langevin dynamics by the BAOAB splitting, which without friction is velocity Verlet.

    .. math::

        dx = v\,dt, \qquad m\,dv = F(x)\,dt - \gamma m v\,dt + \sqrt{2 \gamma m k_B T}\,dW

        B:\; v \leftarrow v + \tfrac{\Delta t}{2} F(x) / m, \qquad
        A:\; x \leftarrow x + \tfrac{\Delta t}{2} v, \qquad
        O:\; v \leftarrow e^{-\gamma \Delta t} v + \sqrt{(1 - e^{-2 \gamma \Delta t}) k_B T / m}\; \xi

    ==============================  ====================  =========================================================
    symbol                          variable              meaning
    ==============================  ====================  =========================================================
    x, v                            coords, velocities    Å, Å/fs
    F                               forces                kcal/mol/Å; times `ACCELERATION` / m in Å/fs²
    m                               masses                g/mol
    Δt                              timestep_fs           fs
    γ                               friction_per_ps       1/ps
    T                               temperature_kelvin    K
    ξ                               drawn                 normal, mean 0, variance 1
    Δt/2m, Δt/2                     `kick`, `half`        the half steps B and A
    exp(-γΔt), the factor of ξ      `decay`, `noise`      the step O
    ==============================  ====================  =========================================================

    On a harmonic potential the coordinates have the exact Boltzmann distribution at any stable time step (Leimkuhler, Matthews,
    Appl. Math. Res. eXpress 2013, 34). Without O, the step is symplectic and time-reversible, and the error of the energy is of the
    order Δt² (Swope et al., J. Chem. Phys. 76, 637, 1982).

    A step is `move`, an evaluation of the forces at the new positions, and `finish`.

    Attributes:
        kick: [Å/fs per kcal/mol/Å], shape (n_atoms, 1).
        half: [fs].
        decay: at most 1.
        noise: [Å/fs], shape (n_atoms, 1).
    """

    kick: Array
    half: float
    decay: float
    noise: Array

    def move(self, coords: Array, velocities: Array, forces: Array, drawn: Array | None) -> tuple[Array, Array]:
        """Do the steps B, A, O and A; without O for velocity Verlet.

        Args:
            coords: [Å], shape (n_atoms, 3).
            velocities: [Å/fs], same shape.
            forces: [kcal/mol/Å] at coords, same shape.
            drawn: normal numbers, same shape; None for velocity Verlet.

        Returns:
            New positions, and velocities that `finish` takes.
        """
        velocities = velocities + self.kick * forces
        coords = coords + self.half * velocities
        if drawn is not None:
            velocities = self.decay * velocities + self.noise * drawn
        return coords + self.half * velocities, velocities

    def finish(self, velocities: Array, forces: Array) -> Array:
        """Do the last step B, with the forces at the new positions."""
        return velocities + self.kick * forces

    def converted(self, convert: Callable[[Array], Other]) -> Integrator[Other]:
        """Return the same integrator on arrays of another kind."""
        return Integrator(convert(self.kick), self.half, self.decay, convert(self.noise))


def langevin(
    masses: FloatArray, timestep_fs: float, temperature_kelvin: float, friction_per_ps: float
) -> Integrator[FloatArray]:
    """Return the BAOAB integrator for atoms with these masses [g/mol], shape (n_atoms,)."""
    kick = (0.5 * timestep_fs * ACCELERATION / masses)[:, None]
    decay = math.exp(-friction_per_ps * 1e-3 * timestep_fs)
    noise = math.sqrt(1.0 - decay * decay) * thermal_speed(masses, temperature_kelvin)
    return Integrator(kick, 0.5 * timestep_fs, decay, noise)


def verlet(masses: FloatArray, timestep_fs: float) -> Integrator[FloatArray]:
    """Return velocity Verlet for atoms with these masses [g/mol], shape (n_atoms,)."""
    return langevin(masses, timestep_fs, 0.0, 0.0)


def thermal_speed(masses: FloatArray, temperature_kelvin: float) -> FloatArray:
    """Return √(kT/m), the standard deviation of each component of a velocity [Å/fs], shape (n_atoms, 1)."""
    return np.sqrt(BOLTZMANN * temperature_kelvin * ACCELERATION / masses)[:, None]


def remove_rigid_motion(coords: FloatArray, velocities: FloatArray, masses: FloatArray) -> FloatArray:
    """Remove the overall translation and rotation from velocities, and leave vibrations as they are.

    Velocities drawn from a Maxwell-Boltzmann distribution have afterwards that distribution under the condition that linear and
    angular momentum are zero: momenta of rigid motion are orthogonal to those of vibration in mass-weighted velocities.

    Args:
        coords: [Å], shape (n_atoms, 3).
        velocities: [Å/fs], shape (n_atoms, 3).
        masses: [g/mol], shape (n_atoms,).
    """
    directions = rigid_directions(coords, masses)
    root = np.sqrt(masses)[:, None]
    weighted = (root * velocities).reshape(-1)
    return np.asarray((weighted - directions.T @ (directions @ weighted)).reshape(-1, 3) / root)


def rigid_directions(coords: FloatArray, masses: FloatArray) -> FloatArray:
    """Return an orthonormal basis of rigid motion in mass-weighted coordinates.

    Returns:
        Shape (n_directions, 3 n_atoms): 6 directions, 5 for linear molecules, 3 for an atom.
    """
    root = np.sqrt(masses)[:, None]
    centered = coords - (masses @ coords) / masses.sum()
    axes = np.eye(3)
    shifts = [np.broadcast_to(axis, coords.shape) for axis in axes]
    turns = [np.cross(axis, centered) for axis in axes]
    _, sizes, basis = np.linalg.svd(
        np.stack([(root * motion).reshape(-1) for motion in (*shifts, *turns)]), full_matrices=False
    )
    return np.asarray(basis[sizes > 1e-6 * sizes[0]])
