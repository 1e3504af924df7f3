"""Minimization: minima of OpenMM, restraints, conformers that do not depend on each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from openmm import unit
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.core.units import HARTREE
from pesfit.models.open import open_model
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Batch, Conformers, Potential, Prediction
from pesfit.potentials.internal_coordinates import dihedrals
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.model import Model
from tests.openff_oracle import molecule

FORCE_FIELD = "openff_unconstrained-2.1.0.offxml"
BUTANE_DIHEDRAL = np.array([0, 1, 2, 3])


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(FORCE_FIELD, ["gasteiger"])


def conformers(model: Model, smiles: str, n: int) -> Conformers:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=7)
    coords = np.stack([conformer.GetPositions() for conformer in mol.GetConformers()])
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
    return model.prepare(numbers, mapped_smiles(mol), smiles).conformers(coords)


def test_it_ends_where_openmms_minimizer_ends(model: Model) -> None:
    oracle = molecule("CCCO", n_conformers=3)
    prepared = model.prepare(oracle.atomic_numbers.astype(np.int32), oracle.smiles, "propanol", oracle.charges)
    (found,) = minimize(model.potential, [prepared.conformers(oracle.coords)], max_force=0.01, max_steps=2000)
    assert found.converged.all()
    assert np.linalg.norm(found.forces, axis=-1).max() <= 0.01
    system = oracle.interchange.to_openmm_system(combine_nonbonded_forces=True)
    for start, energy in zip(oracle.coords, found.energy, strict=True):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(start * 0.1)
        openmm.LocalEnergyMinimizer.minimize(context, 1e-4)
        other = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilocalorie_per_mole)
        assert energy == pytest.approx(other, abs=1e-3)


def test_water_relaxes_to_the_published_energy_and_shape() -> None:
    start = torch.tensor([[[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [-0.1, 0.9, 0.0]]], dtype=torch.float64)
    (found,) = minimize(Gfn2Potential(), [Conformers(torch.tensor([8, 1, 1]), start)], max_force=1e-3, max_steps=100)
    # What xtb's own documentation prints for water at its GFN2 minimum.
    assert found.energy[0] / HARTREE == pytest.approx(-5.070544, abs=1e-6)
    lengths = np.linalg.norm(found.coords[0, 1:] - found.coords[0, 0], axis=1)
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-4)
    assert np.abs(found.forces).max() < 1e-3


class Wells(Potential):
    """½ (x - x_0)ᵀ H (x - x_0) of each conformer, with every position it was asked about."""

    def __init__(self, hessian: FloatArray, minimum: FloatArray) -> None:
        super().__init__()
        self._hessian, self._minimum = torch.from_numpy(hessian), torch.from_numpy(minimum)
        self.seen: list[FloatArray] = []

    def forward(self, batch: Batch) -> Prediction:
        self.seen.append(batch.coords.numpy().copy())
        away = batch.coords.reshape(batch.n_conformers, -1) - self._minimum.reshape(-1)
        pull = away @ self._hessian
        return Prediction(0.5 * (away * pull).sum(dim=1), -pull.reshape(-1, 3))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(5.0, 2000.0))
def test_it_finds_the_minimum_of_a_quadratic_in_steps_of_limited_length(seed: int, n_atoms: int, stiffest: float) -> None:
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(3 * n_atoms, 3 * n_atoms)))[0]
    minimum = random.normal(size=(n_atoms, 3))
    wells = Wells(axes @ np.diag(np.geomspace(5.0, stiffest, 3 * n_atoms)) @ axes.T, minimum)
    start = torch.from_numpy(minimum + random.normal(size=(1, n_atoms, 3)))
    numbers = torch.ones(n_atoms, dtype=torch.int64)
    (found,) = minimize(wells, [Conformers(numbers, start)], max_force=1e-4, max_steps=1000)
    np.testing.assert_allclose(found.coords[0], minimum, rtol=0, atol=1e-4)
    assert found.energy[0] == pytest.approx(0.0, abs=1e-6)
    steps = np.linalg.norm(np.diff(np.array(wells.seen), axis=0), axis=2)
    assert steps.max(initial=0.0) <= 0.2 + 1e-12


def test_a_restrained_dihedral_stays_and_its_restraint_is_not_in_the_energy(model: Model) -> None:
    start = conformers(model, "CCCC", 1)
    angles = np.deg2rad([-150.0, 0.0, 75.0])
    start = replace(start, coords=start.coords.repeat(3, 1, 1))
    restraint = Restraint(BUTANE_DIHEDRAL[None], angles[:, None])
    (found,) = minimize(model.potential, [start], max_force=0.05, max_steps=2000, restraints=[restraint])
    assert found.converged.all()
    values = dihedrals(torch.from_numpy(found.coords), torch.tensor(BUTANE_DIHEDRAL[None])).values[:, 0].numpy()
    assert np.abs(np.angle(np.exp(1j * (values - angles)))).max() < np.deg2rad(0.5)
    (again,) = minimize(model.potential, [start.at(found.coords)], max_force=1e9, max_steps=1)
    np.testing.assert_allclose(again.energy, found.energy, rtol=0, atol=1e-10)


def test_conformers_do_not_depend_on_each_other(model: Model) -> None:
    one, other = conformers(model, "CCO", 2), conformers(model, "CC(=O)N", 2)
    together = minimize(model.potential, [one, other], max_force=0.02, max_steps=500)
    apart = [minimize(model.potential, [each], max_force=0.02, max_steps=500)[0] for each in (one, other)]
    for mine, alone in zip(together, apart, strict=True):
        np.testing.assert_allclose(mine.coords, alone.coords, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(mine.converged, alone.converged)


def test_what_does_not_end_in_time_or_is_not_finite_has_not_converged(model: Model) -> None:
    start = conformers(model, "CCO", 2)
    (short,) = minimize(model.potential, [start], max_force=1e-6, max_steps=3)
    assert not short.converged.any()
    assert np.isfinite(short.energy).all()
    spoilt = start.coords.clone()
    spoilt[1, 0, 0] = torch.nan
    (found,) = minimize(model.potential, [replace(start, coords=spoilt)], max_force=0.05, max_steps=500)
    assert found.converged.tolist() == [True, False]


def test_angles_of_a_restraint_are_one_for_each_conformer(model: Model) -> None:
    start = conformers(model, "CCCC", 1)
    with pytest.raises(DataError, match=r"angles of shape \(2, 1\); expected \(1, 1\)"):
        minimize(
            model.potential,
            [start],
            max_force=1.0,
            max_steps=1,
            restraints=[Restraint(BUTANE_DIHEDRAL[None], np.zeros((2, 1)))],
        )
