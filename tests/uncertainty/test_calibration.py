"""The two corrections against what labels were drawn with, against a direct search, and as a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.uncertainty.calibration import CALIBRATION_FILE, CalibratedUncertainty, Calibration, Scale
from pesfit.uncertainty.standard_deviations import StandardDeviations

CALIBRATION = Calibration(Scale(2.0, 0.1, 7), Scale(3.0, 0.2, 6), Scale(5.0, 0.3, 90), 12.5)


def drawn(factor: float, noise: float, n: int = 20_000) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(4)
    deviations = np.exp(rng.normal(size=n))
    return rng.normal(size=n) * np.sqrt((factor * deviations) ** 2 + noise**2), deviations


@pytest.mark.parametrize("factor", [0.3, 1.0, 6.0])
def test_a_known_inflation_is_found_and_intervals_then_cover_at_the_nominal_rate(factor: float) -> None:
    errors, deviations = drawn(factor, 0.0)
    scale = Scale.fit(errors, deviations)
    assert scale.factor == pytest.approx(factor, rel=4 / np.sqrt(2 * len(errors)))  # its own standard error, four times
    assert scale.n_values == len(errors)
    other, _ = drawn(factor, 0.0, n=20_000)
    for level in (0.5, 0.9, 0.95):
        observed = np.mean(np.abs(other) < norm.ppf(0.5 + level / 2) * scale.factor * deviations)
        assert observed == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / len(other)))


@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_noise_beside_the_posterior_is_found_where_there_is_some(noise: float) -> None:
    errors, deviations = drawn(1.0, noise)
    assert Scale.fit(errors, deviations).noise == pytest.approx(noise, rel=0.05)
    errors, deviations = errors[:1000], deviations[:1000]
    tried = np.arange(0.01, 5.0, 0.01)
    direct = norm.logpdf(errors, scale=np.sqrt(deviations**2 + tried[:, None] ** 2)).sum(axis=1).argmax()
    assert Scale.fit(errors, deviations).noise == pytest.approx(tried[direct], abs=0.01)


def test_no_noise_is_found_where_deviations_are_wide_enough_already() -> None:
    errors, deviations = drawn(0.5, 0.0)
    assert Scale.fit(errors, deviations).noise == 0.0


def test_what_says_nothing_is_left_out_and_nothing_at_all_corrects_nothing() -> None:
    errors, deviations = np.array([2.0, 5.0, 1e-9, np.nan, 1.0]), np.array([1.0, 0.0, 1e-12, 1.0, np.inf])
    scale = Scale.fit(errors, deviations)
    assert (scale.factor, scale.n_values) == (2.0, 1)
    assert Scale.fit(np.zeros(0), np.zeros(0)) == Scale(1.0, 0.0, 0)
    assert Scale.fit(errors[3:], deviations[3:]) == Scale(1.0, 0.0, 0)
    assert Scale.fit(np.zeros(3), np.ones(3)) == Scale(0.0, 0.0, 3)


def posterior(coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
    assert reference is None
    return StandardDeviations(np.ones(1), np.full(1, 2.0), np.ones((1, *coords.shape[1:])))


def test_standard_deviations_are_multiplied_by_the_factors() -> None:
    found = CalibratedUncertainty(posterior, CALIBRATION)(np.zeros((1, 2, 3)))
    assert (found.energy[0], found.relative_energy[0], found.forces[0, 0, 0]) == (2.0, 6.0, 5.0)
    assert found.score[0] == pytest.approx(5.0 * np.sqrt(3.0))


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path) is None
    for calibration in (CALIBRATION, Calibration()):
        calibration.write(tmp_path)
        assert Calibration.read(tmp_path) == calibration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format version 2; this version reads 1"),
        ({"forces": {"factor": -1.0, "noise": 0.0, "n_values": 3}}, "-1.0 where a number of at least 0 is expected"),
        ({"forces": {"factor": "1", "noise": 0.0, "n_values": 3}}, "cannot be read as the calibration of a model"),
        ({"more": 1}, "ValueError: keys .*more"),
        ({"forces": {"factor": 1.0, "noise": 0.0}}, "forces has factor, noise"),
        ({"units": {}}, r"units \{\}"),
        ({"domain_threshold": float("nan")}, "nan where a number"),
    ],
)
def test_other_versions_and_damaged_files_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    CALIBRATION.write(tmp_path)
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(DataError, match=message):
        Calibration.read(tmp_path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text("{")
    with pytest.raises(DataError, match=r"calibration\.json cannot be read as the calibration of a model: JSONDecodeError"):
        Calibration.read(tmp_path)
