r"""Intervals of 95 % over resamples of independent units, and the rule for what these units are.

Every number here is a function of sums over units. A resample draws as many units as there are, with replacement, so its sums are
`counts @ sums` with counts from a multinomial distribution; the interval lies between the 2.5 and the 97.5 % quantile of what resamples
give (percentile bootstrap: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

Conformers of one molecule are alike, and so are successive frames of a trajectory, so neither are independent. The units are

- **molecules**, where there are at least `MIN_UNITS`. With fewer there is no interval: it would be too narrow. Of the mean of n normal
  errors, percentile intervals cover :math:`P(|t_{n-1}| \le 1.96 \sqrt{(n-1)/n})`, which is 85 % with n = 5 and 90 % with n = 10.
- **blocks** of successive conformers, where all are of a single molecule: as many per block as `BLOCK_LENGTH` times the statistical
  inefficiency of the squared errors, which is ten correlation times, and at least `MIN_UNITS` blocks (E. Carlstein, Ann. Statist. 14,
  1171, 1986). Such an interval tells what other frames of the same trajectory would give, not what other molecules would.

Number and seed of the resamples are constants, so that a number has one interval wherever it is printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray

N_RESAMPLES, SEED = 1000, 2666
MIN_UNITS = 10
"""Molecules, or blocks of conformers, below which there is no interval."""
BLOCK_LENGTH = 5.0
"""Length of a block in statistical inefficiencies g. A block of L g holds the share 1 - 1/(2 L) of the variance of a mean, where the
autocorrelation decays exponentially and slowly."""
_PERCENTILES = (2.5, 97.5)
_NUMBERS_AT_ONCE = 2**22
"""Numbers in an array of resampled counts, which bounds memory."""


class Interval(NamedTuple):
    """Ends of an interval of 95 %."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Units:
    """Units of resampling.

    Attributes:
        kind: what they are.
        number: unit of each conformer, from 0, shape (n_conformers,).
    """

    kind: Literal["molecules", "blocks"]
    number: LongArray


def units_of(molecule: LongArray, squared_errors: FloatArray | None) -> Units | None:
    """Choose the units of resampling by the rule of this module; None where there are too few.

    Args:
        molecule: number of the molecule of each conformer, shape (n_conformers,).
        squared_errors: of one or several quantities, whose correlation along the conformers sets the length of blocks, shape
            (n_conformers, n_quantities); None where errors of single conformers are not known.
    """
    n_molecules = len(molecules := np.unique(molecule))
    if n_molecules >= MIN_UNITS:
        return Units("molecules", np.searchsorted(molecules, molecule))
    if n_molecules != 1 or squared_errors is None:
        return None
    inefficiency = max(statistical_inefficiency(series - series.mean()) for series in squared_errors.T)
    n_blocks = len(molecule) // math.ceil(BLOCK_LENGTH * inefficiency)
    return None if n_blocks < MIN_UNITS else Units("blocks", np.arange(len(molecule)) * n_blocks // len(molecule))


def intervals(columns: FloatArray, unit: LongArray, numbers: Callable[[FloatArray], FloatArray]) -> list[Interval | None]:
    """Return the intervals of numbers that are functions of sums over all rows.

    Args:
        columns: what is summed, shape (n_rows, n_columns).
        unit: that each row belongs to, from 0, shape (n_rows,).
        numbers: maps sums, shape (n, n_columns), to the numbers, shape (n, n_numbers).

    Returns:
        One for each number; None where it is not finite in every resample.
    """
    sums = np.stack([np.bincount(unit, column) for column in columns.T], axis=1)
    counts = resampled_counts(np.random.default_rng(SEED), len(sums))
    resampled = np.concatenate([numbers(of_units @ sums) for of_units in counts])
    return [interval(column) if np.isfinite(column).all() else None for column in resampled.T]


def resampled_counts(rng: np.random.Generator, n_units: int) -> Iterator[FloatArray]:
    """Yield how often each unit is in each resample, a few resamples at a time, shape (n_at_once, n_units)."""
    at_once = max(1, _NUMBERS_AT_ONCE // n_units)
    for start in range(0, N_RESAMPLES, at_once):
        size = min(at_once, N_RESAMPLES - start)
        yield rng.multinomial(n_units, np.full(n_units, 1.0 / n_units), size=size).astype(np.float64)


def interval(resampled: FloatArray) -> Interval:
    """Return the interval of a number from its values over resamples, shape (n_resamples,)."""
    low, high = np.percentile(resampled, _PERCENTILES)
    return Interval(float(low), float(high))


def statistical_inefficiency(values: FloatArray) -> float:
    r"""Return g = 1 + 2 Σ (1 - k/n) ρ_k, how many observations of a series count as one independent observation; at least 1.

    The sum of autocorrelations ρ_k, k >= 1, ends before the first pair ρ_{2m} + ρ_{2m+1} that is not positive (C. J. Geyer, Statist.
    Sci. 7, 473, 1992).

    Args:
        values: of mean 0, shape (n,).
    """
    n = len(values)
    padded = np.fft.rfft(values, 2 * n)
    correlation = np.fft.irfft(padded * padded.conj(), 2 * n)[:n]
    if not correlation[0] > 0.0:
        return 1.0
    # The sum of products over n, not n - k: (1 - k/n) is in it.
    weighted = correlation / correlation[0]
    pairs = weighted[: n - n % 2].reshape(-1, 2).sum(axis=1)
    n_positive = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else len(pairs)
    return max(1.0, 2.0 * float(pairs[:n_positive].sum()) - 1.0)
