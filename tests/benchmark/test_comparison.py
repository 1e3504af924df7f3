"""One potential on one molecule, against geometries, frequencies and profiles that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from scipy.spatial.transform import Rotation

from pesfit.benchmark.comparison import RelaxedGeometry, Subject, compare
from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.potentials.interface import Conformers, Potential
from tests.benchmark.samples import Well, force_field_and_molecule, landscape

BUTANE = "CCCC"


def chain(smiles: str) -> LongArray:
    """Return the four carbon atoms of butane, along the chain."""
    (found,) = mapped_molecule(smiles).GetSubstructMatches(Chem.MolFromSmarts("[CH3][CH2][CH2][CH3]"))
    return np.array(found, dtype=np.int64)


@pytest.fixture(scope="module", name="butane")
def _butane() -> tuple[Potential, Conformers, MoleculeMinima, tuple[TorsionScan, ...]]:
    potential, conformers, smiles = force_field_and_molecule(BUTANE)
    minima, scans = landscape(potential, conformers, smiles, chain(smiles))
    return potential, conformers, minima, scans


Butane = tuple[Potential, Conformers, MoleculeMinima, tuple[TorsionScan, ...]]


def at(butane: Butane, target: FloatArray) -> RelaxedGeometry:
    """Compare butane's minimum with a geometry."""
    _, conformers, minima, _ = butane
    return compare(Subject(replace(minima, hessians=None), ()), Well(target), conformers).geometry


def changed(butane: Butane, kind: str, value: float) -> FloatArray:
    """Return butane's minimum with one internal coordinate of its carbon chain changed by a value [Å or degree]."""
    minima = butane[2]
    assert minima.record.smiles is not None
    mol = Chem.Mol(mapped_molecule(minima.record.smiles))
    mol.RemoveAllConformers()
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(minima.record.coords[0].copy())
    mol.AddConformer(conformer)
    atoms = [int(atom) for atom in chain(minima.record.smiles)]
    conformer = mol.GetConformer()
    if kind == "bond":
        rdMolTransforms.SetBondLength(conformer, *atoms[1:3], rdMolTransforms.GetBondLength(conformer, *atoms[1:3]) + value)
    else:
        rdMolTransforms.SetDihedralDeg(conformer, *atoms, rdMolTransforms.GetDihedralDeg(conformer, *atoms) + value)
    return np.array(conformer.GetPositions())


def test_a_potential_returns_to_its_own_minima_with_its_own_frequencies_and_profiles(butane: Butane) -> None:
    potential, conformers, minima, scans = butane
    found = compare(Subject(minima, scans), potential, conformers)
    geometry = found.geometry
    assert geometry.converged.all()
    assert geometry.kept.all()
    for zero in (geometry.bond, geometry.rmsd, geometry.tfd, geometry.energy):
        np.testing.assert_allclose(zero, 0.0, atol=1e-3)
    (modes,) = found.frequencies
    assert len(modes.label) == 3 * minima.record.n_atoms - 6
    np.testing.assert_allclose(modes.predicted, modes.label, atol=0.5)
    (profile,) = found.profiles
    np.testing.assert_allclose(profile.predicted, profile.label, atol=0.02)


def test_a_stretched_bond_is_one_of_all_bonds(butane: Butane) -> None:
    geometry = at(butane, changed(butane, "bond", 0.05))
    n_bonds = butane[2].record.n_atoms - 1
    assert geometry.bond[0] == pytest.approx(0.05 / np.sqrt(n_bonds), rel=2e-3)
    assert geometry.angle[0] == pytest.approx(0.0, abs=0.01)
    assert geometry.dihedral[0] == pytest.approx(0.0, abs=0.02)
    assert geometry.tfd[0] == pytest.approx(0.0, abs=1e-4)
    assert geometry.kept[0]


@pytest.mark.parametrize(("turn", "kept"), [(30.0, True), (100.0, False)])
def test_a_turned_dihedral(butane: Butane, turn: float, kept: bool) -> None:
    """All nine dihedrals about the central bond turn alike; the fingerprint has this one torsion, scaled by 180°."""
    geometry = at(butane, changed(butane, "dihedral", turn))
    assert geometry.bond[0] == pytest.approx(0.0, abs=1e-4)
    assert geometry.dihedral[0] == pytest.approx(turn * np.sqrt(9 / 27), rel=2e-3)
    assert geometry.tfd[0] == pytest.approx(turn / 180.0, rel=5e-3)
    assert geometry.intact[0]
    assert geometry.kept[0] == kept


def test_rmsd_is_that_of_heavy_atoms_after_the_best_superposition(butane: Butane) -> None:
    rng = np.random.default_rng(1)
    start = butane[2].record.coords[0]
    target = (start + rng.normal(scale=0.05, size=start.shape)) @ Rotation.random(random_state=2).as_matrix().T + 0.5
    heavy = butane[2].record.atomic_numbers > 1
    one, other = (x[heavy] - x[heavy].mean(axis=0) for x in (start, target))
    _, sum_of_squares_root = Rotation.align_vectors(one, other)
    assert at(butane, target).rmsd[0] == pytest.approx(sum_of_squares_root / np.sqrt(heavy.sum()), rel=1e-2, abs=1e-4)


def test_a_broken_bond_and_a_minimization_that_does_not_end(butane: Butane) -> None:
    _, conformers, minima, _ = butane
    broken = at(butane, changed(butane, "bond", 2.0))
    assert broken.converged[0]
    assert not broken.intact[0]
    assert not broken.kept[0]
    potential = Well(changed(butane, "bond", 2.0))
    short = compare(Subject(replace(minima, hessians=None), ()), potential, conformers, max_steps=2).geometry
    assert not short.converged[0]
    assert not short.kept[0]


def test_scaled_hessians_scale_frequencies_by_the_root(butane: Butane) -> None:
    potential, conformers, minima, _ = butane
    assert minima.hessians is not None
    (modes,) = compare(Subject(replace(minima, hessians=1.21 * minima.hessians), ()), potential, conformers).frequencies
    np.testing.assert_allclose(modes.label, 1.1 * modes.predicted, rtol=2e-3, atol=0.5)


def test_a_profile_that_differs_by_a_known_torsion(butane: Butane) -> None:
    potential, conformers, minima, (scan,) = butane
    added = 2.0 * np.cos(3.0 * scan.angles[:, 0])
    other = replace(scan, record=replace(scan.record, energy=scan.record.energy - added + 7.0))
    (profile,) = compare(Subject(replace(minima, hessians=None), (other,)), potential, conformers).profiles
    np.testing.assert_allclose(profile.predicted - profile.label, added, atol=0.03)
