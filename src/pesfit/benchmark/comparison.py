"""One molecule's minima and scans relaxed with one potential, and compared with those of the labeling method.

Measures of a minimum, q an internal coordinate of a term that the molecule's bonds define:

| measure | definition |
| --- | --- |
| bond, angle, dihedral | root mean square of q(potential) - q(labels) over bonds, angles, and proper dihedrals without straight angles |
| rmsd | root mean square distance of heavy atoms after superposition (of all atoms where there are fewer than 3 heavy ones) |
| tfd | torsion fingerprint deviation (T. Schulz-Gasch et al., J. Chem. Inf. Model. 52, 1499, 2012), by RDKit; NaN without rotatable bonds |
| kept | bonds are intact, no dihedral moved by more than 60°, no angle by more than 25°: the minimum is that of the same basin |
| ddE | E(potential) - E(labels), each relative to the molecule's lowest minimum of the labels |
| frequencies | wavenumbers in ascending order, paired in this order |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import TorsionFingerprints

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import mapped_molecule
from pesfit.cluster.rmsd import all_pairs_rmsd
from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.potentials.interface import Conformers, Potential
from pesfit.potentials.internal_coordinates import angles, dihedrals, distances
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.vibrations import hessians, normal_modes

MAX_FORCE = 0.05
"""kcal/mol/Å, on the atom that feels most, at which a relaxation has ended."""
SCAN_MAX_FORCE = 0.2
MAX_STEPS = 1000
STRAIGHT = np.deg2rad(165.0)
MOVED_DIHEDRAL, MOVED_ANGLE = np.deg2rad(60.0), np.deg2rad(25.0)
LOWEST_WAVENUMBER = 20.0
"""cm⁻¹. Modes below it, of internal rotors that hardly have a minimum, are not compared."""


@dataclass(frozen=True, eq=False)
class BondGraphCoordinates:
    """Internal coordinates of a molecule, from its bonds alone.

    Attributes:
        bonds, angles, dihedrals: atoms, shapes (n, 2), (n, 3), (n, 4).
    """

    bonds: LongArray
    angles: LongArray
    dihedrals: LongArray

    @classmethod
    def of(cls, mol: Chem.Mol, coords: FloatArray) -> BondGraphCoordinates:
        """List all bonds, angles, and proper dihedrals whose angles are not straight.

        Args:
            mol: with all atoms.
            coords: [Å], a geometry that tells straight angles, shape (n_atoms, 3).
        """
        neighbors = [sorted(n.GetIdx() for n in atom.GetNeighbors()) for atom in mol.GetAtoms()]
        bonds = [(a, b) for a in range(len(neighbors)) for b in neighbors[a] if a < b]
        trios = [(a, b, c) for b in range(len(neighbors)) for a in neighbors[b] for c in neighbors[b] if a < c]
        values = angles(torch.from_numpy(np.array(coords)), torch.tensor(trios).reshape(-1, 3)).values.numpy()
        bent = {trio for trio, value in zip(trios, values, strict=True) if value < STRAIGHT}
        quartets = [
            (a, b, c, d)
            for b, c in bonds
            for a in neighbors[b]
            for d in neighbors[c]
            if len({a, b, c, d}) == 4 and _key(a, b, c) in bent and _key(b, c, d) in bent
        ]
        shapes = ((bonds, 2), (trios, 3), (quartets, 4))
        return cls(*(np.array(atoms, dtype=np.int64).reshape(-1, n) for atoms, n in shapes))

    def values(self, coords: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return lengths [Å], angles and dihedrals [rad] of conformers, shapes (n_conformers, n) each."""
        positions = torch.from_numpy(np.array(coords))
        kinds = ((distances, self.bonds), (angles, self.angles), (dihedrals, self.dihedrals))
        lengths, bends, turns = (kind(positions, torch.from_numpy(atoms)).values.numpy() for kind, atoms in kinds)
        return lengths, bends, turns


def _key(a: int, b: int, c: int) -> tuple[int, int, int]:
    return (a, b, c) if a < c else (c, b, a)


@dataclass(frozen=True, eq=False)
class RelaxedGeometry:
    """Ends of relaxations from the minima of one molecule; arrays have one entry for each minimum.

    Attributes:
        converged: whether the relaxation ended.
        intact: whether the molecule's bonds are those it should have.
        kept: whether the basin is the one it started in.
        bond: [Å] root mean square difference of bond lengths.
        angle, dihedral: [degree] of angles, and of proper dihedrals.
        rmsd: [Å] of heavy atoms.
        tfd: torsion fingerprint deviation; NaN where there is no torsion.
        energy, label: [kcal/mol] relative to the first minimum, by the potential and by the labels.
    """

    converged: BoolArray
    intact: BoolArray
    kept: BoolArray
    bond: FloatArray
    angle: FloatArray
    dihedral: FloatArray
    rmsd: FloatArray
    tfd: FloatArray
    energy: FloatArray
    label: FloatArray


@dataclass(frozen=True, eq=False)
class Frequencies:
    """Wavenumbers of one minimum.

    Attributes:
        minimum: its position.
        label, predicted: [cm⁻¹], ascending, shape (n_modes,).
    """

    minimum: int
    label: FloatArray
    predicted: FloatArray


@dataclass(frozen=True, eq=False)
class Profile:
    """One relaxed torsion scan.

    Attributes:
        scan: its id.
        angles: [rad], shape (n_points,).
        label, predicted: [kcal/mol] relative to the mean over the points that both have; NaN where the relaxation did not end, or broke a
            bond.
    """

    scan: str
    angles: FloatArray
    label: FloatArray
    predicted: FloatArray


@dataclass(frozen=True, eq=False)
class Comparison:
    """All measures of one potential on one molecule."""

    geometry: RelaxedGeometry
    frequencies: tuple[Frequencies, ...]
    profiles: tuple[Profile, ...]


class Subject:
    """A molecule with its minima and scans, and what comparing them needs to know."""

    def __init__(self, minima: MoleculeMinima, scans: Sequence[TorsionScan]) -> None:
        self.minima, self.scans = minima, tuple(scans)
        if minima.record.smiles is None:
            raise MoleculeError(f"{minima.record.id} has no SMILES, which says which atoms are bonded")
        self.mol = mapped_molecule(minima.record.smiles)
        self.masses = np.array([atom.GetMass() for atom in self.mol.GetAtoms()])
        self.terms = BondGraphCoordinates.of(self.mol, minima.record.coords[0])
        self.connectivity = Connectivity(self.mol)
        heavy = np.flatnonzero(minima.record.atomic_numbers > 1)
        self.compared = heavy if len(heavy) >= 3 else np.arange(minima.record.n_atoms)


def compare(subject: Subject, potential: Potential, conformers: Conformers, *, max_steps: int = MAX_STEPS) -> Comparison:
    """Relax minima and scans of a molecule with a potential, and compare; scans only where any minimization ends.

    Args:
        subject: the molecule.
        potential: what relaxes.
        conformers: the molecule as the potential needs it; its coordinates do not matter.
        max_steps: evaluations of each relaxation at most.

    Raises:
        PesfitError: where the potential cannot be asked about the molecule.
    """
    record = subject.minima.record
    ended = minimize(potential, [_at(conformers, record.coords)], max_force=MAX_FORCE, max_steps=max_steps)[0]
    geometry = _geometry(subject, ended.coords, ended.energy, ended.converged)
    found = []
    usable = np.flatnonzero(geometry.converged & geometry.intact)
    if subject.minima.hessians is not None and len(usable):
        own = hessians(potential, _at(conformers, ended.coords[usable]))
        for minimum, hessian in zip(usable.tolist(), own, strict=True):
            label = normal_modes(subject.minima.hessians[minimum], record.coords[minimum], subject.masses).wavenumbers
            mine = normal_modes(hessian, ended.coords[minimum], subject.masses).wavenumbers
            if len(label) == len(mine):
                compared = label > LOWEST_WAVENUMBER
                found.append(Frequencies(minimum, label[compared], mine[compared]))
    if geometry.converged.any():
        profiles = tuple(_profile(subject, scan, potential, conformers, max_steps) for scan in subject.scans)
    else:  # what cannot minimize the molecule cannot scan it, and trying takes long
        profiles = tuple(
            Profile(scan.record.id, scan.angles, scan.record.energy, np.full(len(scan.angles), np.nan))
            for scan in subject.scans
        )
    return Comparison(geometry, tuple(found), profiles)


def _at(conformers: Conformers, coords: FloatArray) -> Conformers:
    return Conformers(conformers.atomic_numbers, torch.from_numpy(np.array(coords)), conformers.terms, conformers.total_charge)


def _geometry(subject: Subject, coords: FloatArray, energy: FloatArray, converged: BoolArray) -> RelaxedGeometry:
    start = subject.minima.record.coords
    differences = [now - before for now, before in zip(subject.terms.values(coords), subject.terms.values(start), strict=True)]
    differences[2] = np.mod(differences[2] + np.pi, 2.0 * np.pi) - np.pi
    bond, angle, dihedral = (_rms(difference) for difference in differences)
    intact = converged & subject.connectivity.holds(coords)
    moved = [np.abs(difference).max(axis=1, initial=0.0) for difference in differences]
    rmsd = [all_pairs_rmsd(np.stack(pair)[:, subject.compared])[0, 1] for pair in zip(start, coords, strict=True)]
    return RelaxedGeometry(
        converged=converged,
        intact=intact,
        kept=intact & (moved[2] < MOVED_DIHEDRAL) & (moved[1] < MOVED_ANGLE),
        bond=bond,
        angle=np.rad2deg(angle),
        dihedral=np.rad2deg(dihedral),
        rmsd=np.array(rmsd),
        tfd=_fingerprints(subject.mol, start, coords),
        energy=energy - energy[0],
        label=subject.minima.record.energy - subject.minima.record.energy[0],
    )


def _rms(differences: FloatArray) -> FloatArray:
    if not differences.shape[1]:
        return np.full(len(differences), np.nan)
    return np.asarray(np.sqrt((differences**2).mean(axis=1)))


def _fingerprints(mol: Chem.Mol, start: FloatArray, end: FloatArray) -> FloatArray:
    def with_conformer(coords: FloatArray) -> Any:
        copy = Chem.Mol(mol)
        copy.RemoveAllConformers()
        conformer = Chem.Conformer(mol.GetNumAtoms())
        conformer.SetPositions(np.ascontiguousarray(coords))
        copy.AddConformer(conformer)
        return Chem.RemoveHs(copy)

    values, fingerprints = [], cast("Any", TorsionFingerprints)
    for before, after in zip(start, end, strict=True):
        try:
            values.append(float(fingerprints.GetTFDBetweenMolecules(with_conformer(before), with_conformer(after))))
        except (IndexError, ZeroDivisionError, ValueError):  # RDKit finds no torsion to compare
            values.append(float("nan"))
    return np.array(values)


def _profile(subject: Subject, scan: TorsionScan, potential: Potential, conformers: Conformers, max_steps: int) -> Profile:
    start = _at(conformers, scan.record.coords)
    restraint = Restraint(scan.atoms, scan.angles)
    ended = minimize(potential, [start], max_force=SCAN_MAX_FORCE, max_steps=max_steps, restraints=[restraint])[0]
    fine = ended.converged & subject.connectivity.holds(ended.coords)
    predicted, label = np.where(fine, ended.energy, np.nan), scan.record.energy
    if fine.any():
        predicted, label = predicted - predicted[fine].mean(), label - label[fine].mean()
    return Profile(scan.record.id, scan.angles, label, predicted)
