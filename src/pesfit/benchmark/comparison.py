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
from rdkit import Chem
from rdkit.Chem import TorsionFingerprints

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import mapped_molecule, standard_masses
from pesfit.cluster.rmsd import all_pairs_rmsd
from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.interface import Conformers, Potential
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.vibrations import LOWEST_WAVENUMBER, hessians, normal_modes

MAX_FORCE = 0.05
"""kcal/mol/Å, on the atom that feels most, at which a relaxation has ended."""
SCAN_MAX_FORCE = 0.2
MAX_STEPS = 1000


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
        points: their numbers in the scan, shape (n_points,).
        angles: [rad] of the dihedrals that are held, shape (n_points, n_dihedrals).
        label, predicted: [kcal/mol] relative to the mean over the points that both have; NaN where the relaxation did not end, or broke a
            bond.
    """

    scan: str
    points: LongArray
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
        self.masses = standard_masses(minima.record.atomic_numbers)
        bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in self.mol.GetBonds()]
        geometry = np.concatenate([minima.record.coords, *(scan.record.coords for scan in self.scans)])[0]
        self.coordinates = BondGraphCoordinates.of(bonds, geometry)
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
    ended = minimize(potential, [conformers.at(record.coords)], max_force=MAX_FORCE, max_steps=max_steps)[0]
    geometry = _geometry(subject, ended.coords, ended.energy, ended.converged)
    found = []
    usable = np.flatnonzero(geometry.converged & geometry.intact)
    if subject.minima.hessians is not None and len(usable):
        own = hessians(potential, conformers.at(ended.coords[usable]))
        for minimum, hessian in zip(usable.tolist(), own, strict=True):
            label = normal_modes(subject.minima.hessians[minimum], record.coords[minimum], subject.masses).wavenumbers
            mine = normal_modes(hessian, ended.coords[minimum], subject.masses).wavenumbers
            if len(label) == len(mine):
                compared = label > LOWEST_WAVENUMBER
                found.append(Frequencies(minimum, label[compared], mine[compared]))
    if geometry.converged.any() or not len(geometry.converged):
        profiles = tuple(_profile(subject, scan, potential, conformers, max_steps) for scan in subject.scans)
    else:  # what cannot minimize the molecule cannot scan it, and trying takes long
        profiles = tuple(
            Profile(scan.record.id, scan.record.frame, scan.angles, scan.record.energy, np.full(len(scan.angles), np.nan))
            for scan in subject.scans
        )
    return Comparison(geometry, tuple(found), profiles)


def _geometry(subject: Subject, coords: FloatArray, energy: FloatArray, converged: BoolArray) -> RelaxedGeometry:
    start = subject.minima.record.coords
    coordinates = subject.coordinates
    differences = coordinates.differences(coordinates.evaluate(coords)[0], coordinates.evaluate(start)[0])
    bond, angle, dihedral = (_rms(differences[:, kind]) for kind in coordinates.kinds)
    intact = converged & subject.connectivity.holds(coords)
    rmsd = [all_pairs_rmsd(np.stack(pair)[:, subject.compared])[0, 1] for pair in zip(start, coords, strict=True)]
    return RelaxedGeometry(
        converged=converged,
        intact=intact,
        kept=intact & ~coordinates.moved(differences),
        bond=bond,
        angle=np.rad2deg(angle),
        dihedral=np.rad2deg(dihedral),
        rmsd=np.array(rmsd),
        tfd=_fingerprints(subject.mol, start, coords),
        energy=energy - energy[:1],
        label=subject.minima.record.energy - subject.minima.record.energy[:1],
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
    start = conformers.at(scan.record.coords)
    restraint = Restraint(scan.atoms, scan.angles)
    ended = minimize(potential, [start], max_force=SCAN_MAX_FORCE, max_steps=max_steps, restraints=[restraint])[0]
    fine = ended.converged & subject.connectivity.holds(ended.coords)
    predicted, label = np.where(fine, ended.energy, np.nan), scan.record.energy
    if fine.any():
        predicted, label = predicted - predicted[fine].mean(), label - label[fine].mean()
    return Profile(scan.record.id, scan.record.frame, scan.angles, label, predicted)
