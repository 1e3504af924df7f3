r"""Minimization of many conformers at once, with any potential, free or with dihedrals restrained.

L-BFGS without a line search (Nocedal, Math. Comput. 35, 773, 1980), each conformer with a history and a step limit of its own:

.. math::

    x_{k+1} = x_k + H_k F_k, \qquad
    H_{k+1} = (1 - \rho s y^T) H_k (1 - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / y^T s

===========  ==================  =================================================================
symbol       variable            meaning
===========  ==================  =================================================================
x            `coords`            coordinates, Å
F            `forces`            forces, kcal/mol/Å
H            `_History.apply`    inverse Hessian, Å² mol/kcal; before the first step 1/`_CURVATURE`
s, y         `steps`, `changes`  x_{k+1} - x_k, Å; F_k - F_{k+1}, kcal/mol/Å
===========  ==================  =================================================================

A step that moves an atom by more than the limit is scaled down as a whole. The limit is halved where the energy rises, and the history
dropped where it does so at the least limit; pairs with yᵀs ≤ 0 (negative curvature) are left out. A restrained dihedral adds
½ `STIFFNESS` (φ - φ_0)² to what is minimized; it is left out of the energies that are returned. At the slopes of torsion profiles, some
5 kcal/mol/rad, φ ends within 0.3 degrees of φ_0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.potentials.interface import Conformers, Potential, collate
from pesfit.potentials.internal_coordinates import dihedrals, within_half_a_turn

STIFFNESS = 1000.0
"""kcal/mol/rad², of the restraint of a dihedral."""
_CURVATURE = 1600.0
"""kcal/mol/Å², of a typical stiff coordinate: what the first step assumes."""
_MEMORY = 20
_MAX_STEP = 0.2
"""Å, how far one atom may go in one step."""
_MIN_STEP = 0.01
_RISE = 1e-6
"""kcal/mol. A rise of the energy by more than this halves the step limit."""
_REGROUP = 20
"""Steps after which conformers that have converged are taken out of the batch."""


@dataclass(frozen=True, eq=False)
class Restraint:
    """Dihedrals of each conformer of a molecule, held near values.

    Attributes:
        atoms: of the dihedrals, shape (n_dihedrals, 4).
        angles: [rad] φ_0, shape (n_conformers, n_dihedrals).
    """

    atoms: LongArray
    angles: FloatArray


@dataclass(frozen=True, eq=False)
class Minimized:
    """Conformers of one molecule where a minimization ended.

    Attributes:
        coords: [Å], shape (n_conformers, n_atoms, 3).
        energy: [kcal/mol], without restraints, shape (n_conformers,).
        forces: [kcal/mol/Å], without restraints, shape (n_conformers, n_atoms, 3).
        converged: whether the largest force, restraints included, fell below the limit, shape (n_conformers,).
    """

    coords: FloatArray
    energy: FloatArray
    forces: FloatArray
    converged: BoolArray


def minimize(
    potential: Potential,
    molecules: Sequence[Conformers],
    *,
    max_force: float,
    max_steps: int,
    restraints: Sequence[Restraint | None] | None = None,
) -> list[Minimized]:
    """Follow the forces to a minimum, all conformers of all molecules side by side.

    The result of a conformer does not depend on what else is minimized, but for rounding of the potential. Conformers whose energy
    or forces stop being finite, and those that reach `max_steps`, stay where they are and have not converged.

    Args:
        potential: what is minimized; where its forces are not a gradient, they are followed all the same.
        molecules: with the conformers to start from.
        max_force: [kcal/mol/Å], converged when no atom feels a larger one.
        max_steps: evaluations of each conformer at most.
        restraints: one for each molecule, or None.

    Raises:
        DataError: where a restraint has not one angle for each conformer and dihedral.
    """
    wanted = list(restraints) if restraints is not None else [None] * len(molecules)
    for molecule, restraint in zip(molecules, wanted, strict=True):
        if restraint is not None and restraint.angles.shape != (shape := (len(molecule.coords), len(restraint.atoms))):
            raise DataError(f"a restraint has angles of shape {restraint.angles.shape}; expected {shape}")
    results = [
        Minimized(
            molecule.coords.numpy().copy(),
            np.full(len(molecule.coords), np.nan),
            np.full(tuple(molecule.coords.shape), np.nan),
            np.zeros(len(molecule.coords), dtype=bool),
        )
        for molecule in molecules
    ]
    active = [(m, c) for m, molecule in enumerate(molecules) for c in range(len(molecule.coords))]
    history: _History | None = None
    limits = np.full(len(active), _MAX_STEP)
    done = 0
    while active and done < max_steps:
        group = _Group.of(potential, molecules, wanted, active, [results[m].coords[c] for m, c in active])
        n_steps = min(_REGROUP, max_steps - done)
        history = history or _History.empty(group)
        finished, history, limits = _descend(group, history, limits, n_steps, max_force)
        done += n_steps
        for i, (m, c) in enumerate(active):
            atoms = slice(group.starts[i], group.starts[i] + group.sizes[i])
            results[m].coords[c], results[m].energy[c] = group.coords[atoms], group.energy[i]
            results[m].forces[c], results[m].converged[c] = group.forces[atoms], finished[i] == 1
        keep = finished == 0
        history, limits = history.select(group, keep), limits[keep]
        active = [which for which, stay in zip(active, keep, strict=True) if stay]
    return results


@dataclass(frozen=True, eq=False)
class _Held:
    """Restrained dihedrals of a batch: conformer, atoms and angle [rad] of each, shapes (n,), (n, 4), (n,)."""

    conformer: LongArray
    atoms: LongArray
    angles: FloatArray


class _Group:
    """Conformers in one batch, with their coordinates, energies and forces as flat arrays."""

    def __init__(self, potential: Potential, parts: Sequence[Conformers], held: _Held) -> None:
        batch = collate(parts)
        self._evaluate = potential.bind(batch)
        self.sizes = np.concatenate([np.full(n, n_atoms) for n, n_atoms in batch.sizes])
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.coords = batch.coords.numpy().copy()
        self._held = held
        self.conservative = potential.conservative
        self.energy = np.full(len(self.sizes), np.nan)
        self.forces = np.full_like(self.coords, np.nan)
        self.total_energy, self.total_forces = self.energy, self.forces

    @classmethod
    def of(
        cls,
        potential: Potential,
        molecules: Sequence[Conformers],
        restraints: Sequence[Restraint | None],
        active: Sequence[tuple[int, int]],
        coords: Sequence[FloatArray],
    ) -> _Group:
        """Gather active conformers, which are in the order of their molecules."""
        parts: list[Conformers] = []
        conformer, atoms, angles, start = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.int64)], [np.zeros(0)], 0
        for m in sorted({m for m, _ in active}):
            mine = [i for i, (molecule, _) in enumerate(active) if molecule == m]
            parts.append(molecules[m].at(np.stack([coords[i] for i in mine])))
            restraint, n_atoms = restraints[m], len(molecules[m].atomic_numbers)
            for i in mine:
                if restraint is not None:
                    conformer.append(np.full(len(restraint.atoms), i))
                    atoms.append(start + restraint.atoms)
                    angles.append(restraint.angles[active[i][1]])
                start += n_atoms
        return cls(potential, parts, _Held(np.concatenate(conformer), np.concatenate(atoms), np.concatenate(angles)))

    def evaluate(self) -> None:
        """Bring energies and forces up to date with the coordinates."""
        prediction = self._evaluate(torch.from_numpy(self.coords))
        self.energy, self.forces = prediction.energy.numpy().copy(), prediction.forces.numpy().copy()
        self.total_energy, self.total_forces = self.energy, self.forces
        held = self._held
        if len(held.conformer):
            found = dihedrals(torch.from_numpy(self.coords), torch.from_numpy(held.atoms))
            away = within_half_a_turn(found.values.numpy() - held.angles)
            self.total_energy = self.energy.copy()
            np.add.at(self.total_energy, held.conformer, 0.5 * STIFFNESS * away**2)
            self.total_forces = self.forces.copy()
            np.add.at(self.total_forces, held.atoms, -STIFFNESS * away[:, None, None] * found.rows.numpy())

    def dot(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return a·b of each conformer, shape (n_conformers,), of arrays of shape (n_atoms, 3)."""
        return np.asarray(np.add.reduceat((a * b).sum(axis=1), self.starts))

    def spread(self, values: FloatArray | BoolArray) -> FloatArray:
        """Return a value of each conformer for each of its atoms, shape (n_atoms, 1)."""
        return np.asarray(np.repeat(values, self.sizes)[:, None])

    def largest(self, vectors: FloatArray) -> FloatArray:
        """Return the length of each conformer's longest vector, shape (n_conformers,)."""
        return np.asarray(np.maximum.reduceat(np.linalg.norm(vectors, axis=1), self.starts))


@dataclass(eq=False)
class _History:
    """The last pairs of steps and changes of forces; ρ of 0 stands for none.

    Attributes:
        steps, changes: s and y, newest last, shape (n_atoms, 3) each.
        rho: 1/yᵀs of each conformer, shape (n_conformers,) each.
        newest: 1/curvature along the newest pair, shape (n_conformers,).
    """

    steps: list[FloatArray]
    changes: list[FloatArray]
    rho: list[FloatArray]
    newest: FloatArray

    @classmethod
    def empty(cls, group: _Group) -> _History:
        return cls([], [], [], np.full(len(group.sizes), 1.0 / _CURVATURE))

    def select(self, group: _Group, keep: BoolArray) -> _History:
        atoms = np.repeat(keep, group.sizes)
        return _History(
            [s[atoms] for s in self.steps], [y[atoms] for y in self.changes], [r[keep] for r in self.rho], self.newest[keep]
        )

    def add(self, group: _Group, step: FloatArray, change: FloatArray, valid: BoolArray) -> None:
        product = group.dot(step, change)
        good = valid & (product > 0.0)
        self.steps.append(step)
        self.changes.append(change)
        self.rho.append(np.divide(1.0, product, out=np.zeros_like(product), where=good))
        square = group.dot(change, change)
        self.newest = np.where(good, product / np.where(good, square, 1.0), self.newest)
        if len(self.steps) > _MEMORY:
            for kept in (self.steps, self.changes, self.rho):
                del kept[0]

    def forget(self, which: BoolArray) -> None:
        """Drop the pairs of some conformers."""
        self.rho = [np.where(which, 0.0, rho) for rho in self.rho]
        self.newest = np.where(which, 1.0 / _CURVATURE, self.newest)

    def apply(self, group: _Group, forces: FloatArray) -> FloatArray:
        """Return H F by the two-loop recursion, shape (n_atoms, 3)."""
        direction, alphas = forces.copy(), []
        pairs = list(zip(self.steps, self.changes, self.rho, strict=True))
        for step, change, rho in reversed(pairs):
            alpha = rho * group.dot(step, direction)
            direction -= group.spread(alpha) * change
            alphas.append(alpha)
        direction *= group.spread(self.newest)
        for (step, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            beta = rho * group.dot(change, direction)
            direction += group.spread(alpha - beta) * step
        return direction


def _descend(
    group: _Group, history: _History, limits: FloatArray, n_steps: int, max_force: float
) -> tuple[LongArray, _History, FloatArray]:
    """Take steps with all conformers that have not finished.

    Returns:
        For each conformer 0 where it goes on, 1 where it converged, 2 where it is lost; the history; and the limits of steps.
    """
    finished = np.zeros(len(group.sizes), dtype=np.int64)
    group.evaluate()
    for _ in range(n_steps):
        force = group.largest(group.total_forces)
        finished = np.where(finished == 0, np.where(force <= max_force, 1, np.where(np.isfinite(force), 0, 2)), finished)
        moving = finished == 0
        if not moving.any():
            break
        before_energy, before_forces, before = group.total_energy, np.nan_to_num(group.total_forces), group.coords.copy()
        step = history.apply(group, before_forces)
        uphill = group.dot(step, before_forces) <= 0.0
        step = np.where(group.spread(uphill), before_forces / _CURVATURE, step)
        longest = group.largest(step)
        scale = np.where(moving, np.minimum(1.0, limits / np.maximum(longest, 1e-300)), 0.0)
        step = step * group.spread(scale)
        group.coords = before + step
        group.evaluate()
        rose = moving & group.conservative & (group.total_energy > before_energy + _RISE)
        limits = np.clip(np.where(rose, 0.5 * limits, 1.1 * limits), _MIN_STEP, _MAX_STEP)
        history.add(group, step, before_forces - np.nan_to_num(group.total_forces), moving)
        history.forget(rose & (limits <= _MIN_STEP))
    force = group.largest(group.total_forces)
    return np.where((finished == 0) & (force <= max_force), 1, finished), history, limits
