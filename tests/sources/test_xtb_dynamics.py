"""Relaxation and Langevin dynamics against analytic results."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.core.units import ACCELERATION, BOLTZMANN
from pesfit.potentials.gfn2 import EnergyAndForces, Gfn2
from pesfit.sources.xtb_dynamics import EnergyFunction, Langevin, find_minima


def harmonic(force_constant: float) -> EnergyFunction:
    """Each atom on a spring of its own, kcal/mol/Å², to the origin."""

    def energy_function(coords: FloatArray) -> EnergyAndForces:
        return EnergyAndForces(0.5 * force_constant * float((coords**2).sum()), -force_constant * coords)

    return energy_function


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
    (minimum,) = find_minima(Chem.AddHs(Chem.MolFromSmiles("N")), 1, 1, 0.1)
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
