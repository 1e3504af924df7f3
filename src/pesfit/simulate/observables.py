"""Observables of simulations: the distribution of interatomic distances, and the drift of the total energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.statistics.resampling import statistical_inefficiency

_MIN_OBSERVATIONS = 10
"""Shorter series get no line."""
_PAIRS_AT_ONCE = 2**22


class DistanceHistogram:
    r"""Distribution of the interatomic distances of a molecule (Fu et al., Forces are not enough, TMLR 2023, arXiv:2210.07237).

    .. math::

        h(r) = \frac{1}{n (n-1)} \sum_i \sum_{j \ne i} \delta(r - |x_i - x_j|)

    averaged over frames: a density over r whose integral is 1, in bins from 0 on.

    Args:
        bin_width: [Å].
    """

    def __init__(self, bin_width: float) -> None:
        self.bin_width = bin_width
        self._counts: LongArray = np.zeros(0, dtype=np.int64)

    def add(self, coords: FloatArray) -> None:
        """Count the distances of frames.

        Args:
            coords: [Å], finite, shape (n_frames, n_atoms, 3).
        """
        first, second = np.triu_indices(coords.shape[1], 1)
        step = max(1, _PAIRS_AT_ONCE // max(1, len(first)))
        for start in range(0, len(coords), step):
            block = coords[start : start + step]
            distances = np.linalg.norm(block[:, first] - block[:, second], axis=-1)
            counts = np.bincount((distances / self.bin_width).astype(np.int64).reshape(-1), minlength=len(self._counts))
            counts[: len(self._counts)] += self._counts
            self._counts = counts

    @property
    def density(self) -> FloatArray:
        """h(r) in each bin [1/Å]; empty without a distance."""
        total = int(self._counts.sum())
        return self._counts / (total * self.bin_width) if total else np.zeros(0)

    def difference(self, other: DistanceHistogram) -> float | None:
        """Return the mean absolute error as published, ∫ |h(r) - h'(r)| dr: 0 for equal distributions, 2 for those without overlap.

        None where one of them is empty.
        """
        one, two = self.density, other.density
        if not len(one) or not len(two):
            return None
        length = max(len(one), len(two))
        padded = (np.pad(density, (0, length - len(density))) for density in (one, two))
        return float(np.abs(np.subtract(*padded)).sum() * self.bin_width)


@dataclass(frozen=True)
class Line:
    """A straight line through a series.

    Attributes:
        slope: unit of the series per unit of time.
        standard_error: of the slope.
        fluctuation: root mean square of the residuals.
    """

    slope: float
    standard_error: float
    fluctuation: float


def fit_line(time: FloatArray, values: FloatArray) -> Line | None:
    r"""Fit a line by least squares; its standard error allows for the correlation of successive values.

    .. math::

        b = \frac{\sum_i (t_i - \bar t) y_i}{\sum_i (t_i - \bar t)^2}, \qquad
        \sigma_b^2 = \frac{g}{n - 2} \frac{\sum_i e_i^2}{\sum_i (t_i - \bar t)^2}

    with e the residuals, and g their statistical inefficiency (`statistical_inefficiency`): n observations determine as much as n/g
    independent ones.

    Args:
        time: shape (n,).
        values: shape (n,).

    Returns:
        None with fewer than 10 values.
    """
    n = len(time)
    if n < _MIN_OBSERVATIONS:
        return None
    centered = time - time.mean()
    spread = float(centered @ centered)
    slope = float(centered @ values) / spread
    residuals = values - values.mean() - slope * centered
    squares = float(residuals @ residuals)
    return Line(slope, math.sqrt(statistical_inefficiency(residuals) * squares / (n - 2) / spread), math.sqrt(squares / n))


@dataclass(frozen=True)
class EnergyDrift:
    """Drift of the total energy, averaged over replicas with equal weights.

    Attributes:
        slope: [kcal/mol/ps/atom], mean over replicas.
        standard_error: of the mean, from the spread between replicas, which are independent; with one replica, that of its line.
        magnitude: [kcal/mol/ps/atom], mean over replicas of the absolute slope.
        fluctuation: [kcal/mol/atom], root mean square about each replica's line.
        n_replicas: number of replicas with a line.
    """

    slope: float
    standard_error: float
    magnitude: float
    fluctuation: float
    n_replicas: int


def mean_drift(lines: Sequence[Line]) -> EnergyDrift | None:
    """Average over replicas; None without any."""
    if not lines:
        return None
    slopes = np.array([line.slope for line in lines])
    error = lines[0].standard_error if len(lines) == 1 else float(slopes.std(ddof=1)) / math.sqrt(len(slopes))
    fluctuation = math.sqrt(float(np.mean([line.fluctuation**2 for line in lines])))
    return EnergyDrift(float(slopes.mean()), error, float(np.abs(slopes).mean()), fluctuation, len(lines))
