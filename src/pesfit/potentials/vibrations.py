"""Hessians by central differences of forces, and the harmonic vibrations that follow (Wilson, Decius, Cross, Molecular Vibrations, 1955).

    H_ij = -(F_j(x + h e_i) - F_j(x - h e_i)) / (2h), symmetrized;    M^-½ P H P M^-½ l = ω² l,    ν̄ = ω / (2πc)

with P the projection onto motions that are neither translation nor rotation.

| symbol | variable | unit |
| --- | --- | --- |
| H | `hessian` | kcal/mol/Å² |
| ω², l | eigenvalues and eigenvectors of the mass-weighted Hessian | kcal/mol/Å²/(g/mol) |
| ν̄ | `wavenumbers`; negative where ω² < 0 | cm⁻¹ |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.units import ACCELERATION
from pesfit.potentials.interface import Conformers, Potential, collate

DISPLACEMENT = 0.005
"""Å. The error is of second order in it: below 0.1 cm⁻¹ for the molecules of the small profile."""
_MAX_ATOMS = 20_000
"""Atoms evaluated in one go, which bounds memory."""
LOWEST_WAVENUMBER = 20.0
"""cm⁻¹. Modes below it, of internal rotors that hardly have a minimum, are not compared."""
_LIGHT = 2.99792458e-5
"""Speed of light, cm/fs."""
_LINEAR = 1e-3
"""Smallest singular value of the rotations, relative to the largest, from which on they count: a linear molecule has two."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of one conformer, without translations and rotations.

    Attributes:
        wavenumbers: [cm⁻¹], ascending, negative for imaginary ones, shape (n_modes,).
        directions: Cartesian directions L = M^-½ l, [(g/mol)^-½], for which Lᵀ H L = ω², shape (n_modes, n_atoms, 3).
    """

    wavenumbers: FloatArray
    directions: FloatArray


def hessians(potential: Potential, molecule: Conformers, displacement: float = DISPLACEMENT) -> FloatArray:
    """Differentiate the forces of conformers of one molecule.

    Args:
        potential: where its forces are not a gradient, the symmetric part of their Jacobian is returned.
        molecule: with its conformers.
        displacement: [Å] h.

    Returns:
        [kcal/mol/Å²], shape (n_conformers, 3 n_atoms, 3 n_atoms).
    """
    coords = molecule.coords.numpy()
    n_conformers, n_atoms = coords.shape[:2]
    size = 3 * n_atoms
    moved = coords[:, None, None] + displacement * np.stack([np.eye(size), -np.eye(size)]).reshape(1, 2, size, n_atoms, 3)
    forces = np.concatenate(list(_forces(potential, molecule, moved.reshape(-1, n_atoms, 3)))).reshape(
        n_conformers, 2, size, size
    )
    jacobian = (forces[:, 1] - forces[:, 0]) / (2.0 * displacement)
    return np.asarray(0.5 * (jacobian + jacobian.transpose(0, 2, 1)))


def normal_modes(hessian: FloatArray, coords: FloatArray, masses: FloatArray) -> Modes:
    """Diagonalize the mass-weighted Hessian of one conformer.

    Args:
        hessian: [kcal/mol/Å²], shape (3 n_atoms, 3 n_atoms).
        coords: [Å], shape (n_atoms, 3).
        masses: [g/mol], shape (n_atoms,).
    """
    root = np.repeat(np.sqrt(masses), 3)
    basis = vibrational_basis(coords, masses)
    values, vectors = scipy.linalg.eigh(basis.T @ (hessian / np.outer(root, root)) @ basis)
    directions = ((basis @ vectors) / root[:, None]).T
    return Modes(wavenumbers(values), directions.reshape(len(values), len(masses), 3))


def wavenumbers(squares: FloatArray) -> FloatArray:
    """Return ν̄ [cm⁻¹] of ω² [kcal/mol/Å²/(g/mol)], negative where ω² is."""
    return np.asarray(np.sign(squares) * np.sqrt(np.abs(squares) * ACCELERATION) / (2.0 * np.pi * _LIGHT))


def vibrational_basis(coords: FloatArray, masses: FloatArray) -> FloatArray:
    """Return an orthonormal basis of mass-weighted motions that are neither translation nor rotation.

    Args:
        coords: [Å], shape (n_atoms, 3).
        masses: [g/mol], shape (n_atoms,).

    Returns:
        Shape (3 n_atoms, n_modes), n_modes = 3 n_atoms - 6, or - 5 for linear molecules.
    """
    root = np.sqrt(masses)[:, None]
    centered = coords - (masses @ coords) / masses.sum()
    rigid = [(root * axis).ravel() for axis in np.eye(3)] + [(root * np.cross(axis, centered)).ravel() for axis in np.eye(3)]
    vectors, values, _ = scipy.linalg.svd(np.array(rigid).T, full_matrices=True)
    n_rigid = int((values > _LINEAR * values[0]).sum())
    return np.asarray(vectors[:, n_rigid:])


def _forces(potential: Potential, molecule: Conformers, coords: FloatArray) -> Iterator[FloatArray]:
    size = max(1, _MAX_ATOMS // coords.shape[1])
    for start in range(0, len(coords), size):
        piece = coords[start : start + size]
        with torch.no_grad():
            prediction = potential(collate([molecule.at(piece)]))
        yield prediction.forces.numpy().reshape(piece.shape)
