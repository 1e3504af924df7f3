r"""Standard deviations corrected on the validation set, and the thresholds above which a conformer is out of distribution.

A posterior covers the parameters that the data leave open, not the error that no parameters could remove, so its standard deviations are
too small. With errors e_i of the validation set and the posterior's standard deviations σ_i, two corrections are fitted by maximum
likelihood:

    e_i ~ N(0, a² σ_i²)        a² = mean of e_i² / σ_i²
    e_i ~ N(0, σ_i² + s²)      s by search in one dimension

Standard deviations are multiplied by the first, which keeps their order, and so the ranking by distance from the data. The second is for
comparison: where it fits as well, the standard deviations add little to one number.

| symbol | here |
| --- | --- |
| a | `Scale.factor` |
| s | `Scale.noise` |

One factor for all: V. Kuleshov, N. Fenner, S. Ermon, ICML 2018, arXiv:1807.00263, section 2; M.-H. Laves et al., MIDL 2020.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.core.exceptions import DataError
from pesfit.core.files import write_json
from pesfit.uncertainty.standard_deviations import StandardDeviations, Uncertainty

CALIBRATION_FILE = "calibration.json"
FORMAT_VERSION = 1
DOMAIN_QUANTILE = 0.999
"""Share of training conformers whose score is at most the threshold."""

MIN_CONFORMERS = 100
"""Training conformers of a molecule from which on it has a threshold of its own."""

_SMALLEST = 1e-6
"""Of the root mean square standard deviation: less is 0 to rounding, such as that of a force which symmetry forbids."""
_DECADES = (-4.0, 1.0)
_GRID = 101
"""Noise is searched at so many values, over these decades about the root mean square error, and then between the best one's neighbors."""


@dataclass(frozen=True)
class Scale:
    """Correction of the standard deviations of one quantity.

    Attributes:
        factor: a; 1 without data.
        noise: s, in the quantity's unit; 0 without data.
        n_values: number of validation errors it was fitted to; 0 where nothing is corrected.
    """

    factor: float = 1.0
    noise: float = 0.0
    n_values: int = 0

    @classmethod
    def fit(cls, errors: FloatArray, std: FloatArray) -> Scale:
        """Fit both corrections to the pairs that are `usable`.

        Args:
            errors: of the validation set, shape (n,).
            std: standard deviations of the posterior, in the same unit, shape (n,).
        """
        use = usable(errors, std)
        if not use.any():
            return cls()
        squares, variances = errors[use] ** 2, std[use] ** 2
        return cls(float(np.sqrt(np.mean(squares / variances))), _noise(squares, variances), int(use.sum()))


@dataclass(frozen=True)
class Calibration:
    """Corrections of a model's standard deviations, and thresholds of its score.

    Attributes:
        energy: of total energies [kcal/mol]; that of relative energies for a force field, whose energies have not the labels' zero.
        relative_energy: of energies minus that of the row's first conformer in the set [kcal/mol].
        forces: of each component [kcal/mol/Å].
        domain_threshold: [kcal/mol/Å], the score (`StandardDeviations.score`, corrected) that `DOMAIN_QUANTILE` of the training conformers
            do not exceed; None without any.
        group_thresholds: [kcal/mol/Å], the same of molecules by their `group`, where enough of their own conformers were trained on.
    """

    energy: Scale = Scale()
    relative_energy: Scale = Scale()
    forces: Scale = Scale()
    domain_threshold: float | None = None
    group_thresholds: Mapping[str, float] = field(default_factory=dict)

    def threshold_of(self, group: str) -> float | None:
        """Return the score above which a conformer is out of distribution: of the molecule itself, or of the whole training set.

        In a set of one long trajectory and many molecules with few conformers each, the latter set the threshold, which the molecule of
        the trajectory would hardly reach before it breaks.
        """
        return self.group_thresholds.get(group, self.domain_threshold)

    def apply(self, std: StandardDeviations) -> StandardDeviations:
        """Multiply a posterior's standard deviations by the factors."""
        return StandardDeviations(
            std.energy * self.energy.factor,
            std.relative_energy * self.relative_energy.factor,
            std.forces * self.forces.factor,
        )

    def metrics(self) -> dict[str, float | int | None]:
        """Return flat names, with units, and values."""
        result: dict[str, float | int | None] = {}
        for name, unit in _UNITS.items():
            scale: Scale = getattr(self, name)
            result |= {
                f"{name}_factor": scale.factor,
                f"{name}_noise_{unit}": scale.noise,
                f"{name}_values": scale.n_values,
            }
        return result | {
            "domain_threshold_kcal_per_mol_per_angstrom": self.domain_threshold,
            "molecules_with_a_threshold_of_their_own": len(self.group_thresholds),
        }

    def write(self, folder: Path) -> None:
        """Write `calibration.json` into a model's folder."""
        stored = {"format_version": FORMAT_VERSION, "units": _UNITS, **asdict(self)}
        stored["group_thresholds"] = dict(sorted(self.group_thresholds.items()))
        write_json(folder / CALIBRATION_FILE, stored)

    @classmethod
    def read(cls, folder: Path) -> Calibration | None:
        """Read what `write` wrote; None where there is no such file.

        Raises:
            DataError: where the file is damaged or has another format version.
        """
        path = folder / CALIBRATION_FILE
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            version = stored.pop("format_version")
            if version != FORMAT_VERSION:
                raise DataError(f"{path} has format version {version}; this version reads {FORMAT_VERSION}")
            return cls._of(stored)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} cannot be read as the calibration of a model: {type(error).__name__}: {error}") from error

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> Calibration:
        expected = {"units", *(each.name for each in fields(cls))}
        if set(stored) != expected or stored["units"] != _UNITS:
            raise ValueError(f"keys {', '.join(sorted(stored))} and units {stored.get('units')}")
        for name in _UNITS:
            if set(stored[name]) != {field.name for field in fields(Scale)}:
                raise ValueError(f"{name} has {', '.join(stored[name])}")
        scales = {name: Scale(**stored[name]) for name in _UNITS}
        threshold, of_groups = stored["domain_threshold"], dict(stored["group_thresholds"])
        numbers = [threshold, *of_groups.values(), *(value for scale in scales.values() for value in asdict(scale).values())]
        for number in numbers:
            if number is not None and (isinstance(number, bool) or not math.isfinite(number) or number < 0.0):
                raise ValueError(f"{number!r} where a number of at least 0 is expected")
        return cls(**scales, domain_threshold=None if threshold is None else float(threshold), group_thresholds=of_groups)


_UNITS = {
    "energy": "kcal_per_mol",
    "relative_energy": "kcal_per_mol",
    "forces": "kcal_per_mol_per_angstrom",
}


@dataclass(frozen=True, eq=False)
class CalibratedUncertainty:
    """A posterior whose standard deviations are corrected (a `uncertainty.standard_deviations.Uncertainty`).

    Attributes:
        posterior: for one molecule.
        calibration: of the model.
    """

    posterior: Uncertainty
    calibration: Calibration

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        """Return standard deviations; see `uncertainty.standard_deviations.Uncertainty`."""
        return self.calibration.apply(self.posterior(coords, reference))


def usable(errors: FloatArray, std: FloatArray) -> BoolArray:
    """Return a mask of pairs that are finite and whose standard deviation is more than rounding, shape (n,)."""
    finite = np.isfinite(errors) & np.isfinite(std)
    scale = float(np.sqrt(np.mean(std[finite] ** 2))) if finite.any() else 0.0
    return np.asarray(finite & (std > _SMALLEST * scale))


def _noise(squares: FloatArray, variances: FloatArray) -> float:
    """Return the s ≥ 0 of most likelihood: the best of 0 and a logarithmic grid, refined between its neighbors."""
    largest = math.sqrt(float(squares.mean()))
    if largest == 0.0:
        return 0.0

    def loss(log_s: float) -> float:
        total = variances + math.exp(2.0 * log_s)
        return float(np.mean(np.log(total) + squares / total))

    grid = math.log(largest) + math.log(10.0) * np.linspace(*_DECADES, _GRID)
    values = [loss(log_s) for log_s in grid.tolist()]
    best = int(np.argmin(values))
    around = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)]))
    found = scipy.optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-6})
    without = float(np.mean(np.log(variances) + squares / variances))
    return math.exp(float(found.x)) if float(found.fun) < without else 0.0
