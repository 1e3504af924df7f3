"""What was left out, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesfit.core.exceptions import DataError, Failure
from pesfit.data.dataset import write_failures
from pesfit.report.page.blocks import Table, Text
from pesfit.report.sections import failures

FOUND = [Failure("a", "convert", "MoleculeError", "no <bonds>"), Failure("b", "convert", "MoleculeError", "none either")]


def test_failures_are_counted_and_listed(tmp_path: Path) -> None:
    write_failures(tmp_path / "one.csv", FOUND[:1])
    write_failures(tmp_path / "two.csv", FOUND[1:])
    write_failures(tmp_path / "none.csv", [])
    files = {"02_convert": [tmp_path / "one.csv", tmp_path / "two.csv"], "04_cluster": [tmp_path / "none.csv"]}
    read = failures.read_all(files)
    assert read == {"02_convert": FOUND, "04_cluster": []}
    _, counts, each = failures.section(read).blocks
    assert isinstance(counts, Table)
    assert isinstance(each, Table)
    assert list(counts.rows) == [
        {"stage": "02_convert", "failures": 2, "reasons": "MoleculeError (2)"},
        {"stage": "04_cluster", "failures": 0, "reasons": "none"},
    ]
    assert [row["message"] for row in each.rows] == ["no <bonds>", "none either"]
    assert each.folded


def test_none_is_said_plainly() -> None:
    (text,) = failures.section({"02_convert": [], "04_cluster": []}).blocks
    assert isinstance(text, Text)
    assert text.text.startswith("None: in 2 stages")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"failures\.csv is missing; .*02_convert"):
        failures.read_all({"02_convert": [tmp_path / "failures.csv"]})
