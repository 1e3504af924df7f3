"""Intervals against scipy's bootstrap and against what means scatter by, and the rule for what is resampled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from pesfit.core.arrays import FloatArray
from pesfit.statistics.resampling import MIN_UNITS, intervals, statistical_inefficiency, units_of
from tests.simulate.test_observables import autoregressive


def ratio(sums: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, :1] / sums[:, 1:]


def with_ones(values: FloatArray) -> FloatArray:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    (ours,) = intervals(with_ones(values), np.arange(60), ratio)
    method = {"method": "percentile", "n_resamples": 5000, "rng": np.random.default_rng(1)}
    theirs = bootstrap((values,), np.mean, **method).confidence_interval
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], rtol=0.03)
    assert (ours,) == tuple(intervals(with_ones(values), np.arange(60), ratio)), "the same draws every time"


def test_rows_of_a_unit_are_drawn_together() -> None:
    values, unit = np.random.default_rng(0).normal(size=60), np.random.default_rng(1).integers(0, 20, 60)
    summed = np.stack([np.bincount(unit, column) for column in with_ones(values).T], axis=1)
    assert intervals(with_ones(values), unit, ratio) == intervals(summed, np.arange(20), ratio)


def test_a_number_that_is_not_finite_in_a_resample_has_no_interval() -> None:
    assert intervals(np.eye(12)[:, :2], np.arange(12), ratio) == [None]


@pytest.mark.parametrize(("n_molecules", "kind"), [(MIN_UNITS, "molecules"), (MIN_UNITS - 1, None), (2, None), (1, "blocks")])
def test_molecules_are_resampled_or_blocks_of_a_single_one(n_molecules: int, kind: str | None) -> None:
    molecule = 7 + np.repeat(np.arange(n_molecules), 100)
    errors = np.random.default_rng(2).normal(size=(len(molecule), 2)) ** 2
    units = units_of(molecule, errors)
    assert (None if units is None else units.kind) == kind
    if units is not None and kind == "molecules":
        np.testing.assert_array_equal(units.number, molecule - 7)
    only_sums = units_of(molecule, None)
    assert (None if only_sums is None else only_sums.kind) == (kind if kind == "molecules" else None)


@pytest.mark.parametrize(("memory", "n"), [(0.0, 1000), (0.8, 8000), (0.95, 40000)])
def test_blocks_are_longer_than_the_correlation_time_and_intervals_as_wide_as_means_scatter(memory: float, n: int) -> None:
    """The mean of an AR(1) series of variance 1 has the variance (1 + a)/(1 - a)/n."""
    random = np.random.default_rng(4)
    inefficiency = (1.0 + memory) / (1.0 - memory)
    widths = []
    for _ in range(5):
        series = autoregressive(random, n, memory)
        units = units_of(np.zeros(n, dtype=np.int64), series[:, None])
        assert units is not None
        sizes = np.bincount(units.number)
        assert sizes.min() > 4.0 * inefficiency
        assert (np.diff(units.number) >= 0).all()
        (found,) = intervals(with_ones(series), units.number, ratio)
        assert found is not None
        widths.append((found.high - found.low) / np.std(series))
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(inefficiency / n), rel=0.15)


def test_a_trajectory_of_few_correlation_times_has_no_units() -> None:
    walk = np.cumsum(np.random.default_rng(5).normal(size=400))
    assert units_of(np.zeros(400, dtype=np.int64), walk[:, None] ** 2) is None
    assert units_of(np.zeros(0, dtype=np.int64), np.zeros((0, 2))) is None


@pytest.mark.parametrize("memory", [0.0, 0.8, 0.95])
def test_the_inefficiency_is_that_of_the_series(memory: float) -> None:
    random = np.random.default_rng(2)
    found = [statistical_inefficiency(autoregressive(random, 4000, memory)) for _ in range(20)]
    assert np.mean(found) == pytest.approx((1.0 + memory) / (1.0 - memory), rel=0.15)


def test_an_oscillation_counts_as_no_more_than_its_observations() -> None:
    assert statistical_inefficiency(np.cos(np.pi * np.arange(100))) == 1.0
    assert statistical_inefficiency(np.zeros(50)) == 1.0
