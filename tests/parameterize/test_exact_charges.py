"""Sums of charges without rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.parameterize.errors import NonFiniteChargeError, NonIntegralMoleculeChargeError
from pesfit.parameterize.exact_charges import with_exact_sum


@settings(deadline=None)
@given(
    charges=st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=300),
    total=st.integers(-5, 5),
    deviation=st.floats(-0.0099, 0.0099),
    seed=st.integers(0, 100),
)
def test_sum_is_exact_in_any_order(charges: list[float], total: int, deviation: float, seed: int) -> None:
    given_charges = np.array(charges)
    given_charges += (total + deviation - given_charges.sum()) / len(charges)
    exact = with_exact_sum(given_charges, total)
    shuffled = np.random.default_rng(seed).permutation(exact)
    assert exact.sum() == shuffled.sum() == sum(shuffled.tolist()) == math.fsum(exact) == total
    assert np.abs(exact - given_charges).max() <= 0.01 / len(charges) + 3e-14


def test_what_is_exact_already_is_kept() -> None:
    np.testing.assert_allclose(with_exact_sum(np.array([0.417, -0.834, 0.417]), 0), [0.417, -0.834, 0.417], rtol=0, atol=2e-14)


def test_charges_of_another_ion_are_refused() -> None:
    with pytest.raises(
        NonIntegralMoleculeChargeError, match=r"add up to 0\.500000 e and formal charges to 1 e; they may differ by 0\.01 e"
    ):
        with_exact_sum(np.array([0.25, 0.25]), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_charges_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteChargeError, match=f"the partial charge of atom 2 is {value}"):
        with_exact_sum(np.array([0.0, value]), 0)
