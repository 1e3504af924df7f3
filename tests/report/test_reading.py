"""Metrics and tables of earlier stages as plain values."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesfit.core.exceptions import DataError
from pesfit.report.reading import read_json, read_rows


def test_json_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert read_rows(tmp_path / "a.csv", ("y",)) == [{"x": "1", "y": "2"}]
    with pytest.raises(DataError, match=r"a\.csv has no column z, w"):
        read_rows(tmp_path / "a.csv", ("x", "z", "w"))
