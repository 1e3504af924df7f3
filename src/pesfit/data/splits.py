"""Membership of every conformer in training, validation or test set, as stage 05 writes it and fits read it.

One Arrow file, one row for each row of the data sets: `dataset` (its name), `id`, `group` (molecules that share it were kept
together), and `split`, one number for each conformer in the row's own order. Bytes depend on the rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError

SplitArray: TypeAlias = npt.NDArray[np.uint8]

FORMAT_VERSION = 1
TRAIN, VALIDATION, TEST, UNUSED = 0, 1, 2, 255
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
"""Numbers in the `split` column, by name; `UNUSED` conformers are in none."""

_SCHEMA = pa.schema(
    [("dataset", pa.string()), ("id", pa.string()), ("group", pa.string()), ("split", pa.list_(pa.uint8()))],
    metadata={"pesfit": json.dumps({"format_version": FORMAT_VERSION, "splits": SPLITS | {"unused": UNUSED}}, sort_keys=True)},
)
_ROWS_A_BATCH = 10_000


@dataclass(frozen=True)
class SplitRow:
    """The splits of one row of a data set.

    Attributes:
        dataset: name of the data set, as `open_datasets` gives it.
        id: of the record.
        group: the molecules that were kept together with this one, under one name.
        split: for each conformer a number of `SPLITS`, or `UNUSED`; shape (n_conformers,).
    """

    dataset: str
    id: str
    group: str
    split: SplitArray


class Splits:
    """The splits of all data sets.

    Args:
        rows: one for each row of each data set.

    Example:
        >>> import pesfit
        >>> splits = pesfit.Splits.open("data/splits/splits.arrow")
        >>> for name, dataset in pesfit.open_datasets("data/clustered").items():
        ...     training = [record.select(splits.conformers(name, record.id, "train")) for record in dataset]
    """

    def __init__(self, rows: Iterable[SplitRow]) -> None:
        self._rows = {(row.dataset, row.id): row for row in rows}

    @classmethod
    def open(cls, path: Path | str) -> Splits:
        """Read what `write_splits` wrote.

        Args:
            path: such as `data/splits/splits.arrow`.

        Raises:
            DataError: where it is missing, cannot be read, or has another format version.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path} is missing; stage 05_split writes it")
        try:
            table = pa.ipc.open_file(path.read_bytes()).read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read as an Arrow file: {error}") from error
        version = json.loads((table.schema.metadata or {}).get(b"pesfit", b"{}")).get("format_version")
        if version != FORMAT_VERSION or table.schema.names != _SCHEMA.names:
            raise DataError(
                f"{path} has format version {version} and columns {', '.join(table.schema.names)}; this version reads "
                f"{FORMAT_VERSION} with {', '.join(_SCHEMA.names)}"
            )
        names = (table.column(name).to_pylist() for name in ("dataset", "id", "group"))
        splits = (scalar.values.to_numpy() for chunk in table.column("split").chunks for scalar in chunk)
        return cls(SplitRow(*row) for row in zip(*names, splits, strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SplitRow]:
        return iter(self._rows.values())

    def row(self, dataset: str, id: str) -> SplitRow:  # noqa: A002 - the column is called id
        """Return the splits of one row of a data set.

        Raises:
            DataError: where the splits know no such row.
        """
        found = self._rows.get((dataset, id))
        if found is None:
            raise DataError(f"the splits hold no row {id!r} of data set {dataset!r}; were they made from other data?")
        return found

    def of(self, dataset: str, id: str) -> SplitArray:  # noqa: A002
        """Return the number of each conformer's split (`SPLITS`, or `UNUSED`), shape (n_conformers,).

        Raises:
            DataError: where the splits know no such row.
        """
        return self.row(dataset, id).split

    def conformers(self, dataset: str, id: str, split: str) -> LongArray:  # noqa: A002
        """Return the positions of a row's conformers that are in a split, for `Record.select`.

        Args:
            dataset: name of the data set.
            id: of the record.
            split: a key of `SPLITS`.

        Raises:
            DataError: where the splits know no such row.
        """
        return np.flatnonzero(self.of(dataset, id) == SPLITS[split])


def write_splits(path: Path, rows: Iterable[SplitRow]) -> None:
    """Write the splits as one Arrow file.

    Raises:
        DataError: where two rows have one id in one data set.
    """
    rows = list(rows)
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row.dataset, row.id) in seen:
            raise DataError(f"data set {row.dataset!r} has two rows with id {row.id!r}; ids are unique")
        seen.add((row.dataset, row.id))
    with pa.ipc.new_file(path, _SCHEMA) as file:
        for start in range(0, len(rows), _ROWS_A_BATCH):
            batch = rows[start : start + _ROWS_A_BATCH]
            columns = [pa.array([getattr(row, name) for row in batch], type=_SCHEMA.field(name).type) for name in _SCHEMA.names]
            file.write_batch(pa.record_batch(columns, schema=_SCHEMA))
