"""Tables and numbers as a reader sees them."""

from __future__ import annotations

import math

import pytest

from pesfit.report.page import tables as cells
from pesfit.report.page.blocks import Table, TableColumn
from pesfit.report.page.tables import fixed, formatter, number, shared_decimals

COLUMNS = (
    TableColumn("name", "name"),
    TableColumn("mae", "MAE", "kcal/mol", interval="mae", best="lowest"),
    TableColumn("drift", "drift", error="drift_error"),
    TableColumn("ok", "ok"),
)
ROWS = [
    {"name": "a", "set": "x", "mae": 1.5, "mae_low": 1.25, "mae_high": 2.0, "drift": 1e-5, "drift_error": 2.34e-6, "ok": True},
    {"name": "b", "set": "x", "mae": 0.75, "mae_low": None, "mae_high": None, "drift": 12.0, "drift_error": None, "ok": False},
    {"name": "c", "set": "y", "mae": 9.0, "mae_low": 8.0, "mae_high": 10.0, "drift": None, "drift_error": None, "ok": None},
]


def table(group: str | None = None) -> Table:
    return Table("t", "T", COLUMNS, ROWS, group=group)


def test_numbers_stand_right_and_text_left() -> None:
    assert [column.is_number for column in cells.head(table())] == [False, True, True, False]
    assert [column.has_range for column in cells.head(table())] == [False, True, True, False]


def test_a_column_of_text_without_numbers_is_text_though_a_row_has_none() -> None:
    rows = [{"name": None, "mae": None, "drift": None, "ok": None}]
    assert not any(column.is_number for column in cells.head(Table("t", "T", COLUMNS, rows)))


def test_intervals_and_errors_stand_behind_numbers() -> None:
    (group,) = cells.body(table())
    assert [row[1].range for row in group.rows] == ["1.25 – 2.00", "", "8.00 – 10.00"]
    assert [row[2].range for row in group.rows] == ["± 2.3·10⁻⁶", "", ""]
    assert [row[3].text for row in group.rows] == ["yes", "no", ""]
    assert group.rows[0][0].range is None


def test_the_best_value_of_each_group_is_marked() -> None:
    (whole,) = cells.body(table())
    assert [row[1].is_best for row in whole.rows] == [False, True, False]
    first, second = cells.body(table("set"))
    assert (first.name, second.name) == ("x", "y")
    assert [row[1].is_best for row in first.rows] == [False, True]
    assert not second.rows[0][1].is_best  # nothing to compare with


def test_none_is_best_among_equals() -> None:
    rows = [{"name": name, "mae": 1.0} for name in "ab"]
    (group,) = cells.body(Table("t", "T", COLUMNS[:2], rows))
    assert not any(row[1].is_best for row in group.rows)


def test_long_text_may_be_broken() -> None:
    rows = [{"name": "x" * 60, "mae": 1.0}]
    assert [column.is_long for column in cells.head(Table("t", "T", COLUMNS[:2], rows))] == [True, False]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.2345, 3, "1.23"),
        (-12.0, 2, "−12"),
        (0.00995, 2, "0.010"),  # 0.00995 is a little less in binary, but not by a digit that counts
        (9.996, 3, "10.0"),
        (123456.0, 3, "123\u202f000"),
        (1.23e-5, 2, "1.2·10⁻⁵"),
        (-3.0e7, 1, "−3·10⁷"),
        (0.0, 3, "0"),
        (math.inf, 3, "∞"),
        (-math.inf, 3, "−∞"),
        (math.nan, 3, "not a number"),
    ],
)
def test_a_number_has_significant_digits(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_no_number_is_minus_zero() -> None:
    assert fixed(-0.0, 2) == "0.00"
    assert fixed(-0.001, 2) == "0.00"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([12.34, 7.321], ["12.3", "7.3"]),  # one number of decimals
        ([12.34, 0.456], ["12.34", "0.46"]),  # one more, for the smallest
        ([1234.5, 0.00123], ["1\u202f230", "0.00123"]),  # too far apart
        ([3, 12000], ["3", "12\u202f000"]),  # counts
        ([0.5, math.nan], ["0.500", "not a number"]),
        ([], []),
    ],
)
def test_a_column_has_the_same_decimals_where_that_works(values: list[float], texts: list[str]) -> None:
    write = formatter(values, 3)
    assert [write(value) for value in values] == texts


def test_decimals_leave_two_digits_to_the_smallest() -> None:
    assert shared_decimals([1.0, 0.1], 2) == 2
    assert shared_decimals([100.0, 0.1], 2) is None


def test_along_a_row_numbers_share_decimals_and_the_best_is_marked() -> None:
    columns = (TableColumn("name", "name"), *(TableColumn(key, key, best="lowest") for key in "abc"))
    rows = [
        {"name": "error", "best": "lowest", "a": 0.0123, "b": 0.5, "c": None},
        {"name": "better", "best": "highest", "a": 3, "b": 7, "c": 5},
        {"name": "bias", "best": "smallest", "a": -120.0, "b": 30.0, "c": -9.5},
        {"name": "equal", "best": "lowest", "a": 2.0, "b": 2.0, "c": 2.0},
    ]
    (group,) = cells.body(Table("t", "T", columns, rows, across=True))
    assert [[cell.text for cell in row] for row in group.rows] == [
        ["error", "0.012", "0.500", ""],
        ["better", "3", "7", "5"],
        ["bias", "\u2212120.0", "30.0", "\u22129.5"],
        ["equal", "2.00", "2.00", "2.00"],
    ]
    assert [[cell.is_best for cell in row].index(True) for row in group.rows[:3]] == [1, 2, 3]
    assert not any(cell.is_best for cell in group.rows[3])
