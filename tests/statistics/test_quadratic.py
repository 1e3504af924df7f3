"""The bounded solve against scipy and against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from pesfit.core.exceptions import PesfitError
from pesfit.statistics.quadratic import Constraints, minimize


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), extra=st.integers(-6, 10))
@settings(deadline=None, max_examples=60)
def test_box_optimum_equals_scipy_also_when_rank_deficient(seed: int, n: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(max(1, n + extra), n)) * 10.0 ** rng.uniform(-2, 2, n)
    targets = rng.normal(size=len(rows))
    lower, upper = -rng.uniform(0, 1, n), rng.uniform(0.01, 1, n)
    upper[rng.random(n) < 0.3] = np.inf
    lower[rng.random(n) < 0.3] = -np.inf
    ours = minimize(rows.T @ rows, rows.T @ targets, Constraints.box(lower, upper))
    theirs = lsq_linear(rows, targets, (lower, upper), method="bvls", tol=1e-14, max_iter=1000)
    ours_cost, theirs_cost = (0.5 * np.sum((rows @ x - targets) ** 2) for x in (ours.x, theirs.x))
    assert ours.kkt.worst < 1e-8
    assert ours_cost <= theirs_cost + 1e-9 * (targets @ targets)
    assert (ours.x >= lower - 1e-9).all()
    assert (ours.x <= upper + 1e-9).all()


def test_general_inequalities_equal_exhaustive_search_over_active_sets() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        rows = rng.normal(size=(8, 4))
        hessian, linear = rows.T @ rows, rng.normal(size=4) * 5
        constraints = Constraints(rng.normal(size=(6, 4)), -rng.uniform(0.1, 1, 6))  # the origin is feasible
        best = np.inf
        for k in range(5):
            for chosen in itertools.combinations(range(6), k):
                c = constraints.matrix[list(chosen)]
                system = np.block([[hessian, -c.T], [c, np.zeros((k, k))]])
                x = np.linalg.solve(system, np.concatenate([linear, constraints.lower[list(chosen)]]))[:4]
                if (constraints.matrix @ x >= constraints.lower - 1e-9).all():
                    best = min(best, 0.5 * x @ hessian @ x - linear @ x)
        found = minimize(hessian, linear, constraints)
        assert 0.5 * found.x @ hessian @ found.x - linear @ found.x == pytest.approx(best, abs=1e-9)
        assert found.kkt.worst < 1e-9


def test_large_problem_with_many_active_bounds_meets_its_conditions() -> None:
    rng = np.random.default_rng(1)
    n = 400
    rows = rng.normal(size=(300, n)) * 10.0 ** rng.uniform(-1.5, 1.5, n)  # rank-deficient
    found = minimize(rows.T @ rows, rows.T @ rng.normal(size=300), Constraints.box(np.full(n, -1e-3), np.full(n, 1e-3)))
    assert found.active.sum() > 100
    assert found.kkt.worst < 1e-8


def test_directions_without_data_stay_at_the_start() -> None:
    found = minimize(np.diag([2.0, 0.0]), np.array([4.0, 0.0]), Constraints.none(2), start=np.array([0.5, 0.7]))
    np.testing.assert_allclose(found.x, [2.0, 0.7], rtol=1e-12)


def test_bounds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(PesfitError, match="bounds that exclude each other"):
        minimize(np.eye(1), np.zeros(1), Constraints(np.array([[1.0], [-1.0]]), np.array([1.0, 0.0])))
