"""Exact shares, and draws that are the same everywhere."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import ParamsError
from pesfit.split.rows import digest, quotas, uniform

EIGHTY = (0.8, 0.1, 0.1)


@pytest.mark.parametrize(
    ("n_items", "shares", "draw", "expected"),
    [
        (1000, EIGHTY, Fraction(0), (800, 100, 100)),
        (1000, EIGHTY, Fraction(999, 1000), (800, 100, 100)),
        (1000, (0.7, 0.2, 0.1), Fraction(1, 2), (700, 200, 100)),  # 0.7 + 0.2 is below 0.9 in binary
        (5, EIGHTY, Fraction(0), (4, 0, 1)),
        (5, EIGHTY, Fraction(1, 2), (4, 1, 0)),
        (1, EIGHTY, Fraction(1, 10), (0, 1, 0)),
        (1, EIGHTY, Fraction(1, 20), (0, 0, 1)),
        (1, EIGHTY, Fraction(1, 5), (1, 0, 0)),
        (2000, (950, 50, 1000), Fraction(1, 3), (950, 50, 1000)),
        (2000, (950, 0.1, 0), Fraction(1, 3), (950, 200, 0)),
        (0, EIGHTY, Fraction(1, 2), (0, 0, 0)),
        (10, (0.5, 0.0, 0.0), Fraction(0), (5, 0, 0)),
    ],
)
def test_quotas(n_items: int, shares: tuple[float, ...], draw: Fraction, expected: tuple[int, ...]) -> None:
    assert quotas(n_items, shares, draw, what="x") == expected


@given(
    n_items=st.integers(0, 10**6),
    parts=st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any),
    draw=st.fractions(0, 1, max_denominator=10**6).filter(lambda draw: draw < 1),
)
@settings(deadline=None)
def test_fractions_are_off_by_less_than_one_and_use_all(n_items: int, parts: list[int], draw: Fraction) -> None:
    shares = [round(part / sum(parts), 3) for part in parts[:2]]
    shares.append(round(max(0.0, 1.0 - sum(shares)), 3))
    if sum(Fraction(repr(share)) for share in shares) > 1:
        return
    numbers = quotas(n_items, shares, draw, what="x")
    for number, share in zip(numbers, shares, strict=True):
        assert abs(number - Fraction(repr(share)) * n_items) < 1
    assert sum(numbers) == n_items


@pytest.mark.parametrize(
    ("n_items", "shares", "draw", "expected"),
    [
        (8, EIGHTY, Fraction(0), (6, 1, 1)),
        (3, EIGHTY, Fraction(1, 2), (1, 1, 1)),
        (2, EIGHTY, Fraction(9, 10), (1, 1, 0)),
        (1, EIGHTY, Fraction(9, 10), (1, 0, 0)),
        (0, EIGHTY, Fraction(9, 10), (0, 0, 0)),
        (10, (0.9, 0.0, 0.05), Fraction(0), (9, 0, 1)),
        (10, (8, 0.1, 0.01), Fraction(0), (8, 1, 1)),
        (10, (9, 0, 0.01), Fraction(0), (9, 0, 1)),
        (10, (10, 0, 0.0), Fraction(0), (10, 0, 0)),
    ],
)
def test_no_fraction_is_empty_where_that_can_be(
    n_items: int, shares: tuple[float, ...], draw: Fraction, expected: tuple[int, ...]
) -> None:
    assert quotas(n_items, shares, draw, what="x", none_empty=True) == expected


def test_rounding_is_right_on_average() -> None:
    draws = [Fraction(i, 1000) for i in range(1000)]
    totals = [sum(numbers) for numbers in zip(*(quotas(3, EIGHTY, draw, what="x") for draw in draws), strict=True)]
    assert totals == [2400, 300, 300]


def test_too_much_is_refused_with_numbers() -> None:
    with pytest.raises(
        ParamsError, match=r"split\.rules: md17: frames: 950 \+ 50 \+ 1000 = 2000 are asked for, 1900 are there"
    ):
        quotas(1900, (950, 50, 1000), Fraction(0), what="md17: frames")


def test_draws_are_the_same_on_every_platform() -> None:
    # What `printf '2666\\0molecule\\0CCO' | sha256sum` prints.
    assert digest(2666, "molecule", "CCO").hex() == "834bd7c0161bc68b883b27e9a34890ccea10ca5a2fe483cfdb12cb501f13e1e8"
    assert uniform(2666, "molecule", "CCO") == Fraction(0x834BD7C0161BC68B, 2**64)
    assert digest(2666, "a", "b") != digest(2666, "b", "a") != digest(2667, "b", "a")
