"""A report on disk."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from pathlib import Path

import pytest

from pesfit.report.page.blocks import Column, Facts, Section, Table, Text
from pesfit.report.page.output import write_report
from tests.report.report_samples import sections


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(rows: list[dict[str, str | float | int | bool | None]], name: str = "t") -> Section:
    return Section("s", "S", [Table(name, "T", (Column("name", "name"), Column("value", "value")), rows)])


def test_same_sections_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(tmp_path / name, "Title", "Subtitle", sections())
    found = hashes(tmp_path / "one")
    assert found == hashes(tmp_path / "two")
    assert set(found) == {
        "index.html",
        "numbers.json",
        "figures/panels.png",
        "figures/fixed.png",
        "tables/open.csv",
        "tables/folded.csv",
        "tables/empty.csv",
    }


def test_files_have_all_digits_and_all_keys(tmp_path: Path) -> None:
    value = math.pi * 1e-7
    rows = [{"name": 'comma, quote " and\nline', "value": value, "more": None}, {"name": "b", "value": math.inf, "more": True}]
    section = Section("s", "S", [*table(rows).blocks, Facts("facts", [("profile", "small")]), Text("text")])
    write_report(tmp_path, "Title", "", [section])
    with (tmp_path / "tables/t.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["name"] == rows[0]["name"]
    assert float(first["value"]) == pytest.approx(value, rel=1e-9)
    assert (second["value"], second["more"]) == ("inf", "True")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["s"]
    assert numbers["facts"] == {"profile": "small"}
    assert numbers["t"][0]["value"] == pytest.approx(value, rel=1e-9)
    assert numbers["t"][1] == {"name": "b", "value": None, "more": True}  # JSON knows no infinity
    assert "3.14·10⁻⁷" in (tmp_path / "index.html").read_text()


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    write_report(tmp_path, "Title", "", [table([])])
    assert (tmp_path / "tables/t.csv").read_text() == "name,value\n"


@pytest.mark.parametrize("name", ["xtb/conformers", "../x", "A", "", "a b", "a--b"])
def test_a_name_is_a_files_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="small letters, digits and hyphens"):
        write_report(tmp_path, "Title", "", [table([], name)])
    assert not any(tmp_path.iterdir())


def test_two_things_have_two_names(tmp_path: Path) -> None:
    twice = Section("s", "S", [*table([]).blocks, Facts("t", [])])
    with pytest.raises(ValueError, match="table or list of facts 't': 2 have this name"):
        write_report(tmp_path, "Title", "", [twice])
    with pytest.raises(ValueError, match="section 's': 2 have this name"):
        write_report(tmp_path, "Title", "", [table([]), Section("s", "S")])


def test_a_row_has_all_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a row lacks value"):
        write_report(tmp_path, "Title", "", [table([{"name": "a"}])])
