r"""Errors of a model on labeled conformers, in the ways they are published, with intervals: the definitions of every stage.

Stages 06, 07 and 09 all fill a table of `Errors` and print what `summarize` makes of it, so that a key has one meaning, one value and one
interval. With the errors of conformer i of molecule m (rows of one data set, source and `group`)

    ΔE_i = E_predicted - E_label          kcal/mol
    ΔE'_i = ΔE_i - mean of ΔE over the molecule's conformers in the split
    ΔF = F_predicted - F_label            kcal/mol/Å, by component

| keys | meaning |
| --- | --- |
| `energy_mae_...`, `energy_rmse_...` | of ΔE', over all conformers, since a force field's energies have a zero of their own |
| `total_energy_...`, `..._per_atom` | of ΔE, and of ΔE / number of atoms, where predictions have the labels' zero |
| `force_mae_...`, `force_rmse_...` | of ΔF, over all components |
| `..._mean_molecule_rmse_...` | mean over molecules of the root mean square error of each (1/M Σ_m sqrt(mean Δ²)) |
| `molecules`, `conformers` | how many there are; a molecule that two sources have counts once |
| `energies` | conformers that count in ΔE': a molecule with a single conformer has ΔE' = 0 whatever is predicted, and is left out |
| `<key>_interval_95` | over resamples of molecules; null with fewer than `resampling.MIN_UNITS` of them |
| `<key>_interval_95_within_molecule` | of a single molecule, over resamples of blocks of its frames (see `resampling`) |

Stages 07 and 09 have an error for every conformer. The fit of stage 06 knows the sums over each molecule's conformers alone, from its
normal equations: mean absolute errors do not follow from these, nor do intervals within a molecule, so it does not print them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.statistics.resampling import MIN_UNITS, intervals, units_of

ALL = "all"
"""Name of all sources together."""
ENERGY_UNIT, FORCE_UNIT = "kcal_per_mol", "kcal_per_mol_per_angstrom"

# Each number is the ratio of two sums, or its root.
_POOLED = {
    f"force_mae_{FORCE_UNIT}": ("force_abs", "force_components"),
    f"force_rmse_{FORCE_UNIT}": ("force_sq", "force_components"),
    f"energy_mae_{ENERGY_UNIT}": ("energy_abs", "energies"),
    f"energy_rmse_{ENERGY_UNIT}": ("energy_sq", "energies"),
    f"total_energy_mae_{ENERGY_UNIT}": ("total_abs", "conformers"),
    f"total_energy_rmse_{ENERGY_UNIT}": ("total_sq", "conformers"),
    f"total_energy_mae_{ENERGY_UNIT}_per_atom": ("per_atom_abs", "conformers"),
    f"total_energy_rmse_{ENERGY_UNIT}_per_atom": ("per_atom_sq", "conformers"),
}
_BY_MOLECULE = {
    f"force_mean_molecule_rmse_{FORCE_UNIT}": ("force_of_molecules", "molecules_with_forces"),
    f"energy_mean_molecule_rmse_{ENERGY_UNIT}": ("energy_of_molecules", "molecules_with_energies"),
}
COUNTS = ("molecules", "conformers", "energies", "force_components")


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of one model on one split, in rows: a row is one conformer, or several of one molecule of which only sums are known.

    Attributes:
        molecule: number of the molecule, in the order of the names (`numbers_of`), shape (n_rows,).
        source: position in `sources`, shape (n_rows,).
        sources: names.
        n_conformers: of the row, shape (n_rows,).
        energy: mean of ΔE over the row [kcal/mol], shape (n_rows,).
        energy_scatter: Σ (ΔE - that mean)² [(kcal/mol)²], 0 for a conformer, shape (n_rows,).
        n_components: number of force labels, shape (n_rows,).
        force_sq: Σ ΔF² [(kcal/mol/Å)²], shape (n_rows,).
        force_abs: Σ |ΔF| [kcal/mol/Å], shape (n_rows,); None where rows are not conformers.
        n_atoms: of the molecule, shape (n_rows,); None where predicted energies have not the labels' zero, or rows are not conformers.
    """

    molecule: LongArray
    source: LongArray
    sources: tuple[str, ...]
    n_conformers: LongArray
    energy: FloatArray
    energy_scatter: FloatArray
    n_components: LongArray
    force_sq: FloatArray
    force_abs: FloatArray | None = None
    n_atoms: LongArray | None = None

    @classmethod
    def of_conformers(  # noqa: PLR0913 - what is known of a conformer
        cls,
        *,
        molecule: LongArray,
        source: LongArray,
        sources: Sequence[str],
        energy: FloatArray,
        n_components: LongArray,
        force_sq: FloatArray,
        force_abs: FloatArray,
        n_atoms: LongArray | None,
    ) -> Errors:
        """Make the table of single conformers, in the order of their molecule's trajectory; arguments are as the attributes."""
        n, zeros = np.ones(len(energy), dtype=np.int64), np.zeros(len(energy))
        return cls(molecule, source, tuple(sources), n, energy, zeros, n_components, force_sq, force_abs, n_atoms)

    @property
    def molecule_in_source(self) -> LongArray:
        """Number of what shares an energy zero: a molecule in one source, shape (n_rows,)."""
        return self.molecule * len(self.sources) + self.source

    @property
    def relative_energy(self) -> FloatArray:
        """ΔE' [kcal/mol], mean of the row, shape (n_rows,); 0 for a molecule with a single conformer."""
        _, number = np.unique(self.molecule_in_source, return_inverse=True)
        means = np.bincount(number, self.n_conformers * self.energy) / np.bincount(number, self.n_conformers)
        return np.asarray(self.energy - means[number])


def numbers_of(names: Sequence[Hashable]) -> LongArray:
    """Number names in their order, from 0, shape (n_names,): molecules by data set and group, so that all stages draw alike."""
    number = {name: i for i, name in enumerate(sorted(set(names)))}  # type: ignore[type-var]
    return np.array([number[name] for name in names], dtype=np.int64)


def summarize(errors: Errors) -> dict[str, dict[str, Any]]:
    """Summarize the errors of a split.

    Returns:
        `{source: {key: value}}` with the keys of this module, and `ALL` for the whole split; keys without labels are left out.
    """
    names, columns = _columns(errors)
    groups = {ALL: np.ones(len(columns), dtype=np.bool_)}
    groups |= {name: errors.source == i for i, name in enumerate(errors.sources)}
    return {name: _summary(errors, names, columns, which) for name, which in groups.items() if which.any()}


def interval_of(summary: Mapping[str, Any], key: str) -> Sequence[float] | None:
    """Return the interval of a number: over molecules or, of a single molecule, within it; None where there is neither."""
    found: Sequence[float] | None = summary.get(f"{key}_interval_95") or summary.get(f"{key}_interval_95_within_molecule")
    return found


def resampled(summary: Mapping[str, Any]) -> str | None:
    """Return what the intervals of a summary are over: `molecules`, `blocks` of the frames of a single one, or nothing."""
    if any(key.endswith("_within_molecule") for key in summary):
        return "blocks"
    return "molecules" if any(value for key, value in summary.items() if key.endswith("_interval_95")) else None


def pooled(errors: Errors) -> dict[str, float]:
    """Return the errors of a whole split over all its conformers, without intervals: what a learning curve shows."""
    names, columns = _columns(errors)
    keys = _keys(names, _POOLED)
    values = keys.values(columns.sum(axis=0)[None, :])[0]
    return {name: float(value) for name, value in zip(keys.names, values, strict=True) if np.isfinite(value)}


def _columns(errors: Errors) -> tuple[list[str], FloatArray]:
    """Return what is summed over rows: names of columns, and values, shape (n_rows, n_columns)."""
    _, first, number = np.unique(errors.molecule_in_source, return_index=True, return_inverse=True)
    relative, n = errors.relative_energy, errors.n_conformers
    columns: dict[str, FloatArray] = {
        "conformers": n.astype(np.float64),
        "energies": np.where(np.bincount(number, n)[number] > 1, n, 0.0),
        "energy_sq": errors.energy_scatter + n * relative**2,
        "force_components": errors.n_components.astype(np.float64),
        "force_sq": errors.force_sq,
    }
    if errors.force_abs is not None:
        columns |= {"force_abs": errors.force_abs, "energy_abs": np.abs(relative)}
    if errors.n_atoms is not None:
        for name, total in (("total", errors.energy), ("per_atom", errors.energy / errors.n_atoms)):
            columns |= {f"{name}_abs": np.abs(total), f"{name}_sq": total**2}
    for quantity, count, present in (
        ("energy", "energies", "molecules_with_energies"),
        ("force", "force_components", "molecules_with_forces"),
    ):  # a molecule's own error stands in its first row
        counts = np.bincount(number, columns[count])
        own = np.sqrt(np.bincount(number, columns[f"{quantity}_sq"]) / np.maximum(counts, 1.0))
        of_molecules, with_labels = np.zeros((2, len(number)))
        of_molecules[first], with_labels[first] = np.where(counts > 0.0, own, 0.0), counts > 0.0
        columns |= {f"{quantity}_of_molecules": of_molecules, present: with_labels}
    return list(columns), np.stack(list(columns.values()), axis=1)


@dataclass(frozen=True, eq=False)
class _Keys:
    """Numbers as functions of sums: columns of numerators and denominators, and whether the root is taken, each of length n_names."""

    names: list[str]
    numerator: list[int]
    denominator: list[int]
    is_root: BoolArray

    def values(self, sums: FloatArray) -> FloatArray:
        """Return the numbers, shape (n, n_names), from sums, shape (n, n_columns); NaN where nothing counts."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = sums[:, self.numerator] / sums[:, self.denominator]
        return np.where(self.is_root, np.sqrt(ratios), ratios)


def _keys(columns: list[str], numbers: dict[str, tuple[str, str]]) -> _Keys:
    known = {name: pair for name, pair in numbers.items() if pair[0] in columns}
    return _Keys(
        list(known),
        [columns.index(numerator) for numerator, _ in known.values()],
        [columns.index(denominator) for _, denominator in known.values()],
        np.array([numerator.endswith("_sq") for numerator, _ in known.values()]),
    )


def _summary(errors: Errors, names: list[str], columns: FloatArray, which: BoolArray) -> dict[str, Any]:
    columns, molecule = columns[which], errors.molecule[which]
    sums = columns.sum(axis=0)
    totals = dict(zip(names, sums.tolist(), strict=True)) | {"molecules": len(np.unique(molecule))}
    summary: dict[str, Any] = {name: int(totals[name]) for name in COUNTS}
    squares = None if errors.force_abs is None else columns[:, [names.index("energy_sq"), names.index("force_sq")]]
    units, keys = units_of(molecule, squares), _keys(names, _POOLED | _BY_MOLECULE)
    found = [None] * len(keys.names) if units is None else intervals(columns, units.number, keys.values)
    for name, value, counted, interval in zip(keys.names, keys.values(sums[None, :])[0], keys.denominator, found, strict=True):
        if not np.isfinite(value):
            continue
        enough = units is not None and len(np.unique(units.number[columns[:, counted] > 0.0])) >= MIN_UNITS
        ends = list(interval) if interval is not None and enough else None
        within = units is not None and units.kind == "blocks"
        summary |= {name: float(value), f"{name}_interval_95": None if within else ends}
        if within and name in _POOLED:
            summary[f"{name}_interval_95_within_molecule"] = ends
    return summary
