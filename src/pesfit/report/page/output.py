"""A report on disk: the page, its figures as PNG, its tables as CSV, and all numbers as JSON."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pesfit.core.files import rounded, write_json
from pesfit.report.page.blocks import Cell, Facts, Figure, Section, Table
from pesfit.report.page.figures import render
from pesfit.report.page.html import make_page

PAGE, FIGURES, TABLES, NUMBERS = "index.html", "figures", "tables", "numbers.json"

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DIGITS = 10
_Named = TypeVar("_Named", Table, Figure, Facts)
_Json: TypeAlias = str | float | int | bool | None


def write_report(output: Path, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Write a report; bytes depend on the arguments alone.

    Writes to `output`: `index.html`, `figures/<name>.png`, `tables/<name>.csv`, and `numbers.json`, with an entry for each section
    that holds its tables and facts by name.

    Args:
        output: folder.
        title: heading of the page.
        subtitle: a line below it.
        sections: in order.

    Raises:
        ValueError: if a name or an anchor cannot be a file's name or stands for two things, or a row lacks a column of its table.
    """
    _check(sections)
    figures = {figure.name: render(figure) for figure in _all(sections, Figure)}
    output.mkdir(parents=True, exist_ok=True)
    for folder in (FIGURES, TABLES):
        (output / folder).mkdir(exist_ok=True)
    for name, rendered in figures.items():
        (output / FIGURES / f"{name}.png").write_bytes(rendered.png)
    for table in _all(sections, Table):
        _write_csv(output / TABLES / f"{table.name}.csv", table)
    numbers = {section.id: _numbers(section) for section in sections}
    write_json(output / NUMBERS, numbers, indent=1, ascii_only=False)
    (output / PAGE).write_text(make_page(title, subtitle, sections, figures), encoding="utf-8")


def _all(sections: Sequence[Section], kind: type[_Named]) -> list[_Named]:
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]


def _check(sections: Sequence[Section]) -> None:
    tables, facts = _all(sections, Table), _all(sections, Facts)
    for kind, names in {
        "section": [section.id for section in sections],
        "figure": [figure.name for figure in _all(sections, Figure)],
        "table or list of facts": [table.name for table in tables] + [fact.name for fact in facts],
    }.items():
        for name, times in Counter(names).items():
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{kind} {name!r}: small letters, digits and hyphens are allowed in its name")
            if times > 1:
                raise ValueError(f"{kind} {name!r}: {times} have this name, one may")
    for table in tables:
        for row in table.rows:
            missing = [column.key for column in table.columns if column.key not in row]
            if missing:
                raise ValueError(f"table {table.name!r}: a row lacks {', '.join(missing)}; an empty cell is None")


def _keys(table: Table) -> list[str]:
    """Return keys in the order in which the rows have them, or the columns where there are none."""
    keys = dict.fromkeys(key for row in table.rows for key in row)
    return list(keys or dict.fromkeys(column.key for column in table.columns))


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _keys(table), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: rounded(value, _DIGITS) for key, value in row.items()} for row in table.rows)


def _numbers(section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in section.blocks:
        if isinstance(block, Table):
            found[block.name] = [{key: _json(row.get(key)) for key in _keys(block)} for row in block.rows]
        elif isinstance(block, Facts):
            found[block.name] = dict(block.items)
    return found


def _json(value: Cell) -> _Json:
    """Return what JSON can hold, which knows no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else rounded(value, _DIGITS)
