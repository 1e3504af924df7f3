"""Numbers as a reader sees them."""

from __future__ import annotations

import math

import pytest

from pesfit.report.page.format_numbers import fixed, formatter, number, shared_decimals


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.2345, 3, "1.23"),
        (-12.0, 2, "−12"),
        (0.00995, 2, "0.010"),  # 0.00995 is a little less in binary, but not by a digit that counts
        (9.996, 3, "10.0"),
        (123456.0, 3, "123\u202f000"),
        (1.23e-5, 2, "1.2·10⁻⁵"),
        (-3.0e7, 1, "−3·10⁷"),
        (0.0, 3, "0"),
        (math.inf, 3, "∞"),
        (-math.inf, 3, "−∞"),
        (math.nan, 3, "not a number"),
    ],
)
def test_a_number_has_significant_digits(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_no_number_is_minus_zero() -> None:
    assert fixed(-0.0, 2) == "0.00"
    assert fixed(-0.001, 2) == "0.00"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([12.34, 7.321], ["12.3", "7.3"]),  # one number of decimals
        ([12.34, 0.456], ["12.34", "0.46"]),  # one more, for the smallest
        ([1234.5, 0.00123], ["1\u202f230", "0.00123"]),  # too far apart
        ([3, 12000], ["3", "12\u202f000"]),  # counts
        ([0.5, math.nan], ["0.500", "not a number"]),
        ([], []),
    ],
)
def test_a_column_has_the_same_decimals_where_that_works(values: list[float], texts: list[str]) -> None:
    write = formatter(values, 3)
    assert [write(value) for value in values] == texts


def test_decimals_leave_two_digits_to_the_smallest() -> None:
    assert shared_decimals([1.0, 0.1], 2) == 2
    assert shared_decimals([100.0, 0.1], 2) is None
