"""Checks that every row of every source passes on conversion: finite labels, bonds, and energies against forces.

Between two conformers a and b that are close to each other, with forces F = -dE/dx,

    E_b - E_a = -(F_a + F_b)/2 · (x_b - x_a) + O(|x_b - x_a|³)

since the midpoint terms of second order cancel. b is turned onto a first (Kabsch), forces with it, which changes no energy. Over many pairs
the slope of dE against w = -F·dx is then 1. It is -1 where gradients were taken for forces, the ratio of two units where one was not
converted, and there is no correlation where atoms or conformers were exchanged. Where no conformers are close to each other the forces
alone can be checked: a molecule in vacuum feels neither net force nor torque.

    symbol      variable
    w           work
    dE          rise
    Σ F_i       net_force
    Σ r_i∧F_i   torque (∧ is the cross product)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import Failure
from pesfit.core.units import BOHR, EV, HARTREE, KJ
from pesfit.data.dataset import Record

NEAR = 0.15
"""Å. Conformers count as close when the RMSD of all their atoms is below this; the terms left out are then a few per cent."""
MAX_CONFORMERS = 1000
"""Of a record with more, the first so many are looked at."""
_MIN_PAIRS = 5
_MIN_RISE = 0.1
"""kcal/mol. Root mean square of dE and of w below which the noise of a quantum-chemical program is too large a part of them."""
_MIN_CORRELATION = 0.9
"""For many pairs; 1/√n_pairs less for few."""
_MAX_LOG_SLOPE = 0.3
"""Largest |ln(slope)| for many pairs; 1/√n_pairs more for few."""
_TOO_LARGE = 1e15
"""In any of our units; larger numbers come from corrupted files, and their squares overflow."""
_MAX_UNBALANCED = 0.1
"""Largest net force (and torque) as a fraction of what forces of this size would add up to if they were independent."""
_FORCE_NOISE = 1.0
"""kcal/mol/Å. Net force that quantum chemistry on a grid leaves behind."""
_TORQUE_NOISE = 3.0
"""kcal/mol. The same for the torque."""
_WRONG_UNITS = {
    HARTREE: "forces are in hartree/Å, or energies were converted twice",
    1 / HARTREE: "energies are in hartree",
    BOHR: "coordinates are in bohr, or forces were converted twice",
    1 / BOHR: "forces are per bohr, or coordinates were converted twice",
    BOHR / HARTREE: "energies are in hartree and coordinates in bohr",
    HARTREE / BOHR: "forces are in hartree/bohr",
    EV: "forces are in eV/Å",
    1 / EV: "energies are in eV",
    KJ: "forces are in kJ/mol/Å",
    1 / KJ: "energies are in kJ/mol",
}
_STAGE = "convert"
_BLOCK = 100
"""Conformers whose interatomic distances are held at a time."""
_MAX_OTHER_BONDS = 0.5
"""Fraction of conformers with other bonds than those of the SMILES, above which the SMILES or the coordinates must be wrong."""


@dataclass(frozen=True)
class PhysicsCheck:
    """Sums over pairs and conformers; the sums of two sets are the sum of theirs.

    Attributes:
        n_pairs: pairs of near conformers.
        work2: [(kcal/mol)²] Σ w².
        work_rise: [(kcal/mol)²] Σ w dE.
        rise2: [(kcal/mol)²] Σ dE².
        n_conformers: conformers with forces.
        net_force2: [(kcal/mol/Å)²] Σ |Σ_i F_i|².
        force2: [(kcal/mol/Å)²] Σ Σ_i |F_i|², what `net_force2` would be if forces were independent.
        torque2: [(kcal/mol)²] Σ |Σ_i r_i ∧ F_i|², r from the center of the atoms.
        moment2: [(kcal/mol)²] Σ Σ_i |r_i ∧ F_i|².
    """

    n_pairs: int = 0
    work2: float = 0.0
    work_rise: float = 0.0
    rise2: float = 0.0
    n_conformers: int = 0
    net_force2: float = 0.0
    force2: float = 0.0
    torque2: float = 0.0
    moment2: float = 0.0

    def __add__(self, other: PhysicsCheck) -> PhysicsCheck:
        return PhysicsCheck(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def is_conclusive(self) -> bool:
        """Whether there are enough near conformers, different enough in energy, to judge slope and correlation."""
        return self.n_pairs >= _MIN_PAIRS and max(self.work2, self.rise2) >= self.n_pairs * _MIN_RISE**2

    @property
    def slope(self) -> float | None:
        """Slope of dE against -F·dx; 1 where all is well, None where there is no pair."""
        return self.work_rise / self.work2 if self.work2 > 0.0 else None

    @property
    def correlation(self) -> float | None:
        """Correlation of dE with -F·dx about 0 (which conformer of a pair comes first is arbitrary)."""
        product = self.work2 * self.rise2
        return self.work_rise / math.sqrt(product) if product > 0.0 else None

    @property
    def net_force_rms(self) -> float:
        """Root mean square net force, [kcal/mol/Å]."""
        return math.sqrt(self.net_force2 / max(self.n_conformers, 1))

    @property
    def torque_rms(self) -> float:
        """Root mean square net torque, [kcal/mol]."""
        return math.sqrt(self.torque2 / max(self.n_conformers, 1))

    @property
    def problem(self) -> str | None:
        """Description of an error, as part of a sentence; None where there is none."""
        if not math.isfinite(self.work2 + self.rise2 + self.net_force2 + self.torque2 + self.moment2):
            return "coordinates, energies or forces are too large to be those of a molecule"
        return self._unbalanced() or (self._wrong_work() if self.is_conclusive else None)

    def metrics(self) -> dict[str, str | int | float | None]:
        """Figures for a stage's metrics, without the digits that differ from one processor to another."""
        return {
            "energy_against_forces": "passed" if self.is_conclusive else "not checked: too few near conformers",
            "near_pairs": self.n_pairs,
            "slope": None if self.slope is None else round(self.slope, 4),
            "correlation": None if self.correlation is None else round(self.correlation, 4),
            "net_force_rms_kcal_per_mol_per_angstrom": round(self.net_force_rms, 6),
            "torque_rms_kcal_per_mol": round(self.torque_rms, 6),
        }

    def _wrong_work(self) -> str | None:
        slope, correlation = self.slope, self.correlation
        if slope is None or correlation is None:
            return f"over {self.n_pairs} pairs of near conformers either energies or forces never change"
        found = f"over {self.n_pairs} pairs of near conformers dE = {slope:.3g} · (-F·dx), correlation {correlation:.3f}"
        chance = 1.0 / math.sqrt(self.n_pairs)
        if correlation < chance - _MIN_CORRELATION:
            return f"forces have the wrong sign (are they gradients?): {found}"
        if correlation < _MIN_CORRELATION - chance:
            return f"energies and forces do not belong together (atoms or conformers in another order?): {found}"
        if abs(math.log(slope)) > _MAX_LOG_SLOPE + chance:
            ratio, meaning = min(_WRONG_UNITS.items(), key=lambda item: abs(math.log(item[0] / slope)))
            guess = f" (a slope of {ratio:.3g} would mean that {meaning})" if abs(math.log(ratio / slope)) < 0.2 else ""
            return f"a unit is wrong: {found}{guess}"
        return None

    def _unbalanced(self) -> str | None:
        n = self.n_conformers
        for what, unit, rms, independent, noise in (
            ("net force", "kcal/mol/Å", self.net_force_rms, self.force2, _FORCE_NOISE),
            ("net torque", "kcal/mol", self.torque_rms, self.moment2, _TORQUE_NOISE),
        ):
            if n and rms > noise + _MAX_UNBALANCED * math.sqrt(independent / n):
                return (
                    f"forces do not add up to nothing (atoms in another order, or axes exchanged?): the {what} is {rms:.3g} {unit}, where "
                    f"forces of this size at random would give {math.sqrt(independent / n):.3g}"
                )
        return None


@dataclass(frozen=True)
class Converted:
    """One row or entry of a source after conversion.

    Attributes:
        record: None where the entry failed or was left out.
        source: value of the record's `source` column, also where there is no record.
        failure: why there is no record, where that is a failure and not the filter.
        n_conformers_read: what the source held, before the filter.
        n_other_bonds: conformers kept in which a bond has broken or formed.
        physics: of the conformers kept.
    """

    record: Record | None
    source: str
    failure: Failure | None = None
    n_conformers_read: int = 0
    n_other_bonds: int = 0
    physics: PhysicsCheck = field(default_factory=PhysicsCheck)


def examined(record: Record, n_conformers_read: int | None = None) -> Converted:
    """Examine one record: finite labels, bonds, energies against forces.

    Args:
        record: as converted.
        n_conformers_read: what the source held; None where nothing was filtered.

    Returns:
        With the record, or with a failure where its bonds or its forces are clearly wrong.

    Raises:
        DataError: where a shape is wrong or a label is not finite.
    """
    record.validate()
    n_read = record.n_conformers if n_conformers_read is None else n_conformers_read
    physics = measure_physics(record)
    kind, problem = "PhysicsError", physics.problem
    n_other_bonds = _n_other_bonds(record)
    if n_other_bonds > _MAX_OTHER_BONDS * record.n_conformers:
        kind, problem = (
            "BondsError",
            (
                f"in {n_other_bonds} of {record.n_conformers} conformers distances are not those of the bonds of {record.smiles} "
                "(are atoms in another order, or coordinates in another unit?)"
            ),
        )
    if problem:
        return Converted(None, record.source, Failure(record.id, _STAGE, kind, problem), n_read, n_other_bonds, physics)
    return Converted(record, record.source, None, n_read, n_other_bonds, physics)


def failed(entry: str, source: str, error: Exception, n_conformers_read: int = 0) -> Converted:
    """Keep the exception that one molecule caused."""
    return Converted(None, source, Failure.from_exception(entry, _STAGE, error), n_conformers_read)


def _n_other_bonds(record: Record) -> int:
    if record.smiles is None:
        return 0
    connectivity = Connectivity(mapped_molecule(record.smiles))
    return sum(
        int((~connectivity.holds(record.coords[start : start + _BLOCK])).sum())
        for start in range(0, record.n_conformers, _BLOCK)
    )


def measure_physics(record: Record) -> PhysicsCheck:
    """Measure one record, judging nothing.

    Args:
        record: validated. Without forces there is nothing to measure.
    """
    if record.forces is None:
        return PhysicsCheck()
    if max(np.abs(values).max() for values in (record.coords, record.energy, record.forces)) > _TOO_LARGE:
        return PhysicsCheck(rise2=math.inf)
    coords = record.coords[:MAX_CONFORMERS] - record.coords[:MAX_CONFORMERS].mean(axis=1, keepdims=True)
    forces, energy = record.forces[:MAX_CONFORMERS], record.energy[:MAX_CONFORMERS]
    moments = np.cross(coords, forces)
    work, rise = _work_and_rise(coords, energy, forces)
    return PhysicsCheck(
        n_pairs=len(work),
        work2=float(work @ work),
        work_rise=float(work @ rise),
        rise2=float(rise @ rise),
        n_conformers=len(energy),
        net_force2=float((forces.sum(axis=1) ** 2).sum()),
        force2=float((forces**2).sum()),
        torque2=float((moments.sum(axis=1) ** 2).sum()),
        moment2=float((moments**2).sum()),
    )


def _work_and_rise(coords: FloatArray, energy: FloatArray, forces: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return -F·dx and dE, [kcal/mol], of each conformer and the one most like it, where they are near."""
    first, second = _nearest_pairs(coords)
    turn = _rotations(coords[second], coords[first])
    step = coords[second] @ turn - coords[first]
    near = np.sqrt((step**2).sum(axis=(1, 2)) / coords.shape[1]) <= NEAR
    midpoint_force = 0.5 * (forces[first] + forces[second] @ turn)
    work = -(midpoint_force * step).sum(axis=(1, 2))
    return work[near], (energy[second] - energy[first])[near]


def _nearest_pairs(coords: FloatArray) -> tuple[LongArray, LongArray]:
    """Return each conformer with the one most like it in all interatomic distances, every pair once."""
    if len(coords) < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    left, right = np.triu_indices(coords.shape[1], k=1)
    distances = np.empty((len(coords), len(left)))
    for conformer, row in zip(coords, distances, strict=True):  # one at a time: all at once would take seven times the memory
        row[:] = np.linalg.norm(conformer[left] - conformer[right], axis=-1)
    distances -= distances.mean(axis=0)
    squares = (distances**2).sum(axis=1)
    apart = squares[:, None] + squares[None, :] - 2.0 * distances @ distances.T
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    here = np.arange(len(coords))
    pairs = np.unique(np.stack([np.minimum(here, nearest), np.maximum(here, nearest)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _rotations(moving: FloatArray, fixed: FloatArray) -> FloatArray:
    """Return the rotations R, shape (n, 3, 3), that bring moving @ R closest to fixed (Kabsch, Acta Cryst. A32, 922, 1976).

    Args:
        moving: [Å], shape (n, n_atoms, 3), centered.
        fixed: [Å], the same.
    """
    left, _, right = np.linalg.svd(np.swapaxes(moving, 1, 2) @ fixed)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    rotations: FloatArray = left @ right
    return rotations
