r"""Rows of minima and scans: curvatures, displacements, conformer energies and torsion profiles, as linear functions of the trained vector.

With features Φ of forces and energies (`smirnoff.features`: F(x) = F_0 + Φ x at fixed coordinates) and the Hessian H of a minimum,

| kind | row, at the geometry g where it is linearized | unit of one |
| --- | --- | --- |
| `frequencies` | lᵀ ∂H/∂x l = -lᵀ (Φ(g + h l) - Φ(g - h l)) / (2h), for each normal mode l, by 2 max(ν̄, 150 cm⁻¹) | 50 cm⁻¹ |
| `displacements` | ∂q/∂x = B H⁺ Φ(g), q the bonds, angles and dihedrals, B their Wilson rows | 0.02 Å, 2°, 10° |
| `conformers` | ∂E/∂x(g) minus the mean over the molecule's minima (envelope theorem) | 1 kcal/mol |
| `scans` | ∂E/∂x(g) minus the mean over the scan's points | 1 kcal/mol |

Round 0 linearizes at the minima of the labels, g = g_ref, with H and l of the labels: all rows are linear in x, and the optimum of the
round is global; the displacement is a first-order estimate of where the force field would relax to. Later rounds linearize at the force
field's own minima, with its own H and l (modes paired in ascending order), and are Gauss-Newton steps (implicit function theorem for
∂q/∂x). A minimum that the force field loses (no end, or another basin) keeps its rows of round 0. Scans stay at the geometries of the
labels. Each molecule counts with the mean square of each kind (its sum over minima for conformer energies), so that large molecules do
not dominate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.linalg
import torch

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.data.splits import SPLITS
from pesfit.params.fit_smirnoff import Objective
from pesfit.potentials.interface import Conformers, Potential
from pesfit.potentials.internal_coordinates import angles, dihedrals, distances
from pesfit.potentials.minimize import Minimized, minimize
from pesfit.potentials.vibrations import hessians, normal_modes, wavenumbers
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.statistics.normal_equations import Moments, NormalEquations

Kind = Literal["frequencies", "displacements", "conformers", "scans"]
KINDS: tuple[Kind, ...] = ("frequencies", "displacements", "conformers", "scans")

_FREQUENCY, _SOFTEST, _LOWEST = 50.0, 150.0, 20.0
"""cm⁻¹: unit of a row, the wavenumber below which rows are not stiffened further, and that below which modes are left out."""
_BOND, _ANGLE, _DIHEDRAL = 0.02, np.deg2rad(2.0), np.deg2rad(10.0)
_SCAN_WINDOW = 15.0
"""kcal/mol: points of scans higher above the lowest are left out."""
_BATCH_ATOMS = 5_000
"""Atoms, of all minima, that are relaxed in one batch."""
MEASURES = {
    "frequency": ("frequency_rms_per_cm", 1.0),
    "bond": ("bond_rms_angstrom", 1.0),
    "angle": ("angle_rms_degree", np.deg2rad(1.0)),
    "dihedral": ("dihedral_rms_degree", np.deg2rad(1.0)),
    "conformer_energy": ("conformer_energy_rms_kcal_per_mol", 1.0),
    "scan": ("scan_rms_kcal_per_mol", 1.0),
}
"""Key in the metrics of each measure, and its unit there."""
_STEP = 2e-4
"""Å, of the difference of features along a mode: small, since angles near 180° are far from linear."""
_MAX_FORCE, _MAX_STEPS = 0.02, 1000
_MOVED_DIHEDRAL, _MOVED_ANGLE = np.deg2rad(60.0), np.deg2rad(25.0)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one kind, over the molecule's own parameters; residual = targets - features x.

    Attributes:
        features: shape (n_rows, n_local).
        targets: shape (n_rows,).
    """

    features: FloatArray
    targets: FloatArray

    def residuals(self, x: FloatArray) -> FloatArray:
        """Return residuals at x of the molecule's own parameters, shape (n_rows,)."""
        return np.asarray(self.targets - self.features @ x)


@dataclass(frozen=True, eq=False)
class _Coordinates:
    """Internal coordinates whose displacement is fitted, with the unit of each."""

    bonds: LongArray
    angles: LongArray
    dihedrals: LongArray

    def evaluate(self, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return values, shape (n_coordinates,), and Wilson rows, shape (n_coordinates, 3 n_atoms), at one geometry."""
        positions, n_atoms = torch.from_numpy(np.array(coords)), len(coords)
        values, rows = [], []
        for kind, atoms in ((distances, self.bonds), (angles, self.angles), (dihedrals, self.dihedrals)):
            found = kind(positions, torch.from_numpy(atoms))
            wilson = np.zeros((len(atoms), n_atoms, 3))
            np.put_along_axis(wilson, np.repeat(atoms[:, :, None], 3, axis=2), found.rows.numpy(), axis=1)
            values.append(found.values.numpy())
            rows.append(wilson.reshape(len(atoms), 3 * n_atoms))
        return np.concatenate(values), np.concatenate(rows)

    def scales(self) -> FloatArray:
        """Return what each displacement is multiplied with: 1/unit, and 1/√n so that squares add up to a mean of each kind."""
        return np.concatenate(
            [np.full(len(atoms), 1.0 / (unit * np.sqrt(max(len(atoms), 1)))) for _, unit, atoms in self.units()]
        )

    def units(self) -> tuple[tuple[str, float, LongArray], ...]:
        """Return name, unit and atoms of each kind, in order."""
        return (("bond", _BOND, self.bonds), ("angle", _ANGLE, self.angles), ("dihedral", _DIHEDRAL, self.dihedrals))

    def difference(self, values: FloatArray, others: FloatArray) -> FloatArray:
        """Return values - others, dihedrals within half a turn."""
        result = values - others
        turns = slice(len(self.bonds) + len(self.angles), None)
        result[turns] = np.mod(result[turns] + np.pi, 2.0 * np.pi) - np.pi
        return np.asarray(result)

    def moved(self, difference: FloatArray) -> bool:
        """Tell whether a difference leads to another basin."""
        n_bonds, n_angles = len(self.bonds), len(self.angles)
        bends, turns = difference[n_bonds : n_bonds + n_angles], difference[n_bonds + n_angles :]
        return bool(np.abs(bends).max(initial=0.0) > _MOVED_ANGLE or np.abs(turns).max(initial=0.0) > _MOVED_DIHEDRAL)


@dataclass(frozen=True, eq=False)
class _OwnMinimum:
    """Where the force field relaxes to from a minimum of the labels: coordinates, Hessian, q(labels) - q, and Wilson rows of q."""

    coords: FloatArray
    hessian: FloatArray
    away: FloatArray
    wilson: FloatArray


@dataclass(frozen=True, eq=False)
class _Minimum:
    """Rows of one minimum, before they are divided by the number of minima."""

    frequencies: Rows
    displacements: Rows
    energy: Rows


@dataclass(frozen=True, eq=False)
class Compared:
    """A molecule without its minima.

    Attributes:
        conformers: as a potential needs it; its coordinates do not matter.
        masses: [g/mol], shape (n_atoms,).
        terms: atoms of bonds, angles and proper dihedrals that are compared, shapes (n, 2), (n, 3), (n, 4).
    """

    conformers: Conformers
    masses: FloatArray
    terms: tuple[LongArray, LongArray, LongArray]


class Landscape:
    """One molecule's minima and scans, ready to be turned into rows.

    Args:
        minima: of the molecule, with Hessians.
        scans: of the molecule, any number.
        features: of the molecule.
        molecule: its masses, and what is compared of it.

    Attributes:
        columns: the molecule's own parameters, shape (n_local,).
        start: the molecule at the minima of the labels.

    Raises:
        CoincidentAtomsError: where two atoms that interact are at the same place.
    """

    def __init__(
        self,
        minima: MoleculeMinima,
        scans: Sequence[TorsionScan],
        features: MoleculeFeatures,
        molecule: Compared,
    ) -> None:
        self.columns = features.columns
        self.start = replace(molecule.conformers, coords=torch.from_numpy(minima.record.coords.copy()))
        self._record, self._features, self._masses = minima.record, features, molecule.masses
        self._coordinates = _Coordinates(*molecule.terms)
        self._hessians = minima.hessians
        self._forces = np.zeros_like(minima.record.coords) if minima.record.forces is None else minima.record.forces
        self._modes = (
            []
            if minima.hessians is None
            else [normal_modes(h, c, molecule.masses) for h, c in zip(minima.hessians, minima.record.coords, strict=True)]
        )
        self._scans = self._scan_rows(scans)
        self._first = [self._at_labels(i) for i in range(minima.record.n_conformers)]
        self._values = [self._coordinates.evaluate(coords)[0] for coords in minima.record.coords]

    def first_round(self) -> dict[Kind, Rows]:
        """Return the rows at the geometries of the labels."""
        return self._together(self._first)

    def again(self, ended: Minimized, potential: Potential, x: FloatArray) -> tuple[dict[Kind, Rows], BoolArray]:
        """Return the rows at the minima of the force field that x stands for, and which minima it keeps.

        Args:
            ended: where the force field relaxes to from `start`.
            potential: with the parameters of x.
            x: of the molecule's own parameters, shape (n_local,).
        """
        values = [self._coordinates.evaluate(coords) for coords in ended.coords]
        away = [self._coordinates.difference(label, value) for label, (value, _) in zip(self._values, values, strict=True)]
        kept = ended.converged & np.array([not self._coordinates.moved(difference) for difference in away])
        rows = list(self._first)
        which = np.flatnonzero(kept & (self._hessians is not None))
        if len(which):
            there = replace(self.start, coords=torch.from_numpy(ended.coords[which].copy()))
            for i, hessian in zip(which.tolist(), hessians(potential, there), strict=True):
                rows[i] = self._at_own(i, _OwnMinimum(ended.coords[i], hessian, away[i], values[i][1]), x)
        return self._together(rows), kept

    def measures(self, rows: Mapping[Kind, Rows], x: FloatArray) -> dict[str, float]:
        """Return the mean square error by measure, in its unit (`MEASURES`), of what the molecule has; x as in `again`."""
        found: dict[str, float] = {}
        residuals = {kind: each.residuals(x) for kind, each in rows.items()}
        if len(residuals["frequencies"]):
            found["frequency"] = _FREQUENCY**2 * float(residuals["frequencies"] @ residuals["frequencies"])
            squares = residuals["displacements"].reshape(self._record.n_conformers, -1) ** 2
            start = 0
            for name, unit, atoms in self._coordinates.units():
                if len(atoms):
                    found[name] = unit**2 * float(squares[:, start : start + len(atoms)].sum())
                start += len(atoms)
        if self._record.n_conformers > 1:
            found["conformer_energy"] = float((residuals["conformers"] ** 2).mean())
        if len(residuals["scans"]):
            found["scan"] = float((residuals["scans"] ** 2).sum())
        return found

    def _lines(self, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return energies, shape (n_local + 1, n), and forces, (n_local + 1, n, 3 n_atoms), of features and, last, minus the start."""
        n = len(coords)
        chunks = list(self._features.rows(coords, np.zeros(n), np.zeros_like(coords)))
        energy = np.concatenate([chunk.energy for chunk in chunks], axis=1)
        forces = np.concatenate([chunk.forces for chunk in chunks], axis=3)
        return energy, np.moveaxis(forces, 3, 1).reshape(len(energy), n, -1)

    def _curvatures(self, coords: FloatArray, directions: FloatArray) -> FloatArray:
        """Return dᵀ ∂H/∂x d of features and, last, minus that of the start, shape (n_local + 1, n_directions)."""
        lengths = np.linalg.norm(directions.reshape(len(directions), -1), axis=1)
        unit = directions / lengths[:, None, None]
        _, forces = self._lines(np.concatenate([coords + _STEP * unit, coords - _STEP * unit]))
        n = len(directions)
        slope = (forces[:, n:] - forces[:, :n]) / (2.0 * _STEP)
        return np.asarray(np.einsum("pmi,mi->pm", slope, unit.reshape(n, -1)) * lengths**2)

    def _frequency_rows(self, label: FloatArray, lines: FloatArray, residual: FloatArray | None, x: FloatArray | None) -> Rows:
        """Scale rows of ω² to wavenumbers; `label` in cm⁻¹, `lines` of ω². Without a residual it follows from the last line."""
        compared = label > _LOWEST
        scale = wavenumber_squared() / (2.0 * np.maximum(label, _SOFTEST)) / _FREQUENCY
        features = (lines[:-1] * scale).T
        here = label**2 / wavenumber_squared() + lines[-1] if residual is None else residual
        targets = here * scale + (0.0 if x is None else features @ x)
        return Rows(features[compared], targets[compared])

    def _at_labels(self, i: int) -> _Minimum:
        coords = self._record.coords[i]
        energy, forces = self._lines(coords[None])
        energy[-1] += self._record.energy[i]
        n_local = len(self.columns)
        if self._hessians is None:  # nothing to fit frequencies and displacements to
            frequencies = Rows(np.zeros((0, n_local)), np.zeros(0))
            displacements = Rows(np.zeros((0, n_local)), np.zeros(0))
        else:
            modes = self._modes[i]
            frequencies = self._frequency_rows(modes.wavenumbers, self._curvatures(coords, modes.directions), None, None)
            _, wilson = self._coordinates.evaluate(coords)
            response = (self._coordinates.scales()[:, None] * wilson) @ _inverse(self._hessians[i])
            # The force field relaxes by H⁺ F(x); the last line is minus the start's forces, and F_ref is nearly 0.
            displacements = Rows(response @ forces[:-1, 0].T, response @ (forces[-1, 0] + self._forces[i].ravel()))
        return _Minimum(frequencies, displacements, Rows(energy[:-1].T, energy[-1]))

    def _at_own(self, i: int, own: _OwnMinimum, x: FloatArray) -> _Minimum:
        energy, forces = self._lines(own.coords[None])
        energy[-1] += self._record.energy[i]
        modes = normal_modes(own.hessian, own.coords, self._masses)
        label = self._modes[i].wavenumbers
        if len(label) == len(modes.wavenumbers):
            residual = (np.sign(label) * label**2 - np.sign(modes.wavenumbers) * modes.wavenumbers**2) / wavenumber_squared()
            frequencies = self._frequency_rows(label, self._curvatures(own.coords, modes.directions), residual, x)
        else:
            frequencies = self._first[i].frequencies
        scales = self._coordinates.scales()
        features = ((scales[:, None] * own.wilson) @ _inverse(own.hessian)) @ forces[:-1, 0].T
        displacements = Rows(features, scales * own.away + features @ x)
        return _Minimum(frequencies, displacements, Rows(energy[:-1].T, energy[-1]))

    def _together(self, minima: Sequence[_Minimum]) -> dict[Kind, Rows]:
        frequencies, displacements = (
            [getattr(minimum, name) for minimum in minima] for name in ("frequencies", "displacements")
        )
        n_modes = max(sum(len(rows.targets) for rows in frequencies), 1)
        energy = Rows(np.concatenate([m.energy.features for m in minima]), np.concatenate([m.energy.targets for m in minima]))
        return {
            "frequencies": _stacked(frequencies, 1.0 / np.sqrt(n_modes)),
            "displacements": _stacked(displacements, 1.0 / np.sqrt(len(minima))),
            "conformers": _centered(energy),
            "scans": self._scans,
        }

    def _scan_rows(self, scans: Sequence[TorsionScan]) -> Rows:
        found = []
        for scan in scans:
            near = scan.record.energy - scan.record.energy.min() < _SCAN_WINDOW
            energy, _ = self._lines(scan.record.coords[near])
            found.append(_centered(Rows(energy[:-1].T, energy[-1] + scan.record.energy[near])))
        n_points = max(sum(len(rows.targets) for rows in found), 1)
        empty = Rows(np.zeros((0, len(self.columns))), np.zeros(0))
        return _stacked([empty, *found], 1.0 / np.sqrt(n_points))


@dataclass(frozen=True, eq=False)
class PlacedLandscape:
    """A molecule's landscape in the data of a fit.

    Attributes:
        molecule: `dataset/id` of its row in `data/arrow`.
        split: train, validation or test.
        landscape: of the molecule.
    """

    molecule: str
    split: str
    landscape: Landscape


@dataclass(frozen=True, eq=False)
class LandscapeRows:
    """Rows of all molecules at one linearization.

    Attributes:
        members: the molecules.
        rows: of each.
        kept: which minima the force field keeps, of each.
        n_parameters: length of x.
    """

    members: Sequence[PlacedLandscape]
    rows: Sequence[Mapping[Kind, Rows]]
    kept: Sequence[BoolArray]
    n_parameters: int

    @property
    def n_lost(self) -> int:
        """Number of minima of the training set that the force field does not keep."""
        return sum(int((~k).sum()) for m, k in zip(self.members, self.kept, strict=True) if m.split == "train")

    def equations(self) -> dict[str, NormalEquations]:
        """Sum up the normal equations of each split, in the order of the molecules."""
        sums: dict[str, dict[str, Moments]] = {
            split: {kind: Moments.zeros(self.n_parameters) for kind in KINDS} for split in SPLITS
        }
        for member, rows in zip(self.members, self.rows, strict=True):
            for kind in KINDS:
                part = Moments.from_rows(rows[kind].features, rows[kind].targets)
                sums[member.split][kind] = sums[member.split][kind].add_at(member.landscape.columns, part)
        return {split: NormalEquations(kinds) for split, kinds in sums.items()}

    def gradients(self, weights: Mapping[str, float], x: FloatArray) -> dict[str, FloatArray]:
        """Return half the gradient of each training molecule's part of the objective, shape (n,) each."""
        found = {}
        for member, rows in zip(self.members, self.rows, strict=True):
            if member.split == "train":
                columns = member.landscape.columns
                gradient = np.zeros(self.n_parameters)
                for kind, each in rows.items():
                    gradient[columns] -= weights[kind] * (each.features.T @ each.residuals(x[columns]))
                found[member.molecule] = gradient
        return found

    def errors(self, x: FloatArray) -> dict[str, dict[str, float]]:
        """Return, by split, the root of the mean over molecules of their mean square errors, and counts."""
        result: dict[str, dict[str, float]] = {}
        for split in SPLITS:
            of_split = [
                (member.landscape.measures(rows, x[member.landscape.columns]), kept)
                for member, rows, kept in zip(self.members, self.rows, self.kept, strict=True)
                if member.split == split
            ]
            if of_split:
                counts = {"minima": sum(len(kept) for _, kept in of_split), "lost": sum(int((~k).sum()) for _, k in of_split)}
                result[split] = {"molecules": len(of_split), **counts}
            for name, (key, unit) in MEASURES.items():
                squares = [found[name] for found, _ in of_split if name in found]
                if squares:
                    result[split][key] = float(np.sqrt(np.mean(squares))) / unit
        return result


class LandscapeSet:
    """All molecules of a fit that have minima, relaxed and linearized together.

    Args:
        members: in an order that fixes the last bit of sums.
        n_parameters: length of x.
        potential: makes the potential that an x stands for.
    """

    def __init__(
        self, members: Sequence[PlacedLandscape], n_parameters: int, potential: Callable[[FloatArray], Potential]
    ) -> None:
        self.members = tuple(members)
        self._n_parameters, self._potential = n_parameters, potential

    def first(self) -> LandscapeRows:
        """Return the rows at the geometries of the labels."""
        rows = [member.landscape.first_round() for member in self.members]
        kept = [np.ones(len(member.landscape.start.coords), dtype=bool) for member in self.members]
        return LandscapeRows(self.members, rows, kept, self._n_parameters)

    def again(self, x: FloatArray) -> LandscapeRows:
        """Return the rows at the minima of the force field that x stands for; shape of x (n,)."""
        potential = self._potential(x)
        rows, kept = [], []
        for batch in _batches(self.members):
            starts = [member.landscape.start for member in batch]
            relaxed = minimize(potential, starts, max_force=_MAX_FORCE, max_steps=_MAX_STEPS)
            for member, ended in zip(batch, relaxed, strict=True):
                found = member.landscape.again(ended, potential, x[member.landscape.columns])
                rows.append(found[0])
                kept.append(found[1])
        return LandscapeRows(self.members, rows, kept, self._n_parameters)


def _batches(members: Sequence[PlacedLandscape]) -> Iterator[Sequence[PlacedLandscape]]:
    """Cut molecules into pieces of so many atoms that one evaluation costs more than its overhead."""
    batch: list[PlacedLandscape] = []
    n_atoms = 0
    for member in members:
        batch.append(member)
        n_atoms += int(np.prod(member.landscape.start.coords.shape[:2]))
        if n_atoms >= _BATCH_ATOMS:
            yield batch
            batch, n_atoms = [], 0
    if batch:
        yield batch


def landscape_weights(objective: Objective) -> dict[str, float]:
    """Return the weight of each kind of rows in the objective."""
    return {
        "frequencies": objective.frequency_weight,
        "displacements": objective.displacement_weight,
        "conformers": objective.conformer_energy_weight,
        "scans": objective.scan_weight,
    }


def wavenumber_squared() -> float:
    """Return the factor from ω² [kcal/mol/Å²/(g/mol)] to ν̄² [cm⁻²]."""
    return float(wavenumbers(np.ones(1))[0] ** 2)


def _inverse(hessian: FloatArray) -> FloatArray:
    """Return H⁺ without its six or five smallest eigenvalues, which are overall motion."""
    values, vectors = scipy.linalg.eigh(hessian)
    order = np.argsort(np.abs(values))
    kept = order[6:] if len(values) > 6 else order[5:]
    kept = kept[np.abs(values[kept]) > 1e-2]
    return np.asarray((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


def _stacked(parts: Sequence[Rows], scale: float) -> Rows:
    return Rows(np.concatenate([p.features for p in parts]) * scale, np.concatenate([p.targets for p in parts]) * scale)


def _centered(rows: Rows) -> Rows:
    return Rows(rows.features - rows.features.mean(axis=0), rows.targets - rows.targets.mean())
