"""Measures over molecules, of numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pesfit.benchmark import summary as keys
from pesfit.benchmark.comparison import Comparison, Frequencies, Profile, RelaxedGeometry
from pesfit.benchmark.summary import better_than_start, dde, in_range, measure, profile_error, summarize_molecules

POINTS = np.arange(6)
ANGLES = np.linspace(-np.pi, np.pi, 6, endpoint=False)[:, None]


def comparison(
    bond: list[float],
    *,
    energy: list[float] | None = None,
    failed: int | None = None,
    lost: int | None = None,
    error: float = 10.0,
) -> Comparison:
    n = len(bond)
    fine, kept = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    if failed is not None:
        fine[failed] = kept[failed] = False
    if lost is not None:
        kept[lost] = False
    values = np.array(bond)
    geometry = RelaxedGeometry(
        converged=fine, intact=fine, kept=kept, bond=values, angle=10 * values, dihedral=np.full(n, np.nan), rmsd=values, tfd=values,
        energy=np.zeros(n) if energy is None else np.array(energy), label=np.zeros(n),
    )  # fmt: skip
    label = np.array([400.0, 1000.0, 3000.0])
    modes = (Frequencies(0, label, label + np.array([-error, error, 4 * error])),)
    predicted = np.array([0.0, 1.0, 0.0, np.nan, 0.0, 1.0])
    return Comparison(geometry, modes, (Profile("scan", POINTS, ANGLES, np.zeros(6), predicted),))


def test_molecules_count_alike_whatever_their_number_of_minima() -> None:
    found = summarize_molecules([measure(comparison([3.0])), measure(comparison([1.0, 1.0, 1.0]))])
    assert found["molecules"] == 2
    assert found[keys.MINIMA] == 4
    assert found[keys.BOND] == pytest.approx(math.sqrt((9.0 + 1.0) / 2))
    assert found[keys.RMSD] == pytest.approx(2.0)
    assert found[keys.RMSD_MEDIAN] == pytest.approx(1.0)
    assert keys.DIHEDRAL not in found
    assert found[f"{keys.BOND}_interval_95"] is None


def test_pairs_count_alike_and_are_relative_to_the_lowest_minimum() -> None:
    one, other = comparison([0.1] * 3, energy=[0.0, 3.0, -1.0]), comparison([0.1, 0.1], energy=[0.0, 2.0])
    np.testing.assert_array_equal(dde(one), [np.nan, 3.0, -1.0])
    found = summarize_molecules([measure(one), measure(other)])
    assert found[keys.PAIRS] == 3
    assert found[keys.DDE_MAE] == pytest.approx(2.0)
    assert found[keys.DDE_RMSE] == pytest.approx(math.sqrt(14.0 / 3))


def test_what_fails_is_counted_and_left_out_and_what_leaves_its_basin_is_counted_and_kept() -> None:
    failed = measure(comparison([9.0, 1.0], energy=[5.0, 1.0], failed=0))
    assert failed.counts[keys.NOT_CONVERGED] == 1
    assert failed.counts[keys.LOST] == 0
    assert failed.counts[keys.PAIRS] == 0
    assert failed.values()[keys.RMSD] == 1.0
    lost = measure(comparison([9.0, 1.0], energy=[0.0, 1.0], lost=1))
    assert lost.counts[keys.LOST] == lost.counts[keys.PAIRS] == 1
    assert lost.values()[keys.RMSD] == 5.0


def test_frequencies_overall_and_by_range() -> None:
    found = summarize_molecules([measure(comparison([0.1], error=10.0)), measure(comparison([0.1], error=20.0))])
    assert found[keys.FREQUENCY_MAE] == pytest.approx(15.0 * 6 / 3)
    assert found[keys.FREQUENCY_BIAS] == pytest.approx(15.0 * 4 / 3)
    assert found[in_range(keys.FREQUENCY_BIAS, None, 500)] == pytest.approx(-15.0)
    assert found[in_range(keys.FREQUENCY_MAE, 2200, None)] == pytest.approx(60.0)
    assert in_range(keys.FREQUENCY_MAE, 500, 800) == "frequency_mae_500_800_per_cm"
    assert in_range(keys.FREQUENCY_MAE, 500, 800) not in found


def test_profiles_of_points_that_relaxed() -> None:
    found = summarize_molecules([measure(comparison([0.1]))])
    assert found[keys.POINTS_FAILED] == 1
    assert found[keys.PROFILE] == found[keys.PROFILE_MEDIAN] == pytest.approx(np.std([0, 1, 0, 0, 1]))
    assert found[keys.BARRIER] == pytest.approx(1.0)
    few = Profile("few", POINTS, ANGLES, np.zeros(6), np.array([1.0, 2.0, *[np.nan] * 4]))
    assert math.isnan(profile_error(few))


def test_scans_are_compared_with_the_start_at_the_points_of_both() -> None:
    label = np.zeros(6)
    start = Profile("a", POINTS, ANGLES, label, np.array([0.0, 9.0, 0.0, 1.0, 0.0, 1.0]))
    mine = Profile("a", POINTS[::2], ANGLES[::2], label[::2], np.array([0.0, 0.5, 0.0]))
    assert better_than_start([(mine, start)]) == (0, 1)  # at these points the start has no error
    worse = Profile("a", POINTS, ANGLES, label, np.array([0.0, -9.0, 0.0, 3.0, 0.0, 1.0]))
    assert better_than_start([(start, worse), (worse, start)]) == (1, 2)
    assert better_than_start([]) == (0, 0)


def test_intervals_are_over_molecules_where_there_are_enough() -> None:
    rng = np.random.default_rng(3)
    found = summarize_molecules([measure(comparison([float(value)])) for value in rng.uniform(1.0, 2.0, size=30)])
    low, high = found[f"{keys.RMSD}_interval_95"]
    assert low < found[keys.RMSD] < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 30), rel=0.3)
    assert found[f"{keys.DDE_RMSE}_interval_95"] if keys.DDE_RMSE in found else found[keys.PAIRS] == 0
