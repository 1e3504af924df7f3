"""Judgments of deviations against closed forms for Gaussians, and against counting pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from pesfit.core.arrays import FloatArray
from pesfit.statistics.resampling import Units
from pesfit.uncertainty.scores import (
    LEVELS,
    Sample,
    auroc,
    auroc_interval,
    binned,
    calibration_error,
    coverage,
    judge,
    nll_terms,
    rank_correlation,
)

N = 40_000


def each(n: int, repeats: int = 1) -> Units:
    """Units of resampling that are as many values each."""
    return Units("molecules", np.repeat(np.arange(n), repeats))


def drawn(n: int = N, spread: float = 0.7) -> tuple[FloatArray, FloatArray]:
    """Errors of deviations that are right."""
    rng = np.random.default_rng(8)
    deviations = np.exp(spread * rng.normal(size=n))
    return deviations * rng.normal(size=n), deviations


def test_likelihoods_are_scipys() -> None:
    errors, deviations = drawn(100)
    expected = -multivariate_normal.logpdf(errors, np.zeros(100), np.diag(deviations**2))
    assert nll_terms(errors, deviations).sum() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_coverage_of_gaussians_is_what_the_error_function_says(factor: float) -> None:
    errors, deviations = drawn()
    expected = 2.0 * norm.cdf(factor * norm.ppf(0.5 + LEVELS / 2.0)) - 1.0
    observed = coverage(errors, factor * deviations)
    np.testing.assert_allclose(observed, expected, atol=4 * np.sqrt(0.25 / N))
    assert calibration_error(observed) == pytest.approx(np.mean(np.abs(expected - LEVELS)), abs=4 * np.sqrt(0.25 / N))


def test_right_deviations_are_judged_right_and_better_than_one_number() -> None:
    """E NLL of right deviations is ½ log 2πe + E log σ, of the constant rms ½ log 2πe + log rms; E log σ = 0, rms = exp(spread²)."""
    errors, deviations = drawn()
    found = judge(Sample.of(errors, deviations, 2.0 * deviations, each(400, N // 400)))
    assert found is not None
    entropy = 0.5 * np.log(2.0 * np.pi * np.e)
    assert found.nll == pytest.approx(entropy, abs=0.02)
    assert found.nll_with_noise == pytest.approx(entropy + np.log(2.0) - 0.5 + 0.125, abs=0.02)
    assert found.nll_constant == pytest.approx(entropy + 0.7**2, abs=0.03)
    assert found.coverage_95 == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / N))
    assert found.ece < 0.01 < found.ece_with_noise
    assert found.curve == tuple(coverage(errors, deviations))
    assert found.nll_interval is not None
    half = 0.5 * (found.nll_interval.high - found.nll_interval.low)
    assert half == pytest.approx(1.96 * np.sqrt((0.5 + 0.7**2) / N), rel=0.2)  # var of ½ z² is ½, of log σ spread²
    assert found.nll_interval.low < found.nll < found.nll_interval.high


def test_units_that_are_alike_make_intervals_wider() -> None:
    errors, deviations = drawn(400)
    once = Sample.of(errors, deviations, deviations, each(400))
    again = Sample.of(*(np.repeat(values, 25) for values in (errors, deviations, deviations)), each(400, 25))
    by_unit, apart = judge(once), judge(again)
    assert by_unit is not None
    assert apart is not None
    assert apart.nll_interval == pytest.approx(by_unit.nll_interval, rel=1e-9)


def test_what_cannot_be_judged_is_left_out() -> None:
    nothing = np.zeros(0)
    assert judge(Sample(nothing, nothing, nothing, None)) is None
    zeros = np.zeros(3)
    assert judge(Sample.of(zeros, np.ones(3), np.ones(3), each(3))) is None
    one = Sample.of(np.array([1.0, 5.0, np.nan]), np.array([2.0, 0.0, 1.0]), np.ones(3), None)
    found = judge(one)
    assert found is not None
    assert (found.n_values, found.rmse, found.nll_interval, found.rank_correlation) == (1, 1.0, None, None)


def test_rank_correlation_is_that_of_mean_ranks() -> None:
    errors, deviations = np.array([-3.0, 1.0, 2.0, 2.0, -5.0]), np.array([1.0, 1.0, 2.0, 4.0, 3.0])
    ranks = np.array([[4.0, 1.0, 2.5, 2.5, 5.0], [1.5, 1.5, 3.0, 5.0, 4.0]])
    assert rank_correlation(errors, deviations) == pytest.approx(np.corrcoef(ranks)[0, 1], rel=1e-12)
    assert rank_correlation(errors, np.ones(5)) is None


def test_bins_of_right_deviations_have_errors_as_large_as_these() -> None:
    errors, deviations = drawn()
    bins = binned(errors, deviations, 10)
    assert bins.n_values.tolist() == [4000] * 10
    np.testing.assert_allclose(bins.rmse, bins.std, rtol=4 / np.sqrt(2 * 4000))
    assert (np.diff(bins.std) > 0.0).all()
    assert bins.n_values @ bins.rmse**2 == pytest.approx((errors**2).sum())
    assert len(binned(errors[:30], deviations[:30]).rmse) == 1
    assert len(binned(np.zeros(0), np.zeros(0)).rmse) == 0


def test_auroc_counts_pairs_and_ties_half() -> None:
    rng = np.random.default_rng(2)
    inside, outside = rng.integers(0, 6, size=40).astype(float), rng.integers(2, 9, size=30).astype(float)
    pairs = [1.0 if b > a else 0.5 if a == b else 0.0 for a, b in itertools.product(inside, outside)]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert auroc(outside, inside) == pytest.approx(1.0 - np.mean(pairs), rel=1e-12)
    assert auroc(np.ones(3), np.ones(4)) == 0.5
    assert auroc(np.zeros(3), np.ones(4)) == 1.0


def test_auroc_of_two_gaussians_and_its_interval() -> None:
    """P(s⁺ > s⁻) = Φ(d/√2); its variance over samples is that of the means of the two conditional probabilities."""
    rng = np.random.default_rng(5)
    inside, outside = rng.normal(size=600), rng.normal(loc=1.0, size=300)
    exact = norm.cdf(1.0 / np.sqrt(2.0))
    grid = rng.normal(size=100_000)
    variance = np.var(norm.cdf(1.0 - grid)) / 600 + np.var(norm.cdf(grid + 1.0)) / 300
    assert auroc(inside, outside) == pytest.approx(exact, abs=4 * np.sqrt(variance))
    found = auroc_interval(inside, outside, each(600), each(300))
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.2)
    assert found.low < auroc(inside, outside) < found.high
    assert auroc_interval(inside, outside, each(600), None) is None
