"""Intervals over resamples (B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pesfit.core.arrays import FloatArray

_PERCENTILES = (2.5, 97.5)
_NUMBERS_AT_ONCE = 2**22
"""Numbers in the array of resampled counts, which bounds memory."""


class Interval(NamedTuple):
    """Where 95 % of the resamples are."""

    low: float
    high: float


def resampled_counts(rng: np.random.Generator, n_units: int, n_resamples: int) -> Iterator[tuple[int, FloatArray]]:
    """Yield how often each unit is in each resample, a few resamples at a time.

    Yields:
        the number of the first one, and counts, shape (n_at_once, n_units).
    """
    at_once = max(1, _NUMBERS_AT_ONCE // n_units)
    for start in range(0, n_resamples, at_once):
        size = min(at_once, n_resamples - start)
        yield start, rng.multinomial(n_units, np.full(n_units, 1.0 / n_units), size=size).astype(np.float64)


def interval(drawn: FloatArray) -> Interval:
    """Return the interval of a number over resamples, shape (n_resamples,)."""
    low, high = np.percentile(drawn, _PERCENTILES)
    return Interval(float(low), float(high))
