"""Measures of the benchmark: of each molecule, and over molecules, with intervals.

Every measure over molecules is Σ sum / Σ count over molecules, or the root of that, or a median:

| measure | sum of one molecule | count of one molecule |
| --- | --- | --- |
| fraction of minima whose minimization fails, whose bonds break, or whose basin is lost | minima with the fault | minima |
| bond, angle, dihedral, root mean square | mean square over its minima | 1: molecules count alike |
| RMSD, TFD, mean | mean over its minima | 1 |
| ddE, root mean square or mean absolute error | over minima but the lowest | minima but the lowest |
| frequencies, mean absolute error and bias, overall or in a range | mean over modes of its minima | 1 |
| torsion profiles, mean of root mean square errors; barrier heights, mean absolute error | over its scans | scans |

Geometries and energies are those of minima whose minimization ended and whose bonds are intact. Those that relaxed into another basin are
among them, as in V. T. Lim et al., F1000Research 9, 1390 (2020). The barrier height of a scan is its highest point minus its lowest. The
error of a profile is that of energies relative to the mean over the points that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pesfit.benchmark.comparison import Comparison, Profile
from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.statistics.resampling import intervals, units_of

TRAINED, HELD_OUT, ALL_MOLECULES = "trained", "held_out", "all"
"""Subsets of molecules: with training conformers, without, and both."""
RANGES = ((None, 500), (500, 800), (800, 1200), (1200, 1600), (1600, 2200), (2200, None))
"""Of the label's wavenumbers [cm⁻¹], that errors of frequencies are given for: [from, to)."""
START = "smirnoff-initial"
"""Potential that others are compared with, scan by scan."""

MINIMA, PAIRS, SCANS, SCAN_POINTS = "minima", "pairs", "scans", "scan_points"
NOT_CONVERGED, BROKEN, LOST, POINTS_FAILED = "not_converged", "bonds_broken", "basins_lost", "scan_points_failed"
BOND, ANGLE, DIHEDRAL = "bond_rms_angstrom", "angle_rms_degree", "dihedral_rms_degree"
RMSD, RMSD_MEDIAN, TFD = "rmsd_mean_angstrom", "rmsd_median_angstrom", "tfd_mean"
DDE_RMSE, DDE_MAE = "dde_rmse_kcal_per_mol", "dde_mae_kcal_per_mol"
FREQUENCY_MAE, FREQUENCY_BIAS = "frequency_mae_per_cm", "frequency_bias_per_cm"
PROFILE, PROFILE_MEDIAN, BARRIER = (
    "profile_rmse_mean_kcal_per_mol",
    "profile_rmse_median_kcal_per_mol",
    "barrier_mae_kcal_per_mol",
)
BETTER, COMPARED = "scans_better_than_start", "scans_compared_with_start"

_COUNTS = (MINIMA, NOT_CONVERGED, BROKEN, LOST, PAIRS, SCANS, SCAN_POINTS, POINTS_FAILED)
_SQUARES = frozenset({BOND, ANGLE, DIHEDRAL, DDE_RMSE})
_MIN_POINTS = 3
"""Of a scan, below which it has no profile."""


def in_range(key: str, low: int | None, high: int | None) -> str:
    """Return the key of a measure of frequencies in one of `RANGES`, such as `frequency_mae_500_800_per_cm`."""
    name = f"below_{high}" if low is None else f"above_{low}" if high is None else f"{low}_{high}"
    return key.replace("_per_cm", f"_{name}_per_cm")


@dataclass(frozen=True, eq=False)
class MoleculeMeasures:
    """What one molecule contributes.

    Attributes:
        counts: by key of this module, such as `MINIMA`.
        sums: by measure, its share of the sum and of the count.
        rmsd: [Å], of minima that are compared, for the median.
        profiles: [kcal/mol], root mean square error of each scan, for the median; NaN where too few points are left.
    """

    counts: Mapping[str, int]
    sums: Mapping[str, tuple[float, float]]
    rmsd: FloatArray
    profiles: FloatArray

    def values(self) -> dict[str, float]:
        """Return the measures of this molecule alone; those that it has not are left out."""
        return {key: _number(key, total, count) for key, (total, count) in self.sums.items() if count > 0}


def usable(comparison: Comparison) -> BoolArray:
    """Return which minima are compared: the minimization ended and bonds are intact, shape (n_minima,)."""
    geometry = comparison.geometry
    return np.asarray(geometry.converged & geometry.intact & np.isfinite(geometry.energy))


def dde(comparison: Comparison) -> FloatArray:
    """Return errors of energies relative to the lowest minimum [kcal/mol]; NaN for that one and where there is none, shape (n_minima,)."""
    geometry, fine = comparison.geometry, usable(comparison)
    errors = np.where(fine & fine[:1].all(), geometry.energy - geometry.label, np.nan)
    errors[:1] = np.nan
    return errors


def profile_error(profile: Profile, points: LongArray | None = None) -> float:
    """Return the root mean square error of a profile [kcal/mol]; NaN with fewer than three points.

    Args:
        profile: of one scan.
        points: numbers of those to compare; all without.
    """
    fine = _points(profile, points)
    if fine.sum() < _MIN_POINTS:
        return math.nan
    error = (profile.predicted - profile.label)[fine]
    return float(np.sqrt(np.mean((error - error.mean()) ** 2)))


def barrier_error(profile: Profile) -> float:
    """Return predicted minus true difference of the highest and the lowest point [kcal/mol]; NaN with fewer than three points."""
    fine = _points(profile)
    return float(np.ptp(profile.predicted[fine]) - np.ptp(profile.label[fine])) if fine.sum() >= _MIN_POINTS else math.nan


def _points(profile: Profile, points: LongArray | None = None) -> BoolArray:
    fine = np.isfinite(profile.predicted)
    return fine if points is None else fine & np.isin(profile.points, points)


def measure(comparison: Comparison) -> MoleculeMeasures:
    """Return what a molecule contributes to each measure."""
    geometry, fine, errors = comparison.geometry, usable(comparison), dde(comparison)
    errors = errors[np.isfinite(errors)]
    profiles = np.array([profile_error(profile) for profile in comparison.profiles])
    barriers = np.array([barrier_error(profile) for profile in comparison.profiles])
    points = np.concatenate([np.zeros(0), *(profile.predicted for profile in comparison.profiles)])
    sums = {
        BOND: _mean(geometry.bond[fine] ** 2),
        ANGLE: _mean(geometry.angle[fine] ** 2),
        DIHEDRAL: _mean(geometry.dihedral[fine] ** 2),
        RMSD: _mean(geometry.rmsd[fine]),
        TFD: _mean(geometry.tfd[fine]),
        DDE_RMSE: (float((errors**2).sum()), float(len(errors))),
        DDE_MAE: (float(np.abs(errors).sum()), float(len(errors))),
        PROFILE: (float(np.nansum(profiles)), float(np.isfinite(profiles).sum())),
        BARRIER: (float(np.nansum(np.abs(barriers))), float(np.isfinite(barriers).sum())),
    }
    label = np.concatenate([np.zeros(0), *(each.label for each in comparison.frequencies)])
    error = np.concatenate([np.zeros(0), *(each.predicted - each.label for each in comparison.frequencies)])
    sums |= {FREQUENCY_MAE: _mean(np.abs(error)), FREQUENCY_BIAS: _mean(error)}
    for low, high in RANGES:
        inside = (label >= (low or 0)) & (label < (high or math.inf))
        sums[in_range(FREQUENCY_MAE, low, high)] = _mean(np.abs(error[inside]))
        sums[in_range(FREQUENCY_BIAS, low, high)] = _mean(error[inside])
    counts = {
        MINIMA: len(fine),
        NOT_CONVERGED: int((~geometry.converged).sum()),
        BROKEN: int((geometry.converged & ~geometry.intact).sum()),
        LOST: int((geometry.intact & ~geometry.kept).sum()),
        PAIRS: len(errors),
        SCANS: len(profiles),
        SCAN_POINTS: len(points),
        POINTS_FAILED: int((~np.isfinite(points)).sum()),
    }
    return MoleculeMeasures(counts, sums, geometry.rmsd[fine], profiles)


def _mean(values: FloatArray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), 1.0) if len(finite) else (0.0, 0.0)


def summarize_molecules(molecules: Sequence[MoleculeMeasures]) -> dict[str, Any]:
    """Summarize the measures of some molecules; those that no molecule has are left out.

    Returns:
        Counts, measures, and `<measure>_interval_95` over resamples of molecules: null with fewer than `resampling.MIN_UNITS` of them.
    """
    found: dict[str, Any] = {"molecules": len(molecules)}
    found |= {key: sum(each.counts[key] for each in molecules) for key in _COUNTS}
    for key in molecules[0].sums if molecules else ():
        columns = np.array([each.sums[key] for each in molecules if each.sums[key][1] > 0.0]).reshape(-1, 2)
        if not len(columns):
            continue
        total, count = columns.sum(axis=0)
        found[key] = _number(key, float(total), float(count))
        units = units_of(np.arange(len(columns)), None)
        ends = intervals(columns, units.number, _ratio(key))[0] if units is not None else None
        found[f"{key}_interval_95"] = None if ends is None else list(ends)
    for key, values in ((RMSD_MEDIAN, [m.rmsd for m in molecules]), (PROFILE_MEDIAN, [m.profiles for m in molecules])):
        pooled = np.concatenate([np.zeros(0), *values])
        if np.isfinite(pooled).any():
            found[key] = float(np.nanmedian(pooled))
    return found


def _number(key: str, total: float, count: float) -> float:
    return math.sqrt(total / count) if key in _SQUARES else total / count


def _ratio(key: str) -> Callable[[FloatArray], FloatArray]:
    def number(sums: FloatArray) -> FloatArray:
        ratio = sums[:, :1] / sums[:, 1:]
        return np.asarray(np.sqrt(ratio) if key in _SQUARES else ratio)

    return number


def better_than_start(profiles: Iterable[tuple[Profile, Profile]]) -> tuple[int, int]:
    """Count the scans that a potential has a smaller error for than the start, of those that both have, at the points that both have.

    Args:
        profiles: of the potential and of the start, for each scan.
    """
    better = compared = 0
    for mine, start in profiles:
        both = np.intersect1d(mine.points[_points(mine)], start.points[_points(start)])
        errors = profile_error(mine, both), profile_error(start, both)
        if all(map(math.isfinite, errors)):
            compared += 1
            better += errors[0] < errors[1]
    return better, compared
