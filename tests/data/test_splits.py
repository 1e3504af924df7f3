"""The file of splits: written, read, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pesfit.core.exceptions import DataError
from pesfit.data.splits import TEST, TRAIN, UNUSED, VALIDATION, SplitRow, Splits, write_splits

ROWS = [
    SplitRow("xtb", "a/0", "CCO", np.array([TRAIN, TEST, UNUSED, TRAIN], dtype=np.uint8)),
    SplitRow("md17", "a/0", "CCO", np.array([VALIDATION], dtype=np.uint8)),
    SplitRow("md17", "b/0", "CO", np.array([], dtype=np.uint8)),
]


def test_comes_back_as_it_went_in(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits.arrow", ROWS)
    splits = Splits.open(tmp_path / "splits.arrow")
    assert len(splits) == 3
    for read, written in zip(splits, ROWS, strict=True):
        assert (read.dataset, read.id, read.group) == (written.dataset, written.id, written.group)
        np.testing.assert_array_equal(read.split, written.split)
        assert read.split.dtype == np.uint8
    assert splits.conformers("xtb", "a/0", "train").tolist() == [0, 3]
    assert splits.of("md17", "a/0").tolist() == [VALIDATION]


def test_no_rows(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits.arrow", [])
    assert len(Splits.open(tmp_path / "splits.arrow")) == 0


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(DataError, match="hold no row 'c' of data set 'xtb'"):
        Splits(ROWS).of("xtb", "c")


def test_ids_are_unique(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'xtb' has two rows with id 'a/0'"):
        write_splits(tmp_path / "splits.arrow", [ROWS[0], ROWS[1], ROWS[0]])
    assert not (tmp_path / "splits.arrow").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.arrow"
    with pytest.raises(DataError, match=r"splits\.arrow is missing; stage 05_split writes it"):
        Splits.open(path)
    write_splits(path, ROWS)
    whole = path.read_bytes()
    for content in (b"", b"something else", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as an Arrow file"):
            Splits.open(path)
    table = pa.table({"id": ["a"]})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    with pytest.raises(DataError, match="format version None and columns id; this version reads 1"):
        Splits.open(path)
