"""Distances, angles and dihedrals, with their derivatives with respect to positions (Wilson rows).

With r_a the position of an atom and q an internal coordinate of two, three or four atoms, each function returns q and the rows
∂q/∂r_a of Wilson's B matrix (Wilson, Decius, Cross, Molecular Vibrations, 1955, chapter 4). An energy E = Σ f(q) then has the
forces F_a = -Σ f'(q) ∂q/∂r_a.

    distance   d = r_1 - r_0                  q = |d|                            ∂q/∂r_1 = d/q = -∂q/∂r_0
    angle      u = r_0 - r_1, v = r_2 - r_1   q = atan2(|n|, u·v), n = u × v     ∂q/∂r_0 = u × n / (|u|²|n|)
                                                                                 ∂q/∂r_2 = n × v / (|v|²|n|)
                                                                                 ∂q/∂r_1 = -∂q/∂r_0 - ∂q/∂r_2
    dihedral   f = r_0 - r_1, g = r_1 - r_2,  q = atan2(-|g| f·b, a·b)           ∂q/∂r_0 = -a |g|/|a|²
               h = r_3 - r_2,                                                    ∂q/∂r_3 = b |g|/|b|²
               a = f × g, b = h × g                                              ∂q/∂r_1 = -∂q/∂r_0 + t
                                                                                 ∂q/∂r_2 = -∂q/∂r_3 - t
                                             with t = a (f·g)/(|a|²|g|) - b (h·g)/(|b|²|g|)

    symbol        q         ∂q/∂r     r_0 ... r_3
    variable      values    rows      the atoms in each row of `atoms`

The angle and the dihedral are two-argument arc tangents, exact to rounding at 0 and π, and no derivative divides by sin q of a
dihedral (Blondel, Karplus, J. Comput. Chem. 17, 1132, 1996). Dihedrals are in (-π, π], zero when cis, and positive when the far
bond is turned clockwise, seen along the central bond (IUPAC). An improper is a dihedral of atoms that are not bonded in a row.

Where a derivative has no value, a limit is defined, so that nothing is ever NaN but for coordinates that are NaN:

- Atoms of a distance at the same place: an error, since energies that depend on it are singular.
- Angle of collinear atoms (sin q below 1e-10, the size of the rounding of the direction): rows are zero, the mean over all
  directions in which it can open. Harmonic energies with a minimum at π have this limit.
- Dihedral in which three atoms in a row are collinear by the same measure: it is undefined; value and rows are zero.

Everything is vectorized over terms and over leading dimensions of `coords`; use float64. Values (not rows) may be differentiated
by autograd where no limit is taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError

COLLINEAR = 1e-10
"""Sine of the angle below which two directions are taken to be parallel."""
STRAIGHT = math.radians(165.0)
"""Angle above which a chain of three atoms counts as straight: a dihedral through it says nothing, and an energy of it has no use."""


class CoincidentAtomsError(MoleculeError):
    """Two atoms of a distance are at the same place.

    Attributes:
        atoms: their indices in `coords`, or in the molecule where it is known.
        conformer: position in the leading dimension of `coords`, or in the molecule where it is known; None where there is none.
        molecule: position of the molecule in its batch; None where it is not known.
    """

    def __init__(self, atoms: tuple[int, int], conformer: int | None = None, molecule: int | None = None) -> None:
        self.atoms = atoms
        self.conformer = conformer
        self.molecule = molecule
        where = "" if molecule is None else f"molecule {molecule}, "
        where += "" if conformer is None else f"conformer {conformer}: "
        super().__init__(f"{where}atoms {atoms[0]} and {atoms[1]} are at the same place; their distance must not be 0 Å")

    def __reduce__(self) -> tuple[type[CoincidentAtomsError], tuple[tuple[int, int], int | None, int | None]]:
        return type(self), (self.atoms, self.conformer, self.molecule)


class InternalCoordinates(NamedTuple):
    """Values of one kind of internal coordinate and their derivatives.

    Attributes:
        values: [Å] or [radian], shape (..., n_terms).
        rows: [1] or [radian/Å], ∂values/∂positions of the term's atoms, in their order, shape (..., n_terms, n_body, 3).
    """

    values: Tensor
    rows: Tensor


def distances(coords: Tensor, atoms: Tensor) -> InternalCoordinates:
    """Distances between two atoms.

    Args:
        coords: [Å], shape (..., n_atoms, 3).
        atoms: shape (n_terms, 2).

    Raises:
        CoincidentAtomsError: where a distance is exactly 0.
    """
    positions = _positions(coords, atoms)
    delta = positions[1] - positions[0]
    values = torch.linalg.vector_norm(delta, dim=-1)
    _refuse_zero(values, atoms)
    unit = delta / values.unsqueeze(-1)
    return InternalCoordinates(values, torch.stack((-unit, unit), dim=-2))


def angles(coords: Tensor, atoms: Tensor) -> InternalCoordinates:
    """Angles at the second of three atoms, 0 to π.

    Args:
        coords: [Å], shape (..., n_atoms, 3).
        atoms: shape (n_terms, 3).
    """
    first, center, last = _positions(coords, atoms)
    u, v = first - center, last - center
    normal = torch.linalg.cross(u, v)
    sine, cosine = torch.linalg.vector_norm(normal, dim=-1), _dot(u, v)
    values = torch.atan2(sine, cosine)

    u2, v2 = _dot(u, u), _dot(v, v)
    inverse = _inverse(sine, sine > COLLINEAR * torch.sqrt(u2 * v2))
    row_first = torch.linalg.cross(u, normal) * (inverse * _inverse(u2, u2 > 0)).unsqueeze(-1)
    row_last = torch.linalg.cross(normal, v) * (inverse * _inverse(v2, v2 > 0)).unsqueeze(-1)
    return InternalCoordinates(values, torch.stack((row_first, -row_first - row_last, row_last), dim=-2))


def dihedrals(coords: Tensor, atoms: Tensor) -> InternalCoordinates:
    """Dihedrals, proper and improper, about the line through the second and third of four atoms, -π to π.

    Args:
        coords: [Å], shape (..., n_atoms, 3).
        atoms: shape (n_terms, 4).
    """
    r_0, r_1, r_2, r_3 = _positions(coords, atoms)
    f, g, h = r_0 - r_1, r_1 - r_2, r_3 - r_2
    a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
    a2, b2, f2, g2, h2 = (_dot(x, x) for x in (a, b, f, g, h))
    g_norm = torch.sqrt(g2)
    # Products of squared lengths: sines are compared squared, so that no root is taken of what may be 0.
    defined = (a2 > COLLINEAR**2 * f2 * g2) & (b2 > COLLINEAR**2 * h2 * g2)
    values = torch.where(defined, torch.atan2(-g_norm * _dot(f, b), _dot(a, b)), 0.0)

    a_over = a * _inverse(a2, defined).unsqueeze(-1)
    b_over = b * _inverse(b2, defined).unsqueeze(-1)
    row_0 = -a_over * g_norm.unsqueeze(-1)
    row_3 = b_over * g_norm.unsqueeze(-1)
    along = _inverse(g_norm, defined)
    t = a_over * (_dot(f, g) * along).unsqueeze(-1) - b_over * (_dot(h, g) * along).unsqueeze(-1)
    return InternalCoordinates(values, torch.stack((row_0, t - row_0, -row_3 - t, row_3), dim=-2))


def within_half_a_turn(angles: FloatArray) -> FloatArray:
    """Return angles, or differences of them, [rad] from -π to π."""
    return np.asarray(np.mod(angles + np.pi, 2.0 * np.pi) - np.pi)


def _positions(coords: Tensor, atoms: Tensor) -> list[Tensor]:
    """Positions of the first, second, ... atom of each term, shape (..., n_terms, 3) each."""
    return [torch.index_select(coords, -2, index) for index in atoms.T]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """a·b over the last dimension; written out, since torch's reduction of three numbers takes ten times as long."""
    product = a * b
    return product[..., 0] + product[..., 1] + product[..., 2]


def _inverse(value: Tensor, where: Tensor) -> Tensor:
    """1/value, and 0 where it is not wanted."""
    return torch.where(where, 1.0 / torch.where(where, value, 1.0), 0.0)


def _refuse_zero(values: Tensor, atoms: Tensor) -> None:
    if values.numel() == 0 or not bool((values == 0.0).any()):
        return
    *leading, term = (int(i) for i in torch.nonzero(values == 0.0)[0])
    first, second = (int(i) for i in atoms[term])
    raise CoincidentAtomsError((first, second), leading[0] if leading else None)
