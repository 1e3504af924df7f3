"""Tables as a reader sees them: cells as text, intervals beside their numbers, the best value of a group marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pesfit.analyse.blocks import Cell, Column, Table
from pesfit.analyse.numbers import formatter

_Row = Mapping[str, Cell]


@dataclass(frozen=True)
class ShownCell:
    """What stands in a cell.

    Attributes:
        text: of the value; empty where there is none.
        range: an interval or an error behind it; None in columns without.
        is_best: whether it is set in bold.
    """

    text: str
    range: str | None
    is_best: bool


@dataclass(frozen=True)
class ShownColumn:
    """What stands at the head of a column.

    Attributes:
        label: in words.
        unit: empty where there is none.
        is_number: whether all its values are numbers, which stand at the right.
        has_range: whether intervals stand behind them.
    """

    label: str
    unit: str
    is_number: bool
    has_range: bool


@dataclass(frozen=True)
class Group:
    """Rows that stand together, under a line of their own where they have a name."""

    name: str | None
    rows: list[list[ShownCell]]


def head(table: Table) -> list[ShownColumn]:
    """Return the columns of a table."""
    return [
        ShownColumn(column.label, column.unit, _is_number(table.rows, column), _has_spread(column)) for column in table.columns
    ]


def body(table: Table) -> list[Group]:
    """Return the rows of a table."""
    formats = [_format(table.rows, column) for column in table.columns]
    groups = []
    for name, members in groupby(table.rows, key=lambda row: None if table.group is None else str(row.get(table.group))):
        rows = list(members)
        best = [_best(rows, column) for column in table.columns]
        shown = [[_cell(row, *what) for what in zip(table.columns, formats, best, strict=True)] for row in rows]
        groups.append(Group(name, shown))
    return groups


def _cell(row: _Row, column: Column, write: Callable[[float], str], best: float | None) -> ShownCell:
    value = row.get(column.key)
    spread = _spread(row, column, write) if _has_spread(column) else None
    return ShownCell(_text(value, write), spread, best is not None and value == best)


def _has_spread(column: Column) -> bool:
    return column.interval is not None or column.error is not None


def _spread(row: _Row, column: Column, write: Callable[[float], str]) -> str:
    if column.interval is not None:
        low, high = (_as_number(row.get(f"{column.interval}_{end}")) for end in ("low", "high"))
        return "" if low is None or high is None else f"{write(low)} – {write(high)}"
    error = _as_number(row.get(column.error or ""))
    return "" if error is None else f"± {write(error)}"


def _text(value: Cell, write: Callable[[float], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else write(value)


def _as_number(value: Cell) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(rows: Sequence[_Row], column: Column) -> list[float]:
    return [value for row in rows if (value := _as_number(row.get(column.key))) is not None]


def _is_number(rows: Sequence[_Row], column: Column) -> bool:
    values = [value for row in rows if (value := row.get(column.key)) is not None]
    return bool(values) and len(_numbers(rows, column)) == len(values)


def _format(rows: Sequence[_Row], column: Column) -> Callable[[float], str]:
    return formatter(_numbers(rows, column), column.digits)


def _best(rows: Sequence[_Row], column: Column) -> float | None:
    values = [value for value in _numbers(rows, column) if math.isfinite(value)]
    if column.best is None or len(values) < 2:
        return None
    return min(values) if column.best == "lowest" else max(values)
