"""Harmonic vibrations: the diatomic's formula, ASE, and the Hessian by autograd."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.vibrations import VibrationsData

from pesfit.core import units
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Batch, Conformers, Potential, Prediction
from pesfit.potentials.minimize import minimize
from pesfit.potentials.vibrations import hessians, normal_modes, vibrational_basis, wavenumbers


class Spring(Potential):
    """½ k (r - 1.1)² between the two atoms of each conformer."""

    def forward(self, batch: Batch) -> Prediction:
        pairs = batch.coords.reshape(-1, 2, 3)
        delta = pairs[:, 1] - pairs[:, 0]
        length = torch.linalg.vector_norm(delta, dim=1)
        pull = 1000.0 * (length - 1.1)[:, None] * delta / length[:, None]
        return Prediction(500.0 * (length - 1.1) ** 2, torch.stack((pull, -pull), dim=1).reshape(-1, 3))


def test_a_diatomic_has_the_wavenumber_of_its_formula() -> None:
    coords = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]]])
    hessian = hessians(Spring(), Conformers(torch.tensor([6, 8]), torch.from_numpy(coords)))[0]
    masses = np.array([12.011, 15.999])
    modes = normal_modes(hessian, coords[0], masses)
    reduced = masses.prod() / masses.sum()
    expected = np.sqrt(1000.0 / reduced * units.ACCELERATION) / (2.0 * np.pi * 2.99792458e-5)
    np.testing.assert_allclose(modes.wavenumbers, [expected], rtol=1e-5)  # linear: five motions are rigid
    np.testing.assert_allclose(wavenumbers(np.array([-4.0, 4.0])).sum(), 0.0)


def test_water_as_ase_has_it() -> None:
    """ASE diagonalizes the same Hessian without projecting: at a minimum that is the same but for 1e-2 of the stiff modes."""
    start = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    water = Conformers(torch.tensor([8, 1, 1]), torch.from_numpy(start[None]))
    (found,) = minimize(Gfn2Potential(), [water], max_force=0.005, max_steps=200)
    assert found.converged.all()
    hessian = hessians(Gfn2Potential(), Conformers(water.atomic_numbers, torch.from_numpy(found.coords)))[0]
    np.testing.assert_array_equal(hessian, hessian.T)
    atoms = ase.Atoms("OH2", found.coords[0])
    theirs = VibrationsData.from_2d(atoms, hessian / units.EV).get_frequencies().real[-3:]
    ours = normal_modes(hessian, found.coords[0], atoms.get_masses()).wavenumbers
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_directions_diagonalize_the_hessian_and_are_no_rigid_motion() -> None:
    rng = np.random.default_rng(3)
    coords, masses = rng.normal(size=(4, 3)), np.array([12.0, 16.0, 1.0, 14.0])
    raw = rng.normal(size=(12, 12))
    hessian = raw @ raw.T
    modes = normal_modes(hessian, coords, masses)
    flat = modes.directions.reshape(6, 12)
    square = (2.0 * np.pi * 2.99792458e-5) ** 2 / units.ACCELERATION
    np.testing.assert_allclose(flat @ hessian @ flat.T, np.diag(modes.wavenumbers**2 * square), atol=1e-9)
    np.testing.assert_allclose((modes.directions * masses[:, None]).sum(axis=1), 0.0, atol=1e-12)
    assert vibrational_basis(coords, masses).shape == (12, 6)


def test_the_hessian_is_the_derivative_of_forces() -> None:
    generator = torch.Generator().manual_seed(1)
    coords = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.2, 1.2]]], dtype=torch.float64)
    coords += 0.01 * torch.rand(coords.shape, generator=generator, dtype=torch.float64)

    def energy(flat: torch.Tensor) -> torch.Tensor:
        return 500.0 * (torch.linalg.vector_norm(flat[3:] - flat[:3]) - 1.1) ** 2

    exact = torch.autograd.functional.hessian(energy, coords.reshape(-1))
    found = hessians(Spring(), Conformers(torch.tensor([6, 8]), coords))[0]
    np.testing.assert_allclose(found, exact.numpy(), rtol=0, atol=1e-3 * float(exact.abs().max()))
    assert found == pytest.approx(found.T)
