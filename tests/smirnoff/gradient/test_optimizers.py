"""Steps in a box, and what several processes say of failures."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pesfit.smirnoff.gradient.optimizers import in_order, minimize_in_box
from pesfit.statistics.quadratic import Constraints, minimize


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), condition=st.floats(0.0, 6.0))
@settings(max_examples=60)
@example(seed=8, n=8, condition=6.0)  # steps that became arbitrarily short
def test_box_minimum_is_that_of_the_interior_point_method(seed: int, n: int, condition: float) -> None:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    hessian = (q * np.geomspace(1.0, 10.0**condition, n)) @ q.T
    gradient = rng.normal(size=n) * 10.0 ** (0.5 * condition)
    lower, upper = -rng.uniform(0.01, 2.0, n), rng.uniform(0.01, 2.0, n)
    lower[rng.random(n) < 0.2], upper[rng.random(n) < 0.2] = -np.inf, np.inf
    d = minimize_in_box(hessian, gradient, lower, upper)
    assert ((d >= lower) & (d <= upper)).all()
    theirs = minimize(hessian, -gradient, Constraints.box(lower, upper)).x

    def value(x: np.ndarray) -> float:
        return float(gradient @ x + 0.5 * x @ hessian @ x)

    assert value(d) <= value(theirs) + 1e-6 * abs(value(theirs))


def test_rows_are_added_one_after_the_other() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 7)) * 10.0 ** np.random.default_rng(1).uniform(-8, 8, size=(300, 1))
    total = np.zeros(7)
    for row in rows:
        total = total + row
    np.testing.assert_array_equal(in_order(rows), total)
