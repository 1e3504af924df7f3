"""Rows and data sets without real molecules in them, for the tests of splitting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record, open_datasets
from pesfit.data.splits import UNUSED
from pesfit.split.rows import RowAssignment


def make_row(id_: str, source: str = "md17", group: str = "CCO", frame: Iterable[int] = range(10)) -> RowAssignment:
    """Return a row with nothing assigned."""
    frames = np.fromiter(frame, dtype=np.int64)
    return RowAssignment(
        source.split("/", 1)[0], id_, source, group, None, frames, np.full(len(frames), UNUSED, dtype=np.uint8)
    )


def make_chunks(n_frames: int, source: str = "md17", group: str = "CCO", size: int = 100) -> list[RowAssignment]:
    """Return a trajectory as it is stored: rows of so many frames."""
    return [
        make_row(f"{group}/{start // size:05d}", source, group, range(start, min(start + size, n_frames)))
        for start in range(0, n_frames, size)
    ]


def write_datasets(folder: Path, records: Iterable[tuple[str, str, str, Iterable[int]]]) -> Mapping[str, ConformerDataset]:
    """Write data sets of one-atom records.

    Args:
        folder: for the data sets, each named by the first part of its source.
        records: id, source, SMILES (also the group) and frames of each.
    """
    by_name: dict[str, list[Record]] = {}
    for id_, source, smiles, frame in records:
        frames = np.fromiter(frame, dtype=np.int64)
        record = Record(
            id=id_,
            smiles=smiles,
            atomic_numbers=np.array([6], dtype=np.int32),
            coords=np.zeros((len(frames), 1, 3)),
            energy=np.zeros(len(frames)),
            forces=None,
            charges=None,
            total_charge=0,
            group=smiles,
            source=source,
            frame=frames,
        )
        by_name.setdefault(source.split("/", 1)[0], []).append(record)
    for name, members in by_name.items():
        with DatasetWriter(folder / name, {record.source: "none" for record in members}) as writer:
            for record in members:
                writer.write(record)
    return open_datasets(folder)
