"""Errors of force fields before and after a fit, by split and source: `statistics.errors` of the molecules' sums.

The constants m²/(2k) of harmonic terms are missing from the means. They are the same for all rows of a molecule, and so drop out of errors
relative to the molecule's mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.data.splits import SPLITS, Splits
from pesfit.smirnoff.exact.molecule_statistics import ShardStatistics
from pesfit.smirnoff.fit_data import MoleculeRows
from pesfit.statistics.errors import COUNTS, Errors, numbers_of, summarize


@dataclass(frozen=True)
class ErrorRow:
    """Errors of some conformers of one molecule in one split, of each of several force fields.

    Attributes:
        molecule, source, split: names (`fit_data.MoleculeRows.id`).
        n_conformers, n_components: number of energies and of force components.
        sums: mean of ΔE [kcal/mol], Σ (ΔE - mean)² [(kcal/mol)²] and Σ ΔF² [(kcal/mol/Å)²], shape (n_force_fields, 3).
    """

    molecule: str
    source: str
    split: str
    n_conformers: int
    n_components: int
    sums: FloatArray


def exact_errors(shards: Iterable[ShardStatistics], xs: Sequence[FloatArray]) -> Iterator[ErrorRow]:
    """Yield errors of force fields on all molecules, from their statistics alone.

    Args:
        shards: in order.
        xs: trained vectors, each of shape (n,).
    """
    for shard in shards:
        for entry in shard.entries:
            sums = np.array([entry.plain.error_sums(x) for x in xs])
            plain = entry.plain
            yield ErrorRow(entry.molecule, entry.source, entry.split, plain.n_conformers, plain.n_force_components, sums)


def summarize_rows(
    rows: Iterable[ErrorRow], labels: Sequence[str], molecules: Iterable[MoleculeRows], splits: Splits
) -> dict[str, Any]:
    """Summarize errors by split, source (`all` for the whole split) and force field.

    Args:
        rows: of the force fields, in any order.
        labels: names of the force fields, such as `before` and `after`.
        molecules: that rows may be of.
        splits: with each molecule's `group`.

    Returns:
        `{split: {source: {**counts, label: {key: value}}}}` (`statistics.errors.summarize`).
    """
    names = {m.id: (m.dataset, splits.row(m.dataset, m.ids[0]).group) for m in molecules}
    ordered = sorted(rows, key=lambda row: (names[row.molecule], row.source, row.molecule))
    result: dict[str, Any] = {}
    for split in SPLITS:
        inside = [row for row in ordered if row.split == split]
        for label, errors in zip(labels, _errors(inside, names) if inside else (), strict=bool(inside)):
            for source, summary in summarize(errors).items():
                group = result.setdefault(split, {}).setdefault(source, {name: summary[name] for name in COUNTS})
                group[label] = {key: value for key, value in summary.items() if key not in COUNTS}
    return result


def _errors(rows: Sequence[ErrorRow], names: Mapping[str, tuple[str, str]]) -> list[Errors]:
    sources = sorted({row.source for row in rows})
    return [
        Errors(
            molecule=numbers_of([names[row.molecule] for row in rows]),
            source=np.array([sources.index(row.source) for row in rows]),
            sources=tuple(sources),
            n_conformers=np.array([row.n_conformers for row in rows]),
            energy=mean,
            energy_scatter=scatter,
            n_components=np.array([row.n_components for row in rows]),
            force_sq=forces,
        )
        for mean, scatter, forces in np.array([row.sums for row in rows]).transpose(1, 2, 0)
    ]


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
