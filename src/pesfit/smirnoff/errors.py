"""Errors before and after a fit, by split and source, with intervals.

Two definitions, because publications use both: the root of the mean square over all labels, and the mean over molecules of each
molecule's own root mean square. Energies are relative to the mean of the molecule's conformers in the split (a single conformer says
nothing and is left out), forces are counted by component.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.data.splits import SPLITS
from pesfit.smirnoff.exact.molecule_statistics import ShardStatistics

_INTERVAL = (2.5, 97.5)
_RESAMPLES_AT_ONCE = 2**22
"""Numbers in the array of resampled counts."""


@dataclass(frozen=True)
class MoleculeErrors:
    """Sums of squared errors of each molecule in each split.

    Attributes:
        molecule, source, split: names, length n.
        n_conformers: shape (n,).
        n_energies, n_components: number of energies and of force components that count, shape (n,).
        energy: Σ (ΔE)², [(kcal/mol)²], of each of several force fields, shape (n_force_fields, n).
        forces: Σ |ΔF|², [(kcal/mol/Å)²], likewise.
    """

    molecule: tuple[str, ...]
    source: tuple[str, ...]
    split: tuple[str, ...]
    n_conformers: FloatArray
    n_energies: FloatArray
    n_components: FloatArray
    energy: FloatArray
    forces: FloatArray


def molecule_errors(shards: Iterable[ShardStatistics], xs: Sequence[FloatArray]) -> MoleculeErrors:
    """Evaluate force fields on all molecules, from their statistics alone.

    Args:
        shards: in order.
        xs: trained vectors, each of shape (n,).
    """
    names: list[tuple[str, str, str]] = []
    counts: list[tuple[int, int, int]] = []
    errors: list[list[tuple[float, float]]] = []
    for shard in shards:
        for entry in shard.entries:
            names.append((entry.molecule, entry.source, entry.split))
            size = entry.plain.n_conformers
            counts.append((size if size > 1 else 0, size, entry.plain.n_force_components))
            errors.append([entry.plain.squared_errors(x) for x in xs])
    molecule, source, split = zip(*names, strict=True) if names else ((), (), ())
    values = np.array(errors, dtype=np.float64).reshape(len(names), len(xs), 2)
    n_energies, n_conformers, n_components = np.array(counts, dtype=np.float64).reshape(-1, 3).T
    return MoleculeErrors(molecule, source, split, n_conformers, n_energies, n_components, values[:, :, 0].T, values[:, :, 1].T)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        n_resamples: resamples of the molecules.
        seed: of the resamples.
    """

    n_resamples: int
    seed: int


def summarise(errors: MoleculeErrors, labels: Sequence[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Summarise errors by split, source (`all` for the whole split) and force field.

    Args:
        errors: of the force fields.
        labels: names of the force fields, such as `before` and `after`.
        bootstrap: for the intervals of 95 %.

    Returns:
        `{split: {source: {label: {name: value}}}}`; intervals are None where there are fewer than two molecules.
    """
    result: dict[str, Any] = {}
    split, source = np.array(errors.split, dtype=object), np.array(errors.source, dtype=object)
    for name in SPLITS:
        inside = split == name
        if not inside.any():
            continue
        groups = {"all": inside} | {str(s): inside & (source == s) for s in sorted(set(errors.source))}
        result[name] = {group: _group(errors, which, labels, bootstrap) for group, which in groups.items() if which.any()}
    return result


def _group(errors: MoleculeErrors, which: BoolArray, labels: Sequence[str], bootstrap: Bootstrap) -> dict[str, Any]:
    n_energies, n_components = errors.n_energies[which], errors.n_components[which]
    summary: dict[str, Any] = {
        "molecules": int(which.sum()),
        "conformers": int(errors.n_conformers[which].sum()),
        "force_components": int(n_components.sum()),
    }
    for number, label in enumerate(labels):
        summary[label] = {
            **_quantity("energy", "kcal_per_mol", errors.energy[number, which], n_energies, bootstrap),
            **_quantity("force", "kcal_per_mol_per_angstrom", errors.forces[number, which], n_components, bootstrap),
        }
    return summary


def _quantity(name: str, unit: str, squares: FloatArray, counts: FloatArray, bootstrap: Bootstrap) -> dict[str, Any]:
    present = counts > 0
    if not present.any():
        return {}
    squares, counts = squares[present], counts[present]
    each = np.sqrt(squares / counts)
    pooled, by_molecule = _resampled(squares, counts, each, bootstrap)
    return {
        f"{name}_rmse_{unit}": float(np.sqrt(squares.sum() / counts.sum())),
        f"{name}_rmse_{unit}_interval_95": pooled,
        f"{name}_mean_molecule_rmse_{unit}": float(each.mean()),
        f"{name}_mean_molecule_rmse_{unit}_interval_95": by_molecule,
    }


def _resampled(
    squares: FloatArray, counts: FloatArray, each: FloatArray, bootstrap: Bootstrap
) -> tuple[list[float] | None, list[float] | None]:
    """Return percentile intervals over resamples of molecules (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""
    n = len(each)
    if n < 2:
        return None, None
    rng, n_resamples = np.random.default_rng(bootstrap.seed), bootstrap.n_resamples
    pooled, by_molecule = np.empty(n_resamples), np.empty(n_resamples)
    at_once = max(1, _RESAMPLES_AT_ONCE // n)
    for start in range(0, n_resamples, at_once):
        chunk = slice(start, min(start + at_once, n_resamples))
        drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=chunk.stop - start).astype(np.float64)
        pooled[chunk] = np.sqrt((drawn @ squares) / (drawn @ counts))
        by_molecule[chunk] = drawn @ each / n
    return [float(v) for v in np.percentile(pooled, _INTERVAL)], [float(v) for v in np.percentile(by_molecule, _INTERVAL)]


def improvement(summary: Mapping[str, Any], before: str, after: str) -> dict[str, float]:
    """Return by how much errors fell, as a fraction, for each split as a whole; 0.3 is an error smaller by 30 %."""
    result = {}
    for split, groups in summary.items():
        for key, value in groups["all"][before].items():
            if key.endswith("_interval_95"):
                continue
            quantity = key.split("_kcal_per_mol")[0]
            result[f"{split}_{quantity}_reduction"] = 1.0 - groups["all"][after][key] / value if value > 0.0 else 0.0
    return result
