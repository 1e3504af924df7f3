"""Losses, their weights, and the centres that belong to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import huber

from pesfit.params.fit_smirnoff import Loss
from pesfit.smirnoff.gradient.losses import Rho, centres, losses

LENGTHS = np.concatenate([np.zeros(1), np.geomspace(1e-6, 1e4, 200)])
KINDS = [Loss(kind="l2"), Loss(kind="huber", energy_delta=0.7, force_delta=3.0), Loss(kind="l1")]


def test_huber_is_twice_that_of_scipy() -> None:
    np.testing.assert_allclose(Rho(0.7, 1.0).values(LENGTHS), 2.0 * huber(0.7, LENGTHS), rtol=1e-14)


def test_l1_is_the_length_but_for_its_rounded_tip() -> None:
    energy, _ = losses(Loss(kind="l1"))
    np.testing.assert_allclose(energy.values(LENGTHS[LENGTHS > 1e-3]), LENGTHS[LENGTHS > 1e-3] - 5e-4, rtol=1e-9)
    assert energy.values(np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("params", KINDS, ids=lambda p: p.kind)
def test_weights_are_half_the_slope_over_the_length(params: Loss) -> None:
    for rho in losses(params):
        lengths = np.geomspace(1e-4, 100.0, 50)
        step = 1e-6 * lengths
        slope = (rho.values(lengths + step) - rho.values(lengths - step)) / (2 * step)
        np.testing.assert_allclose(2 * lengths * rho.weights(lengths), slope, rtol=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), spread=st.floats(1e-6, 1e5),
    kind=st.sampled_from(KINDS),
)  # fmt: skip
@settings(max_examples=40)
def test_centres_are_where_the_loss_is_least(seed: int, sizes: list[int], spread: float, kind: Loss) -> None:
    rng = np.random.default_rng(seed)
    errors = spread * rng.standard_cauchy(sum(sizes))
    weights = rng.uniform(0.1, 2.0, sum(sizes)) * (rng.random(sum(sizes)) > 0.2)
    rho, _ = losses(kind)
    starts = np.cumsum(sizes) - np.array(sizes)
    found = centres(rho, errors, weights, starts, np.array(sizes))
    for start, size, centre in zip(starts, sizes, found, strict=True):
        part, w = errors[start : start + size], weights[start : start + size]

        def loss(c: float, part: np.ndarray = part, w: np.ndarray = w) -> float:
            return float(w @ rho.values(np.abs(part - c)))

        if not w.any():
            assert centre == 0.0
            continue
        best = minimize_scalar(loss, bounds=(part.min() - 1e-9, part.max() + 1e-9), method="bounded").fun
        assert loss(centre) <= min(best, *(loss(c) for c in part)) * (1 + 1e-9) + 1e-12
