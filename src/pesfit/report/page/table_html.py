"""Tables as a reader sees them: cells as text, intervals beside their numbers, the best value of a group marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from pesfit.report.page.blocks import Cell, Column, Table
from pesfit.report.page.format_numbers import formatter, number, shared_decimals

_Row = Mapping[str, Cell]

_LONG = 28
"""Characters from which text may take several lines."""


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
        is_long: whether it holds text that may be broken into lines.
    """

    label: str
    unit: str
    is_number: bool
    has_range: bool
    is_long: bool


@dataclass(frozen=True)
class Group:
    """Rows that stand together, under a line of their own where they have a name."""

    name: str | None
    rows: list[list[ShownCell]]


def head(table: Table) -> list[ShownColumn]:
    """Return the columns of a table."""
    return [
        ShownColumn(
            column.label, column.unit, _is_number(table.rows, column), _has_spread(column), _is_long(table.rows, column)
        )
        for column in table.columns
    ]


def body(table: Table) -> list[Group]:
    """Return the rows of a table; numbers have the same decimals down the rows of a group."""
    groups = []
    for name, members in groupby(table.rows, key=lambda row: None if table.group is None else str(row.get(table.group))):
        rows = list(members)
        writers = [_Writer.of(rows, column) for column in table.columns]
        groups.append(Group(name, [[writer.cell(row) for writer in writers] for row in rows]))
    return groups


@dataclass(frozen=True)
class _Writer:
    """How the cells of one column are written.

    Attributes:
        column: which.
        write: its numbers.
        write_error: likewise, their standard errors.
        best: the value that is marked; None for none.
    """

    column: Column
    write: Callable[[float], str]
    write_error: Callable[[float], str]
    best: float | None

    @classmethod
    def of(cls, rows: Sequence[_Row], column: Column) -> _Writer:
        values = _numbers(rows, column)
        write = formatter(values, column.digits)
        shared = shared_decimals(values, column.digits) is not None
        return cls(column, write, write if shared else partial(number, digits=2), _best(rows, column))

    def cell(self, row: _Row) -> ShownCell:
        value = row.get(self.column.key)
        spread = self._spread(row) if _has_spread(self.column) else None
        return ShownCell(_text(value, self.write), spread, self.best is not None and value == self.best)

    def _spread(self, row: _Row) -> str:
        if self.column.interval is not None:
            low, high = (_as_number(row.get(f"{self.column.interval}_{end}")) for end in ("low", "high"))
            return "" if low is None or high is None else f"{self.write(low)} – {self.write(high)}"
        error = _as_number(row.get(self.column.error or ""))
        return "" if error is None else f"± {self.write_error(error)}"


def _has_spread(column: Column) -> bool:
    return column.interval is not None or column.error is not None


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


def _is_long(rows: Sequence[_Row], column: Column) -> bool:
    return any(isinstance(value := row.get(column.key), str) and len(value) > _LONG for row in rows)


def _best(rows: Sequence[_Row], column: Column) -> float | None:
    values = [value for value in _numbers(rows, column) if math.isfinite(value)]
    if column.best is None or len(set(values)) < 2:  # nothing is best among equals
        return None
    return min(values) if column.best == "lowest" else max(values)
