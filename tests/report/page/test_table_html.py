"""Tables as a reader sees them."""

from __future__ import annotations

from pesfit.report.page import table_html as cells
from pesfit.report.page.blocks import Column, Table

COLUMNS = (
    Column("name", "name"),
    Column("mae", "MAE", "kcal/mol", interval="mae", best="lowest"),
    Column("drift", "drift", error="drift_error"),
    Column("ok", "ok"),
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
