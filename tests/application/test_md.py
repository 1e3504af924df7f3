"""Dynamics of one molecule: energy, temperature, seeds, and an end with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.application.extxyz import Frame
from pesfit.application.geometries import embedded
from pesfit.application.md import ExplodedError, Run, Simulation
from pesfit.application.predict import predict
from pesfit.core.exceptions import DataError, ParamsError
from pesfit.core.units import ACCELERATION
from pesfit.models.open import open_model
from tests import openff_oracle


def total_energies(model: Path, run: Run) -> np.ndarray:
    frames = list(Simulation(open_model(model), embedded("CCO", "CCO", 0), run).frames())
    kinetic = [0.5 * (f.masses[:, None] * f.velocities**2).sum() / ACCELERATION for f in frames]  # type: ignore[index, operator]
    return np.array([f.energy + k for f, k in zip(frames, kinetic, strict=True)])


@pytest.mark.parametrize("which", ["smirnoff", "network"])
def test_energy_is_conserved_to_second_order(request: pytest.FixtureRequest, which: str) -> None:
    model = request.getfixturevalue(which)
    coarse = total_energies(model, Run(40, 0.5, 100.0, None, every=1))
    fine = total_energies(model, Run(80, 0.25, 100.0, None, every=2))
    assert len(coarse) == len(fine) == 41
    assert np.ptp(coarse) / np.ptp(fine) == pytest.approx(4.0, rel=0.3)


def test_frames_are_what_predict_says_of_them(smirnoff: Path) -> None:
    model, start = open_model(smirnoff), embedded("CCO", "CCO", 0)
    frames = list(Simulation(model, start, Run(25, every=10)).frames())
    assert [frame.info["step"] for frame in frames] == [0, 10, 20]
    assert frames[2].info["time_fs"] == 10.0
    np.testing.assert_array_equal(frames[0].coords, start.coords)
    assert start.smiles is not None
    geometries = [type(start)("", start.atomic_numbers, frame.coords, start.smiles) for frame in frames]
    for frame, expected in zip(frames, predict(model, geometries), strict=True):
        assert frame.energy == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(frame.forces, expected.forces, atol=1e-9)
        assert frame.deviations is not None
        assert expected.deviations is not None
        assert frame.deviations.relative_energy == pytest.approx(expected.deviations.relative_energy, abs=1e-9)
        np.testing.assert_allclose(frame.deviations.forces, expected.deviations.forces, atol=1e-9)


def test_same_seed_same_frames_and_the_thermostat_has_its_temperature() -> None:
    model, start = open_model(openff_oracle.FORCE_FIELD), embedded("CCO", "CCO", 0)

    def run(seed: int, n_steps: int = 50) -> list[bytes]:
        return [frame.coords.tobytes() for frame in Simulation(model, start, Run(n_steps, every=5, seed=seed)).frames()]

    assert run(1) == run(1)
    assert run(1)[1:] != run(2)[1:]
    hot = Run(3000, 0.5, 500.0, 50.0, every=1)
    kelvin = np.array([frame.info["temperature_kelvin"] for frame in Simulation(model, start, hot).frames()])
    assert kelvin[500:].mean() == pytest.approx(500.0, rel=0.15)


def test_a_molecule_that_flies_apart_is_stopped_and_named(smirnoff: Path) -> None:
    frames: list[Frame] = []
    simulation = Simulation(open_model(smirnoff), embedded("CCO", "CCO", 0), Run(2000, 12.0, every=1))
    with pytest.raises(ExplodedError, match=r"CCO: the molecule has flown apart by step \d+ .*try a shorter time step"):
        frames.extend(simulation.frames())
    assert frames
    assert all(np.isfinite(frame.forces).all() for frame in frames)


def test_bounds_and_starts_that_do_not_fit_are_named(smirnoff: Path, network: Path) -> None:
    for values, message in (
        ({"n_steps": 0}, "n_steps = 0; at least 1"),
        ({"n_steps": 1, "every": 0}, "every = 0; at least 1"),
        ({"n_steps": 1, "timestep_fs": 0.0}, "timestep_fs = 0.0; a number above 0"),
        ({"n_steps": 1, "timestep_fs": float("nan")}, "timestep_fs = nan"),
        ({"n_steps": 1, "temperature_kelvin": -1.0}, "temperature_kelvin = -1.0"),
        ({"n_steps": 1, "friction_per_ps": 0.0}, "friction_per_ps = 0.0"),
        ({"n_steps": 1, "seed": -1}, "seed = -1"),
    ):
        with pytest.raises(ParamsError, match=message):
            Run(**values)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not trained on N"):
        Simulation(open_model(network), embedded("CN", "CN", 0), Run(1))
