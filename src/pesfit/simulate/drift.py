"""How well total energy is conserved: drift and fluctuation, each with what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray

MIN_OBSERVATIONS = 10
"""A line through fewer says nothing."""


@dataclass(frozen=True)
class Line:
    """A straight line through a series.

    Attributes:
        slope: unit of the series per unit of time.
        standard_error: of the slope.
        fluctuation: root mean square of what is left about the line.
    """

    slope: float
    standard_error: float
    fluctuation: float


def fit_line(time: FloatArray, values: FloatArray) -> Line | None:
    r"""Fit a line by least squares; its error knows that neighbors in time are alike.

    .. math::

        b = \frac{\sum_i (t_i - \bar t) y_i}{\sum_i (t_i - \bar t)^2}, \qquad
        \sigma_b^2 = \frac{g}{n - 2} \frac{\sum_i e_i^2}{\sum_i (t_i - \bar t)^2}

    with e what is left about the line, and g its statistical inefficiency (`statistical_inefficiency`): n observations say as much
    as n/g that do not depend on each other.

    Args:
        time: shape (n,).
        values: shape (n,).

    Returns:
        None with fewer than `MIN_OBSERVATIONS`.
    """
    n = len(time)
    if n < MIN_OBSERVATIONS:
        return None
    centred = time - time.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread
    left = values - values.mean() - slope * centred
    squares = float(left @ left)
    return Line(slope, math.sqrt(statistical_inefficiency(left) * squares / (n - 2) / spread), math.sqrt(squares / n))


def statistical_inefficiency(values: FloatArray) -> float:
    r"""Return g = 1 + 2 Σ (1 - k/n) ρ_k, how many observations of a series count as one; at least 1.

    The sum of autocorrelations ρ_k, k >= 1, ends before the first pair ρ_{2m} + ρ_{2m+1} that is not positive (Geyer, Statist. Sci. 7,
    473, 1992).

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


@dataclass(frozen=True)
class Drift:
    """Conservation of energy over replicas, each of them counted alike.

    Attributes:
        slope: [kcal/mol/ps/atom], mean over replicas.
        standard_error: of it: from the spread between replicas, which do not depend on each other; from time alone with one replica.
        magnitude: [kcal/mol/ps/atom], mean over replicas of the slope without its sign.
        fluctuation: [kcal/mol/atom], root mean square about each replica's line.
        n_replicas: how many were long enough.
    """

    slope: float
    standard_error: float
    magnitude: float
    fluctuation: float
    n_replicas: int


def mean_drift(lines: Sequence[Line]) -> Drift | None:
    """Average over replicas; None without any."""
    if not lines:
        return None
    slopes = np.array([line.slope for line in lines])
    error = lines[0].standard_error if len(lines) == 1 else float(slopes.std(ddof=1)) / math.sqrt(len(slopes))
    fluctuation = math.sqrt(float(np.mean([line.fluctuation**2 for line in lines])))
    return Drift(float(slopes.mean()), error, float(np.abs(slopes).mean()), fluctuation, len(lines))
