"""Dynamics of one molecule: energy, temperature, seeds, and an end with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.application.geometries import embedded
from pesfit.application.md import ExplodedError, MDFrame, run_md
from pesfit.application.predict import predict
from pesfit.core.exceptions import DataError
from pesfit.core.units import ACCELERATION
from pesfit.models.open import open_model
from pesfit.simulate.loop import Protocol
from tests import openff_oracle


def total_energies(model: Path, protocol: Protocol) -> np.ndarray:
    frames = list(run_md(open_model(model), embedded("CCO", "CCO", 0), protocol))
    kinetic = [0.5 * (f.masses[:, None] * f.velocities**2).sum() / ACCELERATION for f in frames]
    return np.array([f.state.energy + k for f, k in zip(frames, kinetic, strict=True)])


@pytest.mark.parametrize("which", ["smirnoff", "network"])
def test_energy_is_conserved_to_second_order(request: pytest.FixtureRequest, which: str) -> None:
    model = request.getfixturevalue(which)
    coarse = total_energies(model, Protocol(0.5, 40, 1, temperature_kelvin=100.0))
    fine = total_energies(model, Protocol(0.25, 80, 2, temperature_kelvin=100.0))
    assert len(coarse) == len(fine) == 41
    assert np.ptp(coarse) / np.ptp(fine) == pytest.approx(4.0, rel=0.3)


def test_frames_are_what_predict_says_of_them(smirnoff: Path) -> None:
    model, start = open_model(smirnoff), embedded("CCO", "CCO", 0)
    frames = list(run_md(model, start, Protocol(0.5, 25, 10, friction_per_ps=1.0)))
    assert [frame.step for frame in frames] == [0, 10, 20, 25]
    assert frames[2].time_fs == 10.0
    np.testing.assert_array_equal(frames[0].state.geometry.coords, start.coords)
    geometries = [frame.state.geometry for frame in frames]
    for frame, expected in zip(frames, predict(model, geometries), strict=True):
        assert frame.state.energy == pytest.approx(expected.energy, abs=1e-9)
        assert frame.state.relative_energy == pytest.approx(expected.relative_energy, abs=1e-9)
        np.testing.assert_allclose(frame.state.forces, expected.forces, atol=1e-9)
        assert frame.state.std is not None
        assert expected.std is not None
        assert frame.state.std.relative_energy == pytest.approx(expected.std.relative_energy, abs=1e-9)
        np.testing.assert_allclose(frame.state.std.forces, expected.std.forces, atol=1e-9)


def test_same_seed_same_frames_and_the_thermostat_has_its_temperature() -> None:
    model, start = open_model(openff_oracle.FORCE_FIELD), embedded("CCO", "CCO", 0)

    def run(seed: int, n_steps: int = 50) -> list[bytes]:
        protocol = Protocol(0.5, n_steps, 5, friction_per_ps=1.0, seed=seed)
        return [frame.state.geometry.coords.tobytes() for frame in run_md(model, start, protocol)]

    assert run(1) == run(1)
    assert run(1)[1:] != run(2)[1:]
    hot = Protocol(0.5, 3000, 1, temperature_kelvin=500.0, friction_per_ps=50.0)
    kelvin = np.array([frame.temperature_kelvin for frame in run_md(model, start, hot)])
    assert kelvin[500:].mean() == pytest.approx(500.0, rel=0.15)


def test_a_molecule_that_flies_apart_is_stopped_and_named(smirnoff: Path) -> None:
    frames: list[MDFrame] = []
    protocol = Protocol(12.0, 2000, friction_per_ps=1.0)
    with pytest.raises(ExplodedError, match=r"CCO: the molecule has flown apart by step \d+ .*try a shorter time step"):
        frames.extend(run_md(open_model(smirnoff), embedded("CCO", "CCO", 0), protocol))
    assert frames
    assert all(np.isfinite(frame.state.forces).all() for frame in frames)


def test_a_start_that_does_not_fit_is_named(network: Path) -> None:
    with pytest.raises(DataError, match="not trained on N"):
        next(run_md(open_model(network), embedded("CN", "CN", 0), Protocol(0.5, 1)))
