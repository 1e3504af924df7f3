"""Errors of a network on one split, in all ways they are published, with intervals.

::

    ΔE_i = E_network(i) - E_label(i)        kcal/mol, of conformer i
    ΔE'_i = ΔE_i - mean of ΔE over the molecule's conformers in the split
    ΔF = F_network - F_label                kcal/mol/Å, counted by component

`energy_...` is of ΔE', which is what a force field can be compared with (`06_fit_smirnoff` uses the same keys for the same definitions),
`total_energy_...` of ΔE, and `..._per_atom` of ΔE / number of atoms.

Intervals of 95 % are percentiles over resamples (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13): of
molecules where there are at least ten, since errors within one are alike, and of conformers where there are fewer. Those of a
trajectory follow each other, so there the intervals are too narrow; `resampled` says which it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray, LongArray

_INTERVAL = (2.5, 97.5)
_MOLECULES_FOR_RESAMPLES = 10
_NUMBERS_AT_ONCE = 2**22
"""Numbers in the array of resampled counts, which bounds memory."""


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of each conformer of one split.

    Attributes:
        energy: ΔE [kcal/mol], shape (n_conformers,).
        force_abs: Σ |ΔF| over the conformer's components [kcal/mol/Å], shape (n_conformers,).
        force_sq: Σ ΔF² [(kcal/mol/Å)²], shape (n_conformers,).
        n_components: number of force labels, 0 where there are none, shape (n_conformers,).
        n_atoms: of the conformer, shape (n_conformers,).
        molecule: which molecule it is of, from 0, shape (n_conformers,).
        source: which source it is from: position in `sources`, shape (n_conformers,).
        sources: names.
    """

    energy: FloatArray
    force_abs: FloatArray
    force_sq: FloatArray
    n_components: LongArray
    n_atoms: LongArray
    molecule: LongArray
    source: LongArray
    sources: tuple[str, ...]

    def select(self, which: BoolArray) -> Errors:
        """Return those of some conformers.

        Args:
            which: shape (n_conformers,).
        """
        names = [field.name for field in fields(self) if field.name != "sources"]
        return replace(self, **{name: getattr(self, name)[which] for name in names})


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        n_resamples: number of resamples.
        seed: of the draws.
    """

    n_resamples: int
    seed: int


def summarise(errors: Errors, bootstrap: Bootstrap) -> dict[str, Any]:
    """Summarise the errors of a split.

    Args:
        errors: of all its conformers.
        bootstrap: for the intervals.

    Returns:
        `{source: {name: value}}`, with `all` for the whole split; without entries where there are no labels.
    """
    groups = {"all": np.ones(len(errors.energy), dtype=np.bool_)}
    groups |= {name: errors.source == i for i, name in enumerate(errors.sources)}
    return {name: _group(errors.select(which), bootstrap) for name, which in groups.items() if which.any()}


def without_intervals(errors: Errors) -> dict[str, float]:
    """Return the errors of a whole split as plain numbers, for a learning curve."""
    quantities = _quantities(errors)
    values = quantities.values(np.stack([column.sum() for column in quantities.columns])[None, :])[0]
    return {name: float(value) for name, value in zip(quantities.names, values, strict=True) if np.isfinite(value)}


def centred_energy(errors: Errors) -> FloatArray:
    """Return ΔE' [kcal/mol], shape (n_conformers,).

    Of a molecule that two sources have, which may be of two levels of theory, the mean is taken in each by itself.
    """
    _, molecule = np.unique(errors.molecule * len(errors.sources) + errors.source, return_inverse=True)
    means = np.bincount(molecule, errors.energy) / np.bincount(molecule)
    relative: FloatArray = errors.energy - means[molecule]
    return relative


def _group(errors: Errors, bootstrap: Bootstrap) -> dict[str, Any]:
    _, molecule = np.unique(errors.molecule, return_inverse=True)
    n_molecules = int(molecule.max()) + 1
    by_molecule = n_molecules >= _MOLECULES_FOR_RESAMPLES
    quantities = _quantities(errors)
    unit = molecule if by_molecule else np.arange(len(molecule))
    sums: FloatArray = np.stack([np.bincount(unit, column) for column in quantities.columns], axis=1)
    intervals = _intervals(sums, quantities, bootstrap)
    summary: dict[str, Any] = {
        "molecules": n_molecules,
        "conformers": len(errors.energy),
        "force_components": int(errors.n_components.sum()),
        "resampled": "molecules" if by_molecule else "conformers",
    }
    values = quantities.values(sums.sum(axis=0)[None, :])[0]
    for name, value, interval in zip(quantities.names, values, intervals, strict=True):
        if np.isfinite(value):
            summary[name] = float(value)
            summary[f"{name}_interval_95"] = interval
    return summary


@dataclass(frozen=True, eq=False)
class _Quantities:
    """Each reported number is a ratio of two sums over conformers, or the root of one.

    Attributes:
        names: of the numbers.
        columns: what is summed, each of shape (n_conformers,).
        ratios: for each number the columns of numerator and denominator.
        is_root: for each number, whether the root is taken.
    """

    names: tuple[str, ...]
    columns: tuple[FloatArray, ...]
    ratios: tuple[tuple[int, int], ...]
    is_root: tuple[bool, ...]

    def values(self, sums: FloatArray) -> FloatArray:
        """Return the numbers.

        Args:
            sums: of the columns, shape (n, n_columns).

        Returns:
            shape (n, n_numbers); NaN where there are no labels.
        """
        numerators, denominators = np.array(self.ratios).T
        with np.errstate(invalid="ignore"):
            ratios = sums[:, numerators] / sums[:, denominators]
        return np.where(np.array(self.is_root), np.sqrt(ratios), ratios)


def _quantities(errors: Errors) -> _Quantities:
    per_atom = errors.energy / errors.n_atoms
    n_energies = np.ones(len(errors.energy))
    columns: tuple[FloatArray, ...] = (n_energies, errors.n_components.astype(np.float64), errors.force_abs, errors.force_sq)
    names, ratios = ["force_mae_kcal_per_mol_per_angstrom", "force_rmse_kcal_per_mol_per_angstrom"], [(2, 1), (3, 1)]
    for name, unit, values in (
        ("energy", "kcal_per_mol", centred_energy(errors)),
        ("total_energy", "kcal_per_mol", errors.energy),
        ("total_energy", "kcal_per_mol_per_atom", per_atom),
    ):
        ratios += [(len(columns), 0), (len(columns) + 1, 0)]
        columns += (np.abs(values), values**2)
        names += [f"{name}_mae_{unit}", f"{name}_rmse_{unit}"]
    return _Quantities(tuple(names), columns, tuple(ratios), tuple(i % 2 == 1 for i in range(len(names))))


def _intervals(sums: FloatArray, quantities: _Quantities, bootstrap: Bootstrap) -> Sequence[list[float] | None]:
    """Return percentile intervals over resamples of the rows.

    Args:
        sums: of each unit that is resampled, shape (n_units, n_columns).
        quantities: what is made of the sums.
        bootstrap: how many, and the seed.

    Returns:
        one for each quantity, None with fewer than two units or where a resample has no labels.
    """
    n_units = len(sums)
    if n_units < 2:
        return [None] * len(quantities.names)
    rng = np.random.default_rng(bootstrap.seed)
    resampled = np.empty((bootstrap.n_resamples, len(quantities.names)))
    at_once = max(1, _NUMBERS_AT_ONCE // n_units)
    for start in range(0, bootstrap.n_resamples, at_once):
        stop = min(start + at_once, bootstrap.n_resamples)
        counts = rng.multinomial(n_units, np.full(n_units, 1.0 / n_units), size=stop - start)
        resampled[start:stop] = quantities.values(counts.astype(np.float64) @ sums)
    low, high = np.percentile(resampled, _INTERVAL, axis=0)
    return [[float(a), float(b)] if np.isfinite(a) and np.isfinite(b) else None for a, b in zip(low, high, strict=True)]
