"""What splitting needs to know of the data: names and frames, no coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import LongArray
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import UNUSED, SplitArray


@dataclass(frozen=True)
class Row:
    """One row of a data set.

    Attributes:
        dataset: name of the data set.
        id: of the record.
        source: of the record.
        group: of the record: identity of its molecule.
        smiles: of the record.
        frame: of the record, shape (n_conformers,).
        split: number of each conformer's split, filled in by the rules, shape (n_conformers,).
    """

    dataset: str
    id: str
    source: str
    group: str
    smiles: str | None
    frame: LongArray
    split: SplitArray

    @property
    def n_conformers(self) -> int:
        """Number of conformers."""
        return len(self.split)


@dataclass(frozen=True)
class Frames:
    """The conformers of one molecule of one source, over all its rows, in the order of the source.

    Attributes:
        rows: the molecule's rows.
        frame: of each conformer, ascending, shape (n_frames,).
        row: which row each is in, shape (n_frames,).
        position: where in that row, shape (n_frames,).
    """

    rows: tuple[Row, ...]
    frame: LongArray
    row: LongArray
    position: LongArray

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Frames:
        """Put the conformers of rows in order; of equal frames, the earlier row's comes first."""
        rows = tuple(rows)
        frame = np.concatenate([row.frame for row in rows])
        row = np.repeat(np.arange(len(rows)), [one.n_conformers for one in rows])
        position = np.concatenate([np.arange(one.n_conformers) for one in rows])
        order = np.argsort(frame, kind="stable")
        return cls(rows, frame[order], row[order], position[order])

    def __len__(self) -> int:
        return len(self.frame)

    def assign(self, split: SplitArray) -> None:
        """Write splits into the rows.

        Args:
            split: for each frame, shape (n_frames,).
        """
        for i, row in enumerate(self.rows):
            mine = self.row == i
            row.split[self.position[mine]] = split[mine]


def read_rows(datasets: Mapping[str, ConformerDataset]) -> list[Row]:
    """Read the rows of all data sets, with nothing assigned yet."""
    rows = []
    for name, dataset in datasets.items():
        columns = [dataset.table.column(column).to_pylist() for column in ("id", "source", "group", "smiles")]
        frames = (scalar.values.to_numpy() for chunk in dataset.table.column("frame").chunks for scalar in chunk)
        for id_, source, group, smiles, frame in zip(*columns, frames, strict=True):
            rows.append(Row(name, id_, source, group, smiles, frame, np.full(len(frame), UNUSED, dtype=np.uint8)))
    return rows


def by_molecule(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Collect the rows of each molecule (`group`), molecules in alphabetical order."""
    molecules: dict[str, list[Row]] = {}
    for row in rows:
        molecules.setdefault(row.group, []).append(row)
    return dict(sorted(molecules.items()))
