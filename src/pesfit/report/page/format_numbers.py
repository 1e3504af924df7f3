"""Numbers as a reader sees them: enough digits, the same number of decimals down a column where that works."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

NARROW_SPACE = "\u202f"
MINUS = "\u2212"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST, _LARGEST = 1e-4, 1e6


def formatter(values: Sequence[float], digits: int) -> Callable[[float], str]:
    """Return how to write the numbers of one column.

    Args:
        values: that stand in the column.
        digits: significant digits.
    """
    if all(isinstance(value, int) for value in values):
        return lambda value: count(value) if isinstance(value, int) else number(value, digits)
    decimals = shared_decimals(values, digits)
    return (lambda value: number(value, digits)) if decimals is None else (lambda value: fixed(value, decimals))


def shared_decimals(values: Sequence[float], digits: int) -> int | None:
    """Return a number of decimals that suits all numbers of a column; None where each needs its own.

    The largest number gets `digits` significant digits, or one more, if that leaves at least two to the smallest.
    """
    sizes = [abs(value) for value in values if value != 0.0 and math.isfinite(value)]
    if not sizes or max(sizes) >= _LARGEST:
        return None
    decimals = max(0, digits - 1 - _magnitude(max(sizes)))
    return next((each for each in (decimals, decimals + 1) if 1 - _magnitude(min(sizes)) <= each <= digits + 3), None)


def number(value: float, digits: int) -> str:
    """Write a number with so many significant digits, very small and very large ones as 1.2·10⁻⁵."""
    if not math.isfinite(value) or value == 0.0:
        return fixed(value, 0)
    rounded = float(f"{value:.{digits - 1}e}")
    if _SMALLEST <= abs(rounded) < _LARGEST:
        return fixed(rounded, max(0, digits - 1 - _magnitude(rounded)))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", MINUS)


def fixed(value: float, decimals: int) -> str:
    """Write a number with so many decimals."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0.0 else f"{MINUS}∞"
    text = f"{value:,.{decimals}f}".replace(",", NARROW_SPACE).replace("-", MINUS)
    return text.removeprefix(MINUS) if not any(digit in text for digit in "123456789") else text


def count(value: int) -> str:
    """Write a whole number, 12 000 with a narrow space."""
    return fixed(value, 0)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)) + 1e-12)
