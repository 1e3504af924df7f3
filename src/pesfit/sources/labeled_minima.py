"""Minima and relaxed torsion drives among the labeled conformers of a molecule, told by their forces and dihedrals alone.

- A **minimum** is a conformer whose largest force is small, and that has no conformer of lower energy with all dihedrals within 30° of its
  own. The second condition leaves out the tops of barriers, whose forces vanish too, and the last steps but one of an optimization.
- A **torsion drive** is a set of conformers with the same dihedrals φ held at multiples of 5° (optimizers hold them within 0.0001°; by
  chance one in 250 is within 0.01°), one or more of them varying. It is relaxed where nothing but the constraints' forces is left:

      F - Σ λ_φ ∂φ/∂x, with multipliers λ by least squares over the held dihedrals,

  has a small largest force. Of conformers with the same angles the lowest is taken.

Conformers of molecular dynamics are neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_molecule, standard_masses
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.dataset import Record
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.internal_coordinates import dihedrals, within_half_a_turn
from pesfit.sources.xtb_dynamics import LabeledFrame, distinct_minima

MAX_SCAN_ENERGY = 30.0
"""kcal/mol above the lowest point: what is higher, such as atoms that collided, is left out of a scan."""
_NEAR = np.deg2rad(30.0)
_GRID, _TOLERANCE = np.deg2rad(5.0), np.deg2rad(0.01)
_TURN = 72
"""Steps of `_GRID` in a full turn."""
_FEWEST_POINTS, _FEWEST_ANGLES = 6, 3
"""Of a drive, and of a dihedral for it to be a driven one."""
_MOST = 0.9
"""Part of a drive's conformers in which a dihedral lies on the grid for it to be a held one."""


@dataclass(frozen=True, eq=False)
class TorsionDrive:
    """Relaxed conformers with some dihedrals held.

    Attributes:
        atoms: of the dihedrals, those that vary first, shape (n_dihedrals, 4).
        angles: [rad] of the dihedrals, shape (n_points, n_dihedrals), in ascending order.
        points: the conformers.
    """

    atoms: LongArray
    angles: FloatArray
    points: list[LabeledFrame]

    @property
    def driven(self) -> LongArray:
        """Atoms of the dihedrals that vary, shape (n_driven, 4)."""
        return np.asarray(self.atoms[np.ptp(self.angles, axis=0) > 0.0])


def together(rows: Sequence[Record]) -> Record:
    """Return all conformers of one molecule as one record, with the atoms in the order of its first row.

    Raises:
        MoleculeError: where a row is of another molecule.
    """
    first = rows[0]
    mol = mapped_molecule(str(first.smiles))
    parts = []
    for row in rows:
        order: Sequence[int] = range(first.n_atoms)
        if row.smiles != first.smiles:
            order = mapped_molecule(str(row.smiles)).GetSubstructMatch(mol, useChirality=True)
        if len(order) != row.n_atoms:
            raise MoleculeError(f"rows {first.id} and {row.id} have the group {first.group!r} and different atoms")
        parts.append((row.coords[:, order], row.energy, None if row.forces is None else row.forces[:, order], row.frame))
    coords, energy, forces, frame = zip(*parts, strict=True)
    labeled = [part for part in forces if part is not None]
    return replace(
        first,
        coords=np.concatenate(coords),
        energy=np.concatenate(energy),
        forces=np.concatenate(labeled) if len(labeled) == len(parts) else None,
        frame=np.concatenate(frame),
    )


def labeled_minima(mol: Chem.Mol, record: Record, max_force: float) -> list[LabeledFrame]:
    """Return the distinct minima among conformers, lowest first; none without forces.

    Args:
        mol: the molecule, atoms as in the record.
        record: its conformers.
        max_force: [kcal/mol/Å], on the atom that feels most.
    """
    if record.forces is None:
        return []
    small = np.flatnonzero(np.linalg.norm(record.forces, axis=-1).max(axis=1) <= max_force)
    _, values, _ = _dihedrals_of(mol, record.coords)
    found = []
    for i in small.tolist():
        difference = values[record.energy < record.energy[i]] - values[i]
        if not (np.abs(within_half_a_turn(difference)) <= _NEAR).all(axis=1).any():
            found.append(_frame(record, i))
    return distinct_minima(found, standard_masses(record.atomic_numbers))


def labeled_drives(mol: Chem.Mol, record: Record, max_force: float) -> list[TorsionDrive]:
    """Return the relaxed torsion drives among conformers, those with most points first; none without forces.

    Args:
        mol: the molecule, atoms as in the record.
        record: its conformers.
        max_force: [kcal/mol/Å], on the atom that feels most, without the forces along held dihedrals.
    """
    atoms, values, rows = _dihedrals_of(mol, record.coords)
    if record.forces is None or not len(atoms):
        return []
    steps = np.round(values / _GRID).astype(np.int64)
    on_grid = (np.abs(values - steps * _GRID) < _TOLERANCE) & rows.any(axis=(2, 3))
    steps %= _TURN
    left = np.ones(record.n_conformers, dtype=bool)
    drives: list[TorsionDrive] = []
    while True:
        n_angles = np.array([len(np.unique(s[on & left])) for s, on in zip(steps.T, on_grid.T, strict=True)])
        n_held = np.where(n_angles >= _FEWEST_ANGLES, (on_grid & left[:, None]).sum(axis=0), 0)
        driven = int(n_held.argmax())
        if n_held[driven] < _FEWEST_POINTS:
            return sorted(drives, key=lambda drive: -len(drive.points))
        which = left & on_grid[:, driven]
        left &= ~which
        held = _held(atoms, on_grid[which].mean(axis=0), driven)
        which &= on_grid[:, held].all(axis=1)
        points = np.flatnonzero(which)
        if len(points):
            multiplied = _unconstrained(record.forces[points], atoms[held], rows[points][:, held])
            points = points[np.linalg.norm(multiplied, axis=-1).max(axis=1) <= max_force]
        drive = _drive(record, points, atoms[held], steps[points][:, held])
        if len(drive.points) >= _FEWEST_POINTS and len(drive.driven):
            drives.append(drive)


def _drive(record: Record, points: LongArray, atoms: LongArray, steps: LongArray) -> TorsionDrive:
    """Put the points of a drive in order; of those with the same angles keep the lowest."""
    varying = np.array([len(np.unique(column)) for column in steps.T], dtype=np.int64)
    first = np.argsort(-varying, kind="stable")
    atoms, steps = atoms[first], (steps[:, first] + _TURN // 2) % _TURN - _TURN // 2
    energy = record.energy[points]
    low = np.flatnonzero(energy - energy.min(initial=np.inf) < MAX_SCAN_ENERGY)
    low = low[np.argsort(energy[low], kind="stable")]
    angles, lowest = np.unique(steps[low], axis=0, return_index=True)
    return TorsionDrive(atoms, angles * _GRID, [_frame(record, i) for i in points[low[lowest]].tolist()])


def _held(atoms: LongArray, share: FloatArray, driven: int) -> list[int]:
    """Return the dihedrals that nearly all conformers have on the grid, one for each bond, in the order of the atoms."""
    found: dict[tuple[int, int], int] = {_bond(atoms[driven]): driven}
    for i in np.flatnonzero(share >= _MOST).tolist():
        found.setdefault(_bond(atoms[i]), i)
    return sorted(found.values())


def _bond(atoms: LongArray) -> tuple[int, int]:
    return int(min(atoms[1:3])), int(max(atoms[1:3]))


def _unconstrained(forces: FloatArray, atoms: LongArray, rows: FloatArray) -> FloatArray:
    """Return forces without their part along dihedrals.

    Args:
        forces: [kcal/mol/Å], shape (n, n_atoms, 3).
        atoms: of the dihedrals, shape (n_dihedrals, 4).
        rows: [rad/Å] ∂φ/∂x of these atoms, shape (n, n_dihedrals, 4, 3).
    """
    wilson = np.zeros((len(forces), len(atoms), *forces.shape[1:]))
    for i, quartet in enumerate(atoms):
        wilson[:, i, quartet] = rows[:, i]
    wilson = wilson.reshape(len(forces), len(atoms), -1)
    flat = forces.reshape(len(forces), 1, -1)
    multipliers = flat @ np.linalg.pinv(wilson)
    return np.asarray(flat - multipliers @ wilson).reshape(forces.shape)


def _dihedrals_of(mol: Chem.Mol, coords: FloatArray) -> tuple[LongArray, FloatArray, FloatArray]:
    """Return atoms of dihedrals, shape (n, 4), their values [rad], (n_conformers, n), and Wilson rows [rad/Å], (n_conformers, n, 4, 3)."""
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    atoms = BondGraphCoordinates.of(bonds, coords[0]).dihedrals
    found = dihedrals(torch.from_numpy(np.array(coords)), torch.from_numpy(atoms))
    return atoms, found.values.numpy(), found.rows.numpy()


def _frame(record: Record, i: int) -> LabeledFrame:
    forces = np.zeros_like(record.coords[i]) if record.forces is None else record.forces[i]
    return LabeledFrame(record.coords[i], float(record.energy[i]), forces)
