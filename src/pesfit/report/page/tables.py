"""Tables and numbers as a reader sees them: rounded, with intervals beside the values and the best value of a group marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pesfit.report.page.blocks import Cell, Table, TableColumn

NARROW_SPACE = "\u202f"
MINUS = "\u2212"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST, _LARGEST = 1e-4, 1e6
_LONG = 28
"""Characters from which text may take several lines."""

_Row = Mapping[str, Cell]


@dataclass(frozen=True)
class ShownCell:
    """Content of a cell on the page.

    Attributes:
        text: of the value; empty where there is none.
        range: interval or standard error behind it; None in columns without.
        is_best: whether it is set in bold.
    """

    text: str
    range: str | None
    is_best: bool


@dataclass(frozen=True)
class ShownColumn:
    """Head of a column on the page.

    Attributes:
        label: in words.
        unit: empty where there is none.
        is_number: whether all its values are numbers, which are aligned right.
        has_range: whether intervals or standard errors follow the numbers.
        is_long: whether it holds text that may be broken into lines.
    """

    label: str
    unit: str
    is_number: bool
    has_range: bool
    is_long: bool


@dataclass(frozen=True)
class ShownGroup:
    """Rows below a line with the name that they share; without that line where `name` is None."""

    name: str | None
    rows: list[list[ShownCell]]


def head(table: Table) -> list[ShownColumn]:
    """Return the columns of a table."""
    return [_head(table.rows, column) for column in table.columns]


def body(table: Table) -> list[ShownGroup]:
    """Return the rows of a table; numbers have the same decimals down the rows of a group, or along a row (`Table.across`)."""
    groups = []
    for name, members in groupby(table.rows, key=lambda row: None if table.group is None else str(row.get(table.group))):
        rows = list(members)
        if table.across:
            groups.append(ShownGroup(name, [_cells_across(row, table.columns) for row in rows]))
            continue
        columns = [_cells(rows, column) for column in table.columns]
        groups.append(ShownGroup(name, [list(cells) for cells in zip(*columns, strict=True)]))
    return groups


def _head(rows: Sequence[_Row], column: TableColumn) -> ShownColumn:
    values = [value for row in rows if (value := row.get(column.key)) is not None]
    return ShownColumn(
        label=column.label,
        unit=column.unit,
        is_number=bool(values) and len(_numbers(rows, column.key)) == len(values),
        has_range=column.interval is not None or column.error is not None,
        is_long=any(isinstance(value, str) and len(value) > _LONG for value in values),
    )


def _cells(rows: Sequence[_Row], column: TableColumn) -> list[ShownCell]:
    numbers = _numbers(rows, column.key)
    write = formatter(numbers, column.digits)
    finite = {value for value in numbers if math.isfinite(value)}
    best = None
    if column.best is not None and len(finite) > 1:  # nothing is best among equals
        best = min(finite) if column.best == "lowest" else max(finite)
    shared = shared_decimals(numbers, column.digits) is not None
    write_error = write if shared else lambda value: number(value, 2)
    cells = []
    for row in rows:
        value, spread = row.get(column.key), None
        if column.interval is not None:
            ends = _numbers([row], f"{column.interval}_low") + _numbers([row], f"{column.interval}_high")
            spread = " – ".join(map(write, ends)) if len(ends) == 2 else ""
        elif column.error is not None:
            spread = "".join(f"± {write_error(error)}" for error in _numbers([row], column.error))
        cells.append(ShownCell(_text(value, write), spread, best is not None and value == best))
    return cells


def _cells_across(row: _Row, columns: Sequence[TableColumn]) -> list[ShownCell]:
    values = [value for column in columns for value in _numbers([row], column.key)]
    competing = {value for column in columns if column.best for value in _numbers([row], column.key) if math.isfinite(value)}
    write = formatter(values, max((column.digits for column in columns), default=3))
    best = None
    if len(competing) > 1:
        best = {"highest": max(competing), "smallest": min(competing, key=abs)}.get(str(row.get("best")), min(competing))
    return [
        ShownCell(
            _text(row.get(column.key), write), None, bool(column.best) and best is not None and row.get(column.key) == best
        )
        for column in columns
    ]


def _text(value: Cell, write: Callable[[float], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else write(value)


def _numbers(rows: Sequence[_Row], key: str) -> list[float]:
    return [value for row in rows if isinstance(value := row.get(key), int | float) and not isinstance(value, bool)]


def formatter(values: Sequence[float], digits: int) -> Callable[[float], str]:
    """Return a function that writes the numbers of one column.

    Args:
        values: of the column.
        digits: significant digits.
    """
    if all(isinstance(value, int) for value in values):
        return lambda value: count(value) if isinstance(value, int) else number(value, digits)
    decimals = shared_decimals(values, digits)
    return (lambda value: number(value, digits)) if decimals is None else (lambda value: fixed(value, decimals))


def shared_decimals(values: Sequence[float], digits: int) -> int | None:
    """Return a number of decimals that suits all numbers of a column; None where each needs its own.

    The largest number gets `digits` significant digits, or one more, if that leaves at least two to the smallest.
    """
    sizes = [abs(value) for value in values if value != 0.0 and math.isfinite(value)]
    if not sizes or max(sizes) >= _LARGEST:
        return None
    decimals = max(0, digits - 1 - _magnitude(max(sizes)))
    return next((each for each in (decimals, decimals + 1) if 1 - _magnitude(min(sizes)) <= each <= digits + 3), None)


def number(value: float, digits: int) -> str:
    """Write a number with so many significant digits, very small and very large ones as 1.2·10⁻⁵."""
    if not math.isfinite(value) or value == 0.0:
        return fixed(value, 0)
    rounded = float(f"{value:.{digits - 1}e}")
    if _SMALLEST <= abs(rounded) < _LARGEST:
        return fixed(rounded, max(0, digits - 1 - _magnitude(rounded)))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}·{power_of_ten(int(exponent))}".replace("-", MINUS)


def power_of_ten(exponent: int) -> str:
    """Write 10⁻⁵."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def fixed(value: float, decimals: int) -> str:
    """Write a number with so many decimals."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0.0 else f"{MINUS}∞"
    text = f"{value:,.{decimals}f}".replace(",", NARROW_SPACE).replace("-", MINUS)
    return text.removeprefix(MINUS) if not any(digit in text for digit in "123456789") else text


def count(value: int) -> str:
    """Write a whole number, 12 000 with a narrow space."""
    return fixed(value, 0)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)) + 1e-12)
