"""Measures of trajectories made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.chemistry.smiles import standard_masses
from pesfit.core.exceptions import MoleculeError
from pesfit.core.units import BOLTZMANN
from pesfit.potentials.gfn2 import Gfn2
from pesfit.simulate.loop import Protocol, Trajectories
from pesfit.simulate.measures import MeasureSettings, force_error_over_time, gfn2_forces, measure, spread_frames, summarize
from pesfit.simulate.observables import DistanceHistogram
from pesfit.simulate.replicas import Replicas
from tests.sources.synthetic import make_frames

N_OBSERVATIONS, TIMESTEP, EVERY = 21, 0.5, 10
NVE = Protocol(TIMESTEP, 200, EVERY, 5)
NVT = Protocol(TIMESTEP, 200, EVERY, 5, 300.0, 10.0)


def two_atoms() -> Replicas:
    return Replicas("pair", np.array([1, 1], dtype=np.int32), np.array([1.008, 1.008]), np.zeros((3, 2, 3)))


def run(n_observed: tuple[int, ...], slopes: tuple[float, ...] = (0.0, 0.0, 0.0), distance: float = 1.0) -> Trajectories:
    """Replicas whose total energy is a line in time (slopes in kcal/mol/ps), with a given number of observations each."""
    step = np.arange(N_OBSERVATIONS, dtype=np.int32) * EVERY
    kept = np.arange(N_OBSERVATIONS) < np.array(n_observed)[:, None]
    kinetic = np.where(kept, 2.0 + np.sin(np.arange(N_OBSERVATIONS)), np.nan)
    potential = 100.0 + np.outer(slopes, step * TIMESTEP * 1e-3) - kinetic
    frame_step = step[::5]
    coords = np.zeros((3, 5, 2, 3))
    coords[:, :, 1, 0] = distance
    coords[~kept[:, ::5]] = np.nan
    stops = tuple(None if n == N_OBSERVATIONS else "bond" for n in n_observed)
    return Trajectories(
        "pair", step, potential, kinetic, stops, np.array(n_observed, dtype=np.int32), frame_step, coords, coords * 0.0
    )


def test_time_until_a_replica_was_stopped_and_the_share_that_was_not() -> None:
    measures = measure(run((21, 7, 0)), two_atoms(), NVE, MeasureSettings())
    assert measures.stable_fs == (100.0, 35.0, 0.0)
    summary = summarize([measures, measure(run((21, 21, 20)), two_atoms(), NVE, MeasureSettings())])
    assert summary["stable_fraction"] == 0.5
    assert summary["stable_time_ps"] == pytest.approx((100 + 35 + 0 + 100 + 100 + 100) / 6e3)
    assert summary["n_stopped"] == {"not_finite": 0, "bond": 3, "energy": 0}


def test_drift_is_per_atom_and_picosecond_and_leaves_out_what_was_too_short() -> None:
    measures = measure(run((21, 15, 7), (4.0, 8.0, 99.0)), two_atoms(), NVE, MeasureSettings())
    summary = summarize([measures])
    assert summary["n_replicas_with_drift"] == 2
    assert summary["drift_kcal_per_mol_per_ps_per_atom"] == pytest.approx(3.0)
    assert summary["drift_standard_error_kcal_per_mol_per_ps_per_atom"] == pytest.approx(1.0)
    assert summary["fluctuation_kcal_per_mol_per_atom"] == pytest.approx(0.0, abs=1e-9)
    assert measures.temperatures == ()


def test_the_temperature_leaves_out_equilibration_and_what_was_stopped_in_it() -> None:
    measures = measure(run((21, 15, 7)), two_atoms(), NVT, MeasureSettings(equilibration_fs=50.0))
    kinetic = 2.0 + np.sin(np.arange(10, 21))
    assert measures.temperatures == pytest.approx(
        [2.0 * energies.mean() / (6 * BOLTZMANN) for energies in (kinetic, kinetic[:5])]
    )
    assert measures.lines == ()
    summary = summarize([measures])
    assert summary["temperature_kelvin"] == pytest.approx(np.mean(measures.temperatures))
    assert "drift_kcal_per_mol_per_ps_per_atom" not in summary


def test_distances_are_compared_after_the_equilibration_and_before_the_stop() -> None:
    reference = DistanceHistogram(0.1)
    reference.add(np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]))
    same = measure(run((21, 15, 0)), two_atoms(), NVT, MeasureSettings(25.0, reference))
    other = measure(run((21, 15, 0), distance=1.5), two_atoms(), NVT, MeasureSettings(25.0, reference))
    assert (same.distances_mae, other.distances_mae) == pytest.approx((0.0, 2.0))
    nothing_left = measure(run((1, 0, 2)), two_atoms(), NVT, MeasureSettings(25.0, reference))
    assert nothing_left.distances_mae is None
    assert summarize([same, other, nothing_left])["distances_mae"] == pytest.approx(1.0)


def test_forces_are_compared_with_gfn2_where_frames_are_left() -> None:
    """A stretched hydrogen molecule pulls; the run says there are no forces."""
    measures = measure(run((21, 12, 0)), two_atoms(), NVE, MeasureSettings(label_frames=6))
    assert len(measures.force_errors) == 4
    assert np.ptp(measures.force_errors) < 1e-6
    assert 10.0 < measures.force_errors[0] < 100.0
    over_time = force_error_over_time(measures)
    assert [time for time, _ in over_time] == sorted({time * 1e-3 for time in measures.label_times_fs})
    assert measure(run((0, 0, 0)), two_atoms(), NVE, MeasureSettings(label_frames=6)).force_errors == ()


def test_frames_to_label_are_spread_over_replicas_and_time() -> None:
    assert spread_frames([100, 100], 4) == [(0, 25), (0, 75), (1, 25), (1, 75)]
    assert spread_frames([10, 10, 10], 4) == [(0, 2), (0, 7), (1, 5), (2, 5)]
    assert spread_frames([3, 0, 1], 30) == [(0, 0), (0, 1), (0, 2), (2, 0)]
    assert spread_frames([5], 0) == []


def molecule(smiles: str, total_charge: int = 0) -> Replicas:
    frames = make_frames(smiles, 2)
    return Replicas(
        smiles, frames.atomic_numbers, standard_masses(frames.atomic_numbers), frames.coords, total_charge=total_charge
    )


def test_forces_are_minus_the_slope_of_the_energy_and_nan_where_there_is_none() -> None:
    """Of the ion, whose charge must arrive."""
    ion = molecule("[OH-]", -1)
    coords = np.stack([ion.coords[0], np.full((2, 3), np.nan)])
    forces = gfn2_forces(ion, coords)
    assert np.isnan(forces[1]).all()
    method, step = Gfn2(ion.atomic_numbers, -1), 1e-3
    for atom in range(2):
        for axis in range(3):
            move = np.zeros((2, 3))
            move[atom, axis] = step
            rise = method.energy_and_forces(coords[0] + move).energy - method.energy_and_forces(coords[0] - move).energy
            assert forces[0, atom, axis] == pytest.approx(-rise / (2 * step), abs=2e-3)


def test_a_molecule_that_is_not_covered_is_refused() -> None:
    with pytest.raises(MoleculeError, match=r"cannot have 0 of them unpaired"):
        gfn2_forces(molecule("C", 1), molecule("C").coords)
