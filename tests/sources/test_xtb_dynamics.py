"""Relaxation and Langevin dynamics against analytic results."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.core.units import ACCELERATION, BOLTZMANN, HARTREE
from pesfit.potentials.gfn2 import EnergyAndForces, Gfn2
from pesfit.sources.xtb_dynamics import EnergyFunction, Langevin, relax


def harmonic(force_constant: float) -> EnergyFunction:
    """Each atom on a spring of its own, kcal/mol/Å², to the origin."""

    def energy_function(coords: FloatArray) -> EnergyAndForces:
        return EnergyAndForces(0.5 * force_constant * float((coords**2).sum()), -force_constant * coords)

    return energy_function


def test_water_relaxes_to_the_published_energy_and_shape() -> None:
    water = Gfn2(np.array([8, 1, 1], dtype=np.int32), 0)
    start = np.array([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [-0.1, 0.9, 0.0]])
    frame = relax(water.energy_and_forces, start, max_force=1e-3, max_steps=100)
    # What xtb's own documentation prints for water at its GFN2 minimum.
    assert frame.energy / HARTREE == pytest.approx(-5.070544, abs=1e-6)
    lengths = np.linalg.norm(frame.coords[1:] - frame.coords[0], axis=1)
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-4)
    assert np.abs(frame.forces).max() < 1e-3


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(5.0, 2000.0))
def test_relax_finds_the_minimum_of_a_quadratic(seed: int, n_atoms: int, stiffest: float) -> None:
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(3 * n_atoms, 3 * n_atoms)))[0]
    hessian = axes @ np.diag(np.geomspace(5.0, max(stiffest, 5.0), 3 * n_atoms)) @ axes.T
    minimum = random.normal(size=(n_atoms, 3))

    def energy_function(coords: FloatArray) -> EnergyAndForces:
        away = (coords - minimum).reshape(-1)
        return EnergyAndForces(float(0.5 * away @ hessian @ away), -(hessian @ away).reshape(-1, 3))

    frame = relax(energy_function, minimum + random.normal(size=(n_atoms, 3)), max_force=1e-4, max_steps=1000)
    np.testing.assert_allclose(frame.coords, minimum, rtol=0, atol=1e-4)
    assert frame.energy == pytest.approx(0.0, abs=1e-6)


def test_no_step_of_the_relaxation_is_longer_than_it_may_be() -> None:
    seen: list[FloatArray] = []

    def energy_function(coords: FloatArray) -> EnergyAndForces:
        seen.append(coords)
        return harmonic(5000.0)(coords)

    relax(energy_function, np.array([[3.0, 0.0, 0.0], [0.1, 0.0, 0.0]]), max_force=1e-3, max_steps=200)
    steps = np.linalg.norm(np.diff(np.array(seen), axis=0), axis=2)
    assert steps.max() == pytest.approx(0.2)


def test_a_relaxation_that_does_not_end_is_an_error_that_says_where_it_stands() -> None:
    def slope(coords: FloatArray) -> EnergyAndForces:
        return EnergyAndForces(-5.0 * float(coords.sum()), np.full_like(coords, 5.0))

    with pytest.raises(MoleculeError, match=r"stopped after 7 steps at a force of 8\.7 kcal/mol/Å; converged is 0\.5"):
        relax(slope, np.zeros((2, 3)), max_force=0.5, max_steps=7)


@pytest.mark.parametrize("phase", [0.3, 1.0, 1.8])
def test_coordinates_in_a_harmonic_well_have_the_exact_variance_at_any_time_step(phase: float) -> None:
    """BAOAB's configurational distribution is exact here; velocity Verlet alone would be off by 1/(1 - (ωΔt)²/4), 5.3 at 1.8."""
    force_constant, temperature = 300.0, 500.0
    masses = np.repeat([1.008, 12.011, 35.45], 700)
    timestep = phase / np.sqrt(force_constant * ACCELERATION / masses.min())
    langevin = Langevin(masses, temperature, friction_per_ps=200.0, timestep_fs=float(timestep))
    frames = langevin.run(harmonic(force_constant), np.zeros((len(masses), 3)), np.random.default_rng(5))
    kept = np.array([frame.coords for frame in islice(frames, 300, 2100, 20)])
    for mass in (1.008, 12.011, 35.45):
        variance = float((kept[:, masses == mass] ** 2).mean())
        assert variance == pytest.approx(BOLTZMANN * temperature / force_constant, rel=0.02)


def test_a_free_particle_diffuses_as_einstein_says() -> None:
    mass, temperature, friction, timestep, n_steps = 10.0, 300.0, 50.0, 2.0, 1000
    langevin = Langevin(np.full(3000, mass), temperature, friction, timestep)
    frames = langevin.run(harmonic(0.0), np.zeros((3000, 3)), np.random.default_rng(1), heating=1.0)
    last = next(islice(frames, n_steps - 1, None))
    gamma, time = friction * 1e-3, n_steps * timestep
    expected = 2 * BOLTZMANN * temperature * ACCELERATION / mass / gamma * (time - (1 - np.exp(-gamma * time)) / gamma)
    assert float((last.coords**2).mean()) == pytest.approx(expected, rel=0.05)


def test_started_hot_at_the_minimum_the_energy_is_right_on_average_from_the_first_periods_on() -> None:
    force_constant, temperature = 300.0, 500.0
    langevin = Langevin(np.full(3000, 12.0), temperature, friction_per_ps=1.0, timestep_fs=1.0)
    period = 2 * np.pi / np.sqrt(force_constant * ACCELERATION / 12.0)
    frames = langevin.run(harmonic(force_constant), np.zeros((3000, 3)), np.random.default_rng(2))
    energies = [frame.energy for frame in islice(frames, round(3 * period))]
    assert np.mean(energies) / 9000 == pytest.approx(0.5 * BOLTZMANN * temperature, rel=0.05)


def test_without_friction_the_energy_is_conserved_on_gfn2() -> None:
    ammonia = Gfn2(np.array([7, 1, 1, 1], dtype=np.int32), 0)
    start = np.array([[0.0, 0.0, 0.1], [0.94, 0.0, -0.25], [-0.47, 0.81, -0.25], [-0.47, -0.81, -0.25]])
    minimum = relax(ammonia.energy_and_forces, start, max_force=0.1, max_steps=200)
    masses = np.array([14.007, 1.008, 1.008, 1.008])
    langevin = Langevin(masses, 500.0, friction_per_ps=1e-9, timestep_fs=0.25)
    frames = list(islice(langevin.run(ammonia.energy_and_forces, minimum.coords, np.random.default_rng(3)), 400))
    coords = np.array([frame.coords for frame in frames])
    velocities = (coords[2:] - coords[:-2]) / 0.5
    kinetic = 0.5 * (masses[:, None] * velocities**2).sum(axis=(1, 2)) / ACCELERATION
    total = kinetic + np.array([frame.energy for frame in frames])[1:-1]
    assert kinetic.std() > 1.0
    assert total.std() < 0.03 * kinetic.std()


def test_same_seed_same_bytes_another_seed_other_bytes() -> None:
    def last(seed: int) -> bytes:
        langevin = Langevin(np.array([1.0, 16.0]), 300.0, 10.0, 1.0)
        frames = langevin.run(harmonic(10.0), np.zeros((2, 3)), np.random.default_rng(seed))
        return next(islice(frames, 50, None)).coords.tobytes()

    assert last(1) == last(1)
    assert last(1) != last(2)
