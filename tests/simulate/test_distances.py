"""h(r) of frames made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from pesfit.simulate.distances import DistanceHistogram


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
    assert both.n_frames == 2
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
    assert alone.n_frames == 3
