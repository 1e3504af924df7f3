"""Internal coordinates that a molecule's bonds define, by which geometries of it are compared: bonds, angles, proper dihedrals.

Dihedrals through a straight angle are undefined and left out. A geometry is in another basin where a dihedral has turned by more than 60°
or an angle opened by more than 25°.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.potentials.internal_coordinates import STRAIGHT, angles, dihedrals, distances, within_half_a_turn

_MOVED_DIHEDRAL, _MOVED_ANGLE = np.deg2rad(60.0), np.deg2rad(25.0)


@dataclass(frozen=True, eq=False)
class BondGraphCoordinates:
    """Internal coordinates of a molecule; where they stand in one array, bonds come first, then angles, then dihedrals.

    Attributes:
        bonds, angles, dihedrals: atoms, int64, shapes (n, 2), (n, 3), (n, 4).
    """

    bonds: LongArray
    angles: LongArray
    dihedrals: LongArray

    @classmethod
    def of(cls, bonds: Iterable[tuple[int, int]], coords: FloatArray) -> BondGraphCoordinates:
        """List all bonds, angles, and proper dihedrals whose angles are not straight.

        Args:
            bonds: pairs of bonded atoms.
            coords: [Å], a geometry that tells straight angles, shape (n_atoms, 3).
        """
        pairs = sorted({(min(pair), max(pair)) for pair in bonds})
        neighbors: list[list[int]] = [[] for _ in coords]
        for a, b in pairs:
            neighbors[a].append(b)
            neighbors[b].append(a)
        trios = [(a, b, c) for b, around in enumerate(neighbors) for a in around for c in around if a < c]
        values = angles(torch.from_numpy(np.array(coords)), torch.tensor(trios, dtype=torch.int64).reshape(-1, 3)).values
        straight = {trio for trio, value in zip(trios, values.tolist(), strict=True) if value > STRAIGHT}
        quartets = [
            (a, b, c, d)
            for b, c in pairs
            for a in neighbors[b]
            for d in neighbors[c]
            if len({a, b, c, d}) == 4 and not straight & {(a, b, c), (c, b, a), (b, c, d), (d, c, b)}
        ]
        shapes = ((pairs, 2), (trios, 3), (quartets, 4))
        return cls(*(np.array(atoms, dtype=np.int64).reshape(-1, n) for atoms, n in shapes))

    @property
    def kinds(self) -> tuple[slice, slice, slice]:
        """Return where bonds, angles and dihedrals are in arrays of all coordinates."""
        first, second = len(self.bonds), len(self.bonds) + len(self.angles)
        return slice(0, first), slice(first, second), slice(second, second + len(self.dihedrals))

    def evaluate(self, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return values [Å and rad], shape (..., n_coordinates), and Wilson rows, shape (..., n_coordinates, 3 n_atoms).

        Args:
            coords: [Å], shape (..., n_atoms, 3).
        """
        positions = torch.from_numpy(np.array(coords))
        leading, n_atoms = positions.shape[:-2], positions.shape[-2]
        values, rows = [], []
        for kind, atoms in ((distances, self.bonds), (angles, self.angles), (dihedrals, self.dihedrals)):
            found = kind(positions, torch.from_numpy(atoms))
            wilson = np.zeros((*leading, len(atoms), n_atoms, 3))
            np.put_along_axis(wilson, np.broadcast_to(atoms[:, :, None], found.rows.shape), found.rows.numpy(), axis=-2)
            values.append(found.values.numpy())
            rows.append(wilson.reshape(*leading, len(atoms), 3 * n_atoms))
        return np.concatenate(values, axis=-1), np.concatenate(rows, axis=-2)

    def differences(self, values: FloatArray, others: FloatArray) -> FloatArray:
        """Return values - others, dihedrals within half a turn; shape (..., n_coordinates)."""
        result = values - others
        turns = self.kinds[2]
        result[..., turns] = within_half_a_turn(result[..., turns])
        return np.asarray(result)

    def moved(self, differences: FloatArray) -> BoolArray:
        """Tell which differences, shape (..., n_coordinates), lead to another basin; shape (...)."""
        _, bends, turns = (np.abs(differences[..., kind]).max(axis=-1, initial=0.0) for kind in self.kinds)
        return np.asarray((bends > _MOVED_ANGLE) | (turns > _MOVED_DIHEDRAL))
