"""Distributions of distances of frames made by hand, and lines through series whose slope and noise are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist

from pesfit.simulate.observables import DistanceHistogram, Line, fit_line, mean_drift


def histogram(*frames: np.ndarray, bin_width: float = 0.1) -> DistanceHistogram:
    found = DistanceHistogram(bin_width)
    for frame in frames:
        found.add(frame)
    return found


def test_the_density_of_a_triangle() -> None:
    triangle = np.array([[[0.0, 0.0, 0.0], [3.05, 0.0, 0.0], [0.0, 4.05, 0.0]]])
    density = histogram(triangle).density
    expected = np.zeros(51)
    expected[[30, 40, 50]] = 10.0 / 3.0
    np.testing.assert_allclose(density, expected)


def test_the_difference_of_distributions_that_overlap_by_half() -> None:
    near, far = np.array([[[0.0, 0.0, 0.0], [1.05, 0.0, 0.0]]]), np.array([[[0.0, 0.0, 0.0], [2.05, 0.0, 0.0]]])
    both = histogram(near, far)
    assert both.difference(histogram(near)) == pytest.approx(1.0)
    assert histogram(near).difference(histogram(far)) == pytest.approx(2.0)
    assert histogram(far).difference(both) == pytest.approx(1.0)
    assert both.difference(both) == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 5), st.floats(0.02, 0.5))
def test_it_is_numpy_s_histogram_of_all_distances(seed: int, n_atoms: int, n_frames: int, bin_width: float) -> None:
    frames = np.random.default_rng(seed).normal(size=(n_frames, n_atoms, 3))
    density = histogram(frames[:1], frames[1:], bin_width=bin_width).density
    distances = np.concatenate([pdist(frame) for frame in frames])
    expected, _ = np.histogram(distances, bins=len(density), range=(0.0, len(density) * bin_width), density=True)
    assert density.sum() * bin_width == pytest.approx(1.0)
    # A distance on the edge of a bin may fall to either side of it.
    assert np.abs(density - expected).sum() * bin_width <= 2.0 * 2.0 / len(distances)


def test_one_atom_has_no_distances() -> None:
    alone = histogram(np.zeros((3, 1, 3)))
    assert alone.difference(histogram(np.zeros((1, 2, 3)))) is None


def autoregressive(random: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """A stationary series of variance 1 with autocorrelation memory**k."""
    noise = random.normal(size=n) * np.sqrt(1.0 - memory**2)
    values = np.empty(n)
    values[0] = random.normal()
    for i in range(1, n):
        values[i] = memory * values[i - 1] + noise[i]
    return values


def test_independent_noise_gives_the_textbook_line() -> None:
    random = np.random.default_rng(1)
    time = np.sort(random.uniform(0.0, 10.0, 400))
    values = 3.0 - 0.2 * time + random.normal(size=400)
    line, expected = fit_line(time, values), stats.linregress(time, values)
    assert line is not None
    assert line.slope == pytest.approx(expected.slope, rel=1e-12)
    assert line.standard_error == pytest.approx(expected.stderr, rel=0.15)
    assert line.fluctuation == pytest.approx(1.0, rel=0.1)


def test_errors_of_slopes_are_what_slopes_scatter_by_though_neighbors_are_alike() -> None:
    random = np.random.default_rng(3)
    time = np.arange(1000.0)
    lines = [fit_line(time, autoregressive(random, 1000, 0.9)) for _ in range(300)]
    scatter = np.std([line.slope for line in lines if line is not None])
    errors = [line.standard_error for line in lines if line is not None]
    assert np.mean(errors) == pytest.approx(scatter, rel=0.25)


def test_a_line_without_noise_has_no_error_and_few_points_have_no_line() -> None:
    time = np.arange(12.0)
    line = fit_line(time, 2.0 * time + 1.0)
    assert line is not None
    assert line.slope == pytest.approx(2.0)
    assert line.standard_error == pytest.approx(0.0, abs=1e-12)
    assert fit_line(time[:9], time[:9]) is None


def test_replicas_are_averaged_with_the_error_of_their_spread() -> None:
    lines = [Line(1.0, 9.0, 0.3), Line(3.0, 9.0, 0.4), Line(-1.0, 9.0, 0.0)]
    drift = mean_drift(lines)
    assert drift is not None
    assert drift.slope == 1.0
    assert drift.standard_error == pytest.approx(2.0 / np.sqrt(3.0))
    assert drift.magnitude == pytest.approx(5.0 / 3.0)
    assert drift.fluctuation == pytest.approx(np.sqrt(0.25 / 3.0))
    alone = mean_drift(lines[:1])
    assert alone is not None
    assert alone.standard_error == 9.0
    assert mean_drift([]) is None
