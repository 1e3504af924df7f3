"""Statistics of a shard's molecules in a file, so that a run that was killed goes on, and memory holds one shard at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.core.exceptions import Failure
from pesfit.core.files import atomic_write
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics

FORMAT_VERSION = 1
_MATRICES = ("energy", "forces")
_VECTORS = ("columns", "uses", "mean", "lowest")
_SCALARS = tuple(field.name for field in fields(MoleculeStatistics) if field.name not in _MATRICES + _VECTORS)


@dataclass(frozen=True)
class Entry:
    """One molecule's conformers in one split.

    Attributes:
        molecule: its name.
        source: of its rows.
        split: train, validation or test.
        plain: statistics in which all conformers count alike; errors are reported from them.
        weighted: statistics with the objective's conformer weights; the same object as `plain` where there are none.
    """

    molecule: str
    source: str
    split: str
    plain: MoleculeStatistics
    weighted: MoleculeStatistics


@dataclass(frozen=True)
class Shard:
    """What became of a shard's molecules."""

    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...]


def save_shard(path: Path, shard: Shard) -> None:
    """Write a shard; it is whole or not there."""
    statistics: list[MoleculeStatistics] = []
    for entry in shard.entries:
        statistics.extend([entry.plain] if entry.weighted is entry.plain else [entry.plain, entry.weighted])
    lists: dict[str, list[Any]] = {name: [getattr(s, name) for s in statistics] for name in (*_SCALARS, *_VECTORS)}
    arrays: dict[str, np.ndarray] = {name: np.array(lists[name], dtype=np.float64) for name in _SCALARS}
    for name in _VECTORS:
        arrays[name] = np.concatenate(lists[name]) if statistics else np.zeros(0)
    for name in _MATRICES:
        packed = [getattr(s, name)[np.triu_indices(len(s.mean))] for s in statistics]
        arrays[name] = np.concatenate(packed) if packed else np.zeros(0)
    arrays["sizes"] = np.array([len(s.columns) for s in statistics], dtype=np.int64)
    arrays["has_weighted"] = np.array([entry.weighted is not entry.plain for entry in shard.entries], dtype=bool)
    for name in ("molecule", "source", "split"):
        arrays[f"entry.{name}"] = np.array([getattr(entry, name) for entry in shard.entries], dtype=np.str_)
    for name in ("id", "stage", "kind", "message"):
        arrays[f"failure.{name}"] = np.array([getattr(failure, name) for failure in shard.failures], dtype=np.str_)
    with atomic_write(path, sync=True) as new, new.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_shard(path: Path) -> Shard:
    """Read what `save_shard` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    statistics = iter(_unpack(arrays))
    entries = []
    labels: Sequence[Any] = [arrays[f"entry.{name}"].tolist() for name in ("molecule", "source", "split")]
    for molecule, source, split, has_weighted in zip(*labels, arrays["has_weighted"].tolist(), strict=True):
        plain = next(statistics)
        entries.append(Entry(molecule, source, split, plain, next(statistics) if has_weighted else plain))
    rows = zip(*(arrays[f"failure.{name}"].tolist() for name in ("id", "stage", "kind", "message")), strict=True)
    return Shard(tuple(entries), tuple(Failure(*row) for row in rows))


def _unpack(arrays: dict[str, np.ndarray]) -> list[MoleculeStatistics]:
    found = []
    at = dict.fromkeys((*_VECTORS, *_MATRICES), 0)
    for i, n in enumerate(arrays["sizes"].tolist()):
        values: dict[str, Any] = {name: float(arrays[name][i]) for name in _SCALARS}
        for name in ("n_atoms", "n_conformers", "n_force_conformers"):
            values[name] = int(values[name])
        for name in _VECTORS:
            length = n if name in ("columns", "uses") else n + 1
            values[name] = arrays[name][at[name] : at[name] + length]
            at[name] += length
        for name in _MATRICES:
            length = (n + 1) * (n + 2) // 2
            matrix = np.zeros((n + 1, n + 1))
            matrix[np.triu_indices(n + 1)] = arrays[name][at[name] : at[name] + length]
            values[name] = matrix + np.triu(matrix, 1).T
            at[name] += length
        found.append(MoleculeStatistics(**values))
    return found
