"""Dynamics against what is known in closed form, against OpenMM, and against itself in other company."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from pesfit.core.exceptions import ParamsError
from pesfit.core.units import ACCELERATION, BOLTZMANN
from pesfit.painn.potential import PaiNNConfig, Variant, build_painn
from pesfit.params.train_learned import Network
from pesfit.potentials.integrators import verlet
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.simulate.loop import Protocol, Trajectories, simulate
from pesfit.simulate.replicas import RandomNumbers, Replicas, as_batch
from tests.simulate import samples

BUTANE, ACETAMIDE = "CCCC", "CC(=O)N"


def energy_error(run: Trajectories) -> float:
    """Root mean square fluctuation of the total energy, over replicas."""
    total = run.total_energy
    return float(np.sqrt(((total - total.mean(axis=1, keepdims=True)) ** 2).mean()))


def test_the_energy_error_shrinks_with_the_square_of_the_time_step() -> None:
    potential, molecules = samples.smirnoff(BUTANE, ACETAMIDE), samples.molecules(BUTANE, ACETAMIDE, n_replicas=8)
    steps = np.array([0.125, 0.25, 0.5, 1.0])
    errors = []
    for step in steps:
        protocol = Protocol(float(step), round(100 / step), temperature_kelvin=500.0, seed=1)
        errors.append([energy_error(run) for run in simulate(potential, molecules, protocol)])
    slopes = np.polyfit(np.log(steps), np.log(np.array(errors)), 1)[0]
    np.testing.assert_allclose(slopes, 2.0, atol=0.1)
    assert np.max(errors[0]) < 0.02


def test_only_a_network_whose_forces_are_a_gradient_conserves_energy_ever_better() -> None:
    """Random weights: what follows holds for any. Edges have a skin, so atoms that come and go at the cutoff are in it."""
    (ethanol,) = samples.molecules("CCO", n_replicas=2)
    ethanol = replace(ethanol, bonds=None, bond_lengths=None, terms=None)
    network = Network(n_features=16, n_interactions=2, n_rbf=10, cutoff_angstrom=3.0, precision="float64")
    steps, errors = np.array([0.25, 0.5, 1.0]), {}
    for variant in get_args(Variant):
        potential = build_painn(PaiNNConfig(variant, (1, 6, 8), network), scale=30.0, seed=3)
        protocols = (Protocol(float(step), round(60 / step), temperature_kelvin=500.0, seed=1) for step in steps)
        errors[variant] = [energy_error(simulate(potential, [ethanol], protocol)[0]) for protocol in protocols]
    assert np.polyfit(np.log(steps), np.log(errors["conservative"]), 1)[0] == pytest.approx(2.0, abs=0.15)
    assert np.polyfit(np.log(steps), np.log(errors["direct"]), 1)[0] == pytest.approx(0.0, abs=0.1)


def test_nve_agrees_with_openmm() -> None:
    """OpenMM's leapfrog keeps velocities half a step behind; positions are those of velocity Verlet."""
    (molecule,) = samples.molecules(ACETAMIDE, n_replicas=2)
    protocol = Protocol(0.5, 100, observe_every=100, temperature_kelvin=400.0, seed=3)
    (run,) = simulate(samples.smirnoff(ACETAMIDE), [molecule], protocol)
    velocities = RandomNumbers([molecule], 3).velocities(400.0, rigid_motion=False).reshape(2, -1, 3).numpy()
    system = samples.oracle(ACETAMIDE)[0].interchange.to_openmm_system(combine_nonbonded_forces=True)
    for atom, mass in enumerate(molecule.masses):
        system.setParticleMass(atom, mass)
    for replica in range(2):
        context = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(molecule.coords[replica] * 0.1)
        forces = context.getState(getForces=True).getForces(asNumpy=True)
        forces = forces.value_in_unit(unit.kilocalorie_per_mole / unit.angstrom)
        half_step_back = velocities[replica] - 0.25 * forces * ACCELERATION / molecule.masses[:, None]
        context.setVelocities(half_step_back * 100.0)  # Å/fs to nm/ps
        context.getIntegrator().step(100)
        expected = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        np.testing.assert_allclose(run.coords[replica, -1], expected, rtol=0, atol=2e-6)
        assert np.abs(expected - molecule.coords[replica]).max() > 0.05, "atoms that hardly move test nothing"


def test_velocity_verlet_runs_backwards_to_where_it_began() -> None:
    (molecule,) = samples.molecules(BUTANE, n_replicas=3)
    evaluate = samples.smirnoff(BUTANE).bind(as_batch([molecule]))
    step = verlet(np.tile(molecule.masses, 3), 0.5).converted(torch.from_numpy)
    start = torch.from_numpy(molecule.coords.reshape(-1, 3))
    velocities = RandomNumbers([molecule], 2).velocities(500.0, rigid_motion=False)
    coords, forces = start, evaluate(start).forces
    for direction in (1.0, -1.0):
        velocities = direction * velocities
        for _ in range(200):
            coords, velocities = step.move(coords, velocities, forces, None)
            forces = evaluate(coords).forces
            velocities = step.finish(velocities, forces)
        if direction == 1.0:
            assert float((coords - start).abs().max()) > 0.3, "atoms that hardly move test nothing"
    torch.testing.assert_close(coords, start, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("phase", [0.3, 1.2])
def test_langevin_keeps_the_exact_configurational_temperature_on_springs(phase: float) -> None:
    force_constant, temperature = 300.0, 500.0
    masses = np.repeat([1.008, 12.011, 35.45], 40)
    timestep = float(phase / np.sqrt(force_constant * ACCELERATION / masses.min()))
    molecule = replace(samples.free_atoms(30, tuple(masses)), coords=np.zeros((30, 120, 3)))
    protocol = Protocol(timestep, 1500, 20, 1, temperature, friction_per_ps=200.0, seed=4)
    (run,) = simulate(samples.Springs(force_constant), [molecule], protocol)
    for mass in (1.008, 12.011, 35.45):
        variance = float((run.coords[:, 15:, masses == mass] ** 2).mean())
        assert variance == pytest.approx(BOLTZMANN * temperature / force_constant, rel=0.03)


@pytest.mark.slow
def test_langevin_keeps_the_temperature_of_a_molecule() -> None:
    """Kinetic and configurational: ⟨|∇U|²⟩ = kT ⟨∇²U⟩ (Rugh, Phys. Rev. Lett. 78, 772, 1997)."""
    temperature = 400.0
    (molecule,) = samples.molecules(BUTANE, n_replicas=32)
    potential = samples.smirnoff(BUTANE)
    protocol = Protocol(0.5, 4000, 50, 1, temperature, friction_per_ps=20.0, seed=6)
    (run,) = simulate(potential, [molecule], protocol)
    assert run.stops == (None,) * 32
    kinetic = 2.0 * run.kinetic_energy[:, 20:].mean() / (3 * molecule.n_atoms * BOLTZMANN)
    assert kinetic == pytest.approx(temperature, rel=0.02)
    frames = run.coords[::4, 20::10].reshape(-1, molecule.n_atoms, 3)
    squares = (run.forces[::4, 20::10] ** 2).sum(axis=(2, 3)).mean()
    assert squares / (BOLTZMANN * laplacian(potential, molecule, frames)) == pytest.approx(temperature, rel=0.05)


def laplacian(potential: Potential, molecule: Replicas, frames: np.ndarray) -> float:
    """Mean trace of the Hessian by central differences of forces."""
    step = 1e-4
    directions = np.eye(3 * molecule.n_atoms).reshape(-1, molecule.n_atoms, 3)
    total = 0.0
    for frame in frames:
        moved = replace(molecule, coords=np.concatenate([frame + step * directions, frame - step * directions]))
        (run,) = simulate(potential, [moved], Protocol(1e-6, 1, temperature_kelvin=0.0, max_stretch=1e3, max_energy_change=1e6))
        ahead, behind = np.split(run.forces[:, 0], 2)
        total += float(((behind - ahead) * directions).sum()) / (2.0 * step)
    return total / len(frames)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    potential, molecules = samples.smirnoff(BUTANE, ACETAMIDE), samples.molecules(BUTANE, ACETAMIDE)
    for friction in (None, 10.0):
        protocol = Protocol(0.5, 60, 10, 2, 500.0, friction, seed=8)
        first, second = (simulate(potential, molecules, protocol) for _ in range(2))
        other = simulate(potential, molecules, replace(protocol, seed=9))
        for one, two, three in zip(first, second, other, strict=True):
            assert one.coords.tobytes() == two.coords.tobytes()
            assert one.total_energy.tobytes() == two.total_energy.tobytes()
            assert not np.allclose(one.coords[:, -1], three.coords[:, -1])
            assert np.array_equal(one.frame_step, [0, 20, 40, 60])


def test_a_replica_alone_goes_where_it_goes_in_company() -> None:
    smiles = (BUTANE, ACETAMIDE)
    potential, molecules = samples.smirnoff(*smiles), samples.molecules(*smiles, n_replicas=3)
    protocol = Protocol(0.5, 100, 50, 1, 500.0, 10.0, seed=8)
    together = simulate(potential, molecules, protocol)
    for molecule, run in zip(molecules, together, strict=True):
        alone = replace(molecule, coords=molecule.coords[:1])
        (run_alone,) = simulate(potential, [alone], protocol)
        np.testing.assert_allclose(run_alone.coords[0], run.coords[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(run_alone.total_energy[0], run.total_energy[0], rtol=0, atol=1e-8)


def test_a_block_of_random_numbers_may_have_any_length() -> None:
    molecules = samples.molecules(BUTANE, n_replicas=2)
    one, other = RandomNumbers(molecules, 1), RandomNumbers(molecules, 1)
    pieces = [one.normal(n_steps) for n_steps in (3, 1, 4)]
    assert torch.equal(torch.cat(pieces), other.normal(8))


@pytest.mark.parametrize(("push", "reason"), [(None, "not_finite"), (1e30, "energy")])
@pytest.mark.parametrize("friction", [None, 5.0])
def test_a_replica_that_explodes_is_stopped_and_the_others_do_not_notice(push, reason, friction) -> None:
    molecule = samples.free_atoms(n_replicas=6)
    coords = molecule.coords.copy()
    coords[2, 0] = [-1.6, 0.0, 0.0]  # swings to the other side, over the fuse
    bomb, protocol = samples.Bomb(push), Protocol(0.5, 200, 5, 1, 10.0, friction, seed=3)
    (run,) = simulate(bomb, [replace(molecule, coords=coords)], protocol)
    (calm,) = simulate(samples.Springs(100.0), [molecule], protocol)
    assert run.stops == (None, None, reason, None, None, None)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(run.coords[others], calm.coords[others])
    np.testing.assert_array_equal(run.total_energy[others], calm.total_energy[others])
    n_observed = int(run.n_observed[2])
    assert 1 < n_observed < 41
    assert np.isfinite(run.coords[2, :n_observed]).all()
    assert np.isnan(run.coords[2, n_observed:]).all()
    assert np.isnan(run.total_energy[2, n_observed:]).all()
    assert run.n_frames(2) == n_observed
    assert (run.n_observed[others] == 41).all()


def test_a_bond_that_breaks_stops_its_replica() -> None:
    masses, lengths = np.array([12.0, 12.0]), np.array([1.5])
    coords = np.zeros((3, 2, 3))
    coords[:, 1, 0] = 1.5
    molecule = Replicas("C2", np.array([6, 6], dtype=np.int32), masses, coords, None, 0, np.array([[0, 1]]), lengths)
    (run,) = simulate(samples.Springs(0.0), [molecule], Protocol(1.0, 4000, 10, 1, 300.0, seed=1, max_stretch=0.5))
    assert run.stops == ("bond",) * 3
    for replica in range(3):
        kept = run.n_observed[replica]
        stretch = np.abs(np.linalg.norm(run.coords[replica, :kept, 1] - run.coords[replica, :kept, 0], axis=1) - 1.5)
        assert stretch[-1] <= 0.5
        assert stretch[-1] + (stretch[-1] - stretch[-2]) > 0.5, "it was stopped at the first observation beyond"


def test_at_constant_energy_replicas_neither_drift_nor_turn() -> None:
    (molecule,) = samples.molecules(BUTANE, n_replicas=5)
    velocities = RandomNumbers([molecule], 1).velocities(300.0, rigid_motion=False).reshape(5, -1, 3).numpy()
    momenta = molecule.masses[:, None] * velocities
    np.testing.assert_allclose(momenta.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cross(molecule.coords, momenta).sum(axis=1), 0.0, atol=1e-11)


def test_velocities_have_the_temperature_of_what_can_move() -> None:
    (molecule,) = samples.molecules(BUTANE, n_replicas=800)
    for rigid_motion, n_free in ((True, 3 * molecule.n_atoms), (False, 3 * molecule.n_atoms - 6)):
        velocities = RandomNumbers([molecule], 1).velocities(300.0, rigid_motion=rigid_motion).reshape(800, -1, 3).numpy()
        kinetic = 0.5 * (molecule.masses[:, None] * velocities**2).sum(axis=(1, 2)).mean() / ACCELERATION
        assert kinetic == pytest.approx(0.5 * n_free * BOLTZMANN * 300.0, rel=0.02)


def test_atoms_that_start_at_one_place_are_refused_or_stopped_at_the_start() -> None:
    (molecule, other) = samples.molecules(BUTANE, ACETAMIDE, n_replicas=2)
    coords = molecule.coords.copy()
    coords[1, 0] = coords[1, 13]
    with pytest.raises(CoincidentAtomsError, match="same place"):
        simulate(
            samples.smirnoff(BUTANE, ACETAMIDE),
            [replace(molecule, coords=coords), replace(other, coords=other.coords[:1])],
            Protocol(0.5, 2),
        )
    runs = simulate(samples.smirnoff(BUTANE, ACETAMIDE), [replace(molecule, coords=coords), other], Protocol(0.5, 2))
    assert runs[0].stops == (None, "not_finite")
    assert runs[0].n_observed.tolist() == [3, 0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_steps": 0}, "n_steps = 0; at least 1"),
        ({"observe_every": 0}, "observe_every = 0; at least 1"),
        ({"timestep_fs": 0.0}, "timestep_fs = 0.0; a number above 0"),
        ({"timestep_fs": float("nan")}, "timestep_fs = nan"),
        ({"temperature_kelvin": -1.0}, "temperature_kelvin = -1.0"),
        ({"friction_per_ps": 0.0}, "friction_per_ps = 0.0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong, message) -> None:
    with pytest.raises(ParamsError, match=message):
        replace(Protocol(0.5, 1), **wrong)


def test_the_end_is_observed_though_the_steps_do_not_divide() -> None:
    (run,) = simulate(samples.Springs(10.0), [samples.free_atoms()], Protocol(0.5, 10, 4))
    assert run.step.tolist() == run.frame_step.tolist() == [0, 4, 8, 10]


def test_the_batch_is_evaluated_once_a_step() -> None:
    calls = []

    class Counted(samples.Springs):
        def forward(self, batch: Batch) -> Prediction:
            calls.append(1)
            return super().forward(batch)

    simulate(Counted(10.0), [samples.free_atoms()], Protocol(0.5, 20, 5))
    assert len(calls) == 21
