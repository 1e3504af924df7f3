r"""Scores of predicted standard deviations, computed from them and the errors alone.

With errors e_i (prediction minus label) and standard deviations σ_i, as Gaussians of mean 0:

    NLL  = mean of ½ log(2π σ_i²) + ½ e_i² / σ_i²                          less is better; in nats
    c(p) = share of |e_i| ≤ σ_i Φ⁻¹(½ + p/2)                               observed coverage of the interval of nominal coverage p
    ECE  = mean over p of |c(p) - p|                                       0 is best, ½ worst
    ρ    = Spearman's rank correlation of |e_i| and σ_i                    whether large σ go with large errors
    AUROC = P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)                                      of scores of two sets; ½ is chance, 1 is perfect

NLL: T. Gneiting, A. E. Raftery, J. Am. Stat. Assoc. 102, 359 (2007). Coverage: V. Kuleshov, N. Fenner, S. Ermon, ICML 2018,
arXiv:1807.00263; its mean absolute distance from the diagonal: K. Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020). AUROC:
J. A. Hanley, B. J. McNeil, Radiology 143, 29 (1982). Intervals are those of `statistics.resampling`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.statistics.resampling import SEED, Interval, Units, interval, intervals, resampled_counts
from pesfit.uncertainty.calibration import usable

LEVELS = np.arange(1, 20) / 20.0
"""Nominal coverages of the calibration curve: 0.05 to 0.95."""
_MIN_IN_BIN = 20


@dataclass(frozen=True, eq=False)
class Sample:
    """Errors of one quantity with standard deviations of several kinds; pairs that are not `usable` are left out.

    Attributes:
        errors: prediction minus label, shape (n,).
        std: standard deviations of the posterior, corrected, shape (n,).
        with_noise: roots of the posterior's variance, uncorrected, plus that of the noise, shape (n,).
        units: of resampling, of each value; None where there are too few.
    """

    errors: FloatArray
    std: FloatArray
    with_noise: FloatArray
    units: Units | None

    @classmethod
    def of(cls, errors: FloatArray, std: FloatArray, with_noise: FloatArray, units: Units | None) -> Sample:
        """Leave out pairs that are not `usable`."""
        use = usable(errors, std)
        return cls(errors[use], std[use], with_noise[use], None if units is None else Units(units.kind, units.number[use]))


@dataclass(frozen=True)
class Judgment:
    """Scores of standard deviations. NLLs are in nats, and hold for the unit of the quantity.

    Attributes:
        n_values: number of errors.
        rmse: of the errors.
        nll: of the corrected standard deviations.
        nll_with_noise: of posterior and noise added.
        nll_constant: of one standard deviation for all, the rmse itself, which is the best constant.
        ece: expected calibration error of the corrected standard deviations.
        ece_with_noise, ece_constant: of the other two.
        coverage_95: observed coverage of the interval of nominal coverage 0.95.
        rank_correlation: of |error| and standard deviation; None where all of these are one number.
        curve: observed coverage at each of `LEVELS`.
        nll_interval, nll_with_noise_interval, nll_constant_interval, coverage_95_interval: None where units of resampling are too few.
        resampled: the kind of these units (`statistics.resampling`).
    """

    n_values: int
    rmse: float
    nll: float
    nll_with_noise: float
    nll_constant: float
    ece: float
    ece_with_noise: float
    ece_constant: float
    coverage_95: float
    rank_correlation: float | None
    curve: tuple[float, ...]
    nll_interval: Interval | None
    nll_with_noise_interval: Interval | None
    nll_constant_interval: Interval | None
    coverage_95_interval: Interval | None
    resampled: Literal["molecules", "blocks"] | None


def judge(sample: Sample) -> Judgment | None:
    """Score standard deviations; None where there is no error, or all of them are 0."""
    errors, n = sample.errors, len(sample.errors)
    rmse = float(np.sqrt(np.mean(errors**2))) if n else 0.0
    if rmse == 0.0:
        return None
    constant = np.full(n, rmse)
    kinds = (sample.std, sample.with_noise, constant)
    of_values = np.stack([*(nll_terms(errors, each) for each in kinds), np.abs(errors) <= half_width(0.95) * sample.std])
    means = of_values.mean(axis=1)
    curves = [coverage(errors, each) for each in kinds]
    nll, with_noise, of_constant, covered = _intervals(of_values, sample.units)
    return Judgment(
        n_values=n,
        rmse=rmse,
        nll=float(means[0]),
        nll_with_noise=float(means[1]),
        nll_constant=float(means[2]),
        ece=calibration_error(curves[0]),
        ece_with_noise=calibration_error(curves[1]),
        ece_constant=calibration_error(curves[2]),
        coverage_95=float(means[3]),
        rank_correlation=rank_correlation(errors, sample.std),
        curve=tuple(curves[0].tolist()),
        nll_interval=nll,
        nll_with_noise_interval=with_noise,
        nll_constant_interval=of_constant,
        coverage_95_interval=covered,
        resampled=None if sample.units is None else sample.units.kind,
    )


def nll_terms(errors: FloatArray, std: FloatArray) -> FloatArray:
    """Return the negative log-likelihood of each error, shape (n,), whose mean is NLL.

    Args:
        errors: shape (n,).
        std: standard deviations, above 0, shape (n,).
    """
    return np.asarray(0.5 * np.log(2.0 * np.pi * std**2) + 0.5 * (errors / std) ** 2)


def half_width(level: float) -> float:
    """Return Φ⁻¹(½ + p/2), half the width of the interval of nominal coverage p in standard deviations."""
    return float(scipy.stats.norm.ppf(0.5 + 0.5 * level))


def coverage(errors: FloatArray, std: FloatArray, levels: FloatArray = LEVELS) -> FloatArray:
    """Return c(p).

    Args:
        errors: shape (n,), n at least 1.
        std: standard deviations, shape (n,).
        levels: p, between 0 and 1, shape (n_levels,).

    Returns:
        shape (n_levels,).
    """
    sizes = np.sort(np.abs(errors) / std)
    widths = scipy.stats.norm.ppf(0.5 + 0.5 * np.asarray(levels))
    return np.asarray(np.searchsorted(sizes, widths, side="right") / len(sizes))


def calibration_error(observed: FloatArray, levels: FloatArray = LEVELS) -> float:
    """Return the expected calibration error of a curve.

    Args:
        observed: c(p), shape (n_levels,).
        levels: p, shape (n_levels,).
    """
    return float(np.mean(np.abs(observed - levels)))


def rank_correlation(errors: FloatArray, std: FloatArray) -> float | None:
    """Return Spearman's ρ of |e| and σ, equal values with their mean rank; None where either is one number alone."""
    sizes = np.abs(errors)
    if len(sizes) < 2 or np.ptp(sizes) == 0.0 or np.ptp(std) == 0.0:
        return None
    return float(scipy.stats.spearmanr(sizes, std).statistic)


@dataclass(frozen=True, eq=False)
class Bins:
    """Errors binned by standard deviation: where these are calibrated, `rmse` is near `std` in every bin.

    Attributes:
        std: root mean square of the standard deviations in the bin, shape (n_bins,).
        rmse: of the errors in it, shape (n_bins,).
        n_values: shape (n_bins,).
    """

    std: FloatArray
    rmse: FloatArray
    n_values: LongArray


def binned(errors: FloatArray, std: FloatArray, n_bins: int = 15) -> Bins:
    """Sort pairs by standard deviation and cut them into bins of as many, at least `_MIN_IN_BIN` in each.

    D. Levi et al., Sensors 22, 5540 (2022), arXiv:1905.11659.

    Args:
        errors: shape (n,).
        std: standard deviations, shape (n,).
        n_bins: at most.
    """
    order = np.argsort(std, kind="stable")
    parts = np.array_split(order, max(1, min(n_bins, len(order) // _MIN_IN_BIN))) if len(order) else []
    means = np.array([[np.mean(std[part] ** 2), np.mean(errors[part] ** 2)] for part in parts]).reshape(-1, 2)
    return Bins(np.sqrt(means[:, 0]), np.sqrt(means[:, 1]), np.array([len(part) for part in parts], dtype=np.int64))


def auroc(inside: FloatArray, outside: FloatArray) -> float:
    """Return the probability that a score from outside is above one from inside; equal scores count half.

    By ranks: (Σ ranks of outside - n⁺(n⁺ + 1)/2) / (n⁺ n⁻), equal values with their mean rank.

    Args:
        inside: shape (n_inside,), at least 1.
        outside: shape (n_outside,), at least 1.
    """
    n_outside, n_inside = len(outside), len(inside)
    ranks = scipy.stats.rankdata(np.concatenate([outside, inside]))
    return float((ranks[:n_outside].sum() - n_outside * (n_outside + 1) / 2.0) / (n_outside * n_inside))


def auroc_interval(
    inside: FloatArray, outside: FloatArray, units_inside: Units | None, units_outside: Units | None
) -> Interval | None:
    """Return an interval of 95 % over resamples of both sets; None where either has too few units.

    Args:
        inside: shape (n_inside,).
        outside: shape (n_outside,).
        units_inside: of each score inside.
        units_outside: of each score outside.
    """
    if units_inside is None or units_outside is None:
        return None
    values = np.unique(np.concatenate([inside, outside]))
    place = np.searchsorted(values, inside), np.searchsorted(values, outside)
    units = units_inside.number, units_outside.number
    counts = [
        itertools.chain.from_iterable(resampled_counts(rng, int(number.max()) + 1))
        for rng, number in zip(np.random.default_rng(SEED).spawn(2), units, strict=True)
    ]
    resampled = []
    for of_units in zip(*counts, strict=True):
        below, above = (np.bincount(at, n[unit], len(values)) for at, n, unit in zip(place, of_units, units, strict=True))
        less = np.cumsum(below) - 0.5 * below
        resampled.append((above * less).sum() / (below.sum() * above.sum()))
    return interval(np.array(resampled))


def _intervals(of_values: FloatArray, units: Units | None) -> list[Interval | None]:
    """Return intervals of the means of some rows of numbers over resamples of units."""
    if units is None:
        return [None] * len(of_values)
    columns = np.stack([*of_values, np.ones(of_values.shape[1])], axis=1)
    return intervals(columns, units.number, lambda sums: sums[:, :-1] / sums[:, -1:])
