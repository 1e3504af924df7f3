r"""Rows of minima and scans: curvatures, displacements, conformer energies and torsion profiles, as linear functions of the trained vector.

With features Φ of forces and energies (`smirnoff.features`: F(x) = F_0 + Φ x at fixed coordinates), and the Hessian H and the normal modes
l of the force field at its own minimum g,

| kind | row | unit of one |
| --- | --- | --- |
| `frequencies` | lᵀ ∂H/∂x l = -lᵀ (Φ(g + h l) - Φ(g - h l)) / (2h), for each normal mode l, by 2 max(ν̄, 150 cm⁻¹) | 50 cm⁻¹ |
| `displacements` | ∂q/∂x = B H⁺ Φ(g), q the bonds, angles and dihedrals, B their Wilson rows | 0.02 Å, 2°, 10° |
| `conformers` | ∂E/∂x(g) minus the mean over the molecule's minima (envelope theorem) | 1 kcal/mol |
| `scans` | ∂E/∂x at the geometries of the labels, minus the mean over the scan's points | 1 kcal/mol |

The first is first-order perturbation theory, modes paired with those of the labels in ascending order; the second is the implicit function
theorem. Both are exact in the limit of small steps alone, so they are linearized anew after each (`solve`). A minimum that the force field
does not keep (no end, or another basin) has no frequencies, and a displacement that does not depend on x: nothing is known of how to bring
it back. Each molecule counts with the mean square of each kind (its sum over minima for conformer energies), so that large molecules do
not dominate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.linalg

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.data.splits import SPLITS
from pesfit.params.fit_smirnoff import Objective
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.interface import Conformers, Potential
from pesfit.potentials.minimize import Minimized, minimize
from pesfit.potentials.vibrations import LOWEST_WAVENUMBER, hessians, normal_modes, wavenumbers
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.statistics.normal_equations import Moments, NormalEquations

Kind = Literal["frequencies", "displacements", "conformers", "scans"]
KINDS: tuple[Kind, ...] = ("frequencies", "displacements", "conformers", "scans")

_FREQUENCY, _SOFTEST = 50.0, 150.0
"""cm⁻¹: unit of a row, and the wavenumber below which rows are not stiffened further."""
_UNITS = {"bond": 0.02, "angle": np.deg2rad(2.0), "dihedral": np.deg2rad(10.0)}
"""Å or rad, of a displacement."""
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
_WAVENUMBER_SQUARED = float(wavenumbers(np.ones(1))[0] ** 2)
"""ν̄² [cm⁻²] at ω² of 1 kcal/mol/Å²/(g/mol)."""


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
        coordinates: that are compared.
    """

    conformers: Conformers
    masses: FloatArray
    coordinates: BondGraphCoordinates


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
        self.start = molecule.conformers.at(minima.record.coords)
        self._record, self._features, self._masses = minima.record, features, molecule.masses
        self._coordinates, self._scales = molecule.coordinates, _scales(molecule.coordinates)
        self._wavenumbers = (
            None
            if minima.hessians is None
            else [
                normal_modes(h, c, molecule.masses).wavenumbers
                for h, c in zip(minima.hessians, minima.record.coords, strict=True)
            ]
        )
        self._scans = self._scan_rows(scans)
        self._values, _ = self._coordinates.evaluate(minima.record.coords)

    def linearized(self, ended: Minimized, potential: Potential, x: FloatArray) -> tuple[dict[Kind, Rows], BoolArray]:
        """Return the rows at the minima of the force field that x stands for, and which minima it keeps.

        Args:
            ended: where the force field relaxes to from `start`.
            potential: with the parameters of x.
            x: of the molecule's own parameters, shape (n_local,).
        """
        values, wilson = self._coordinates.evaluate(ended.coords)
        away = self._coordinates.differences(self._values, values)
        kept = ended.converged & ~self._coordinates.moved(away)
        energy, forces = self._lines(ended.coords)
        energy[-1] += self._record.energy
        empty = Rows(np.zeros((0, len(x))), np.zeros(0))
        frequencies = [empty for _ in kept]
        displacements = [Rows(np.zeros((len(each), len(x))), self._scales * each) for each in away]
        which = np.flatnonzero(kept)
        found = hessians(potential, self.start.at(ended.coords[which])) if len(which) else ()
        for i, hessian in zip(which.tolist(), found, strict=True):
            if self._wavenumbers is not None:
                frequencies[i] = self._frequency_rows(self._wavenumbers[i], hessian, ended.coords[i], x)
            features = (self._scales[:, None] * wilson[i]) @ _inverse(hessian) @ forces[:-1, i].T
            displacements[i] = Rows(features, self._scales * away[i] + features @ x)
        n_modes = max(sum(len(rows.targets) for rows in frequencies), 1)
        rows: dict[Kind, Rows] = {
            "frequencies": _stacked([empty, *frequencies], 1.0 / np.sqrt(n_modes)),
            "displacements": _stacked([empty, *displacements], 1.0 / np.sqrt(max(len(kept), 1))),
            "conformers": _centered(Rows(energy[:-1].T, energy[-1])),
            "scans": self._scans,
        }
        return rows, kept

    def measures(self, rows: Mapping[Kind, Rows], x: FloatArray) -> dict[str, float]:
        """Return the mean square error by measure, in its unit (`MEASURES`), of what the molecule has; x as in `linearized`."""
        found: dict[str, float] = {}
        residuals = {kind: each.residuals(x) for kind, each in rows.items()}
        if len(residuals["frequencies"]):
            found["frequency"] = _FREQUENCY**2 * float(residuals["frequencies"] @ residuals["frequencies"])
        squares = residuals["displacements"].reshape(max(self._record.n_conformers, 1), -1) ** 2
        for (name, unit), kind in zip(_UNITS.items(), self._coordinates.kinds, strict=True):
            if squares.size and kind.stop > kind.start:
                found[name] = unit**2 * float(squares[:, kind].sum())
        if self._record.n_conformers > 1:
            found["conformer_energy"] = float((residuals["conformers"] ** 2).mean())
        if len(residuals["scans"]):
            found["scan"] = float((residuals["scans"] ** 2).sum())
        return found

    def _lines(self, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return energies, shape (n_local + 1, n), and forces, (n_local + 1, n, 3 n_atoms), of features and, last, minus the start."""
        n = len(coords)
        if not n:
            return np.zeros((len(self.columns) + 1, 0)), np.zeros((len(self.columns) + 1, 0, 0))
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

    def _frequency_rows(self, label: FloatArray, hessian: FloatArray, coords: FloatArray, x: FloatArray) -> Rows:
        """Return a row for each mode that the labels, wavenumbers of shape (n_modes,), have above `LOWEST_WAVENUMBER`."""
        modes = normal_modes(hessian, coords, self._masses)
        if len(label) != len(modes.wavenumbers):  # straight here and bent there
            return Rows(np.zeros((0, len(x))), np.zeros(0))
        compared = label > LOWEST_WAVENUMBER
        scale = (_WAVENUMBER_SQUARED / (2.0 * np.maximum(label, _SOFTEST)) / _FREQUENCY)[compared]
        slopes = self._curvatures(coords, modes.directions[compared])[:-1].T
        targets = (_square(label) - _square(modes.wavenumbers))[compared] + slopes @ x
        return Rows(slopes * scale[:, None], targets * scale)

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
        group: names the molecule in all data sets.
        split: train, validation or test.
        landscape: of the molecule.
    """

    group: str
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
    def lost(self) -> BoolArray:
        """Which minima of the training set the force field does not keep, in their order."""
        kept = [kept for member, kept in zip(self.members, self.kept, strict=True) if member.split == "train"]
        return ~np.concatenate([np.zeros(0, dtype=bool), *kept])

    @cached_property
    def _parts(self) -> Sequence[NormalEquations]:
        """Equations of each molecule over its own columns."""
        return [
            NormalEquations({kind: Moments.from_rows(rows[kind].features, rows[kind].targets) for kind in KINDS})
            for rows in self.rows
        ]

    def equations(self) -> dict[str, NormalEquations]:
        """Sum up the normal equations of each split, in the order of the molecules."""
        sums: dict[str, dict[str, Moments]] = {
            split: {kind: Moments.zeros(self.n_parameters) for kind in KINDS} for split in SPLITS
        }
        for member, parts in zip(self.members, self._parts, strict=True):
            for kind in KINDS:
                sums[member.split][kind] = sums[member.split][kind].add_at(member.landscape.columns, parts[kind])
        return {split: NormalEquations(kinds) for split, kinds in sums.items()}

    def training(self) -> Iterator[tuple[str, LongArray, NormalEquations]]:
        """Yield group, columns and equations over them of each molecule of the training set."""
        for member, parts in zip(self.members, self._parts, strict=True):
            if member.split == "train":
                yield member.group, member.landscape.columns, parts

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

    def linearized(self, x: FloatArray) -> LandscapeRows:
        """Return the rows at the minima of the force field that x stands for; shape of x (n,)."""
        potential = self._potential(x)
        rows, kept = [], []
        for batch in _batches(self.members):
            starts = [member.landscape.start for member in batch]
            relaxed = minimize(potential, starts, max_force=_MAX_FORCE, max_steps=_MAX_STEPS)
            for member, ended in zip(batch, relaxed, strict=True):
                found = member.landscape.linearized(ended, potential, x[member.landscape.columns])
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


def _square(label: FloatArray) -> FloatArray:
    """Return ω² [kcal/mol/Å²/(g/mol)] of wavenumbers [cm⁻¹], negative where they are."""
    return np.asarray(np.sign(label) * label**2 / _WAVENUMBER_SQUARED)


def _scales(coordinates: BondGraphCoordinates) -> FloatArray:
    """Return what each displacement is multiplied with: 1/unit, and 1/√n so that squares add up to a mean of each kind."""
    counts = (kind.stop - kind.start for kind in coordinates.kinds)
    return np.concatenate(
        [np.full(n, 1.0 / (unit * np.sqrt(max(n, 1)))) for unit, n in zip(_UNITS.values(), counts, strict=True)]
    )


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
    if not len(rows.targets):
        return rows
    return Rows(rows.features - rows.features.mean(axis=0), rows.targets - rows.targets.mean())
