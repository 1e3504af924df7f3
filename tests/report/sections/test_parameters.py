"""The section on parameters of the force field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pesfit.report.page.blocks import Block, Facts, Figure, Layout, Table, Text
from pesfit.report.page.figures import style
from pesfit.report.sections.parameters import SmirnoffFit, section

HEADER = "handler,id,smirks,periodicity,column,unit,before,after,standard_error,prior_width,uses,determined,at_bound"
ROWS = (
    "Bonds,b1,[#6:1]-[#6:2],,k,kcal/mol/angstrom**2,400,200,20,100,5,yes,no",
    "Bonds,b1,[#6:1]-[#6:2],,length,angstrom,1.5,1.7,0.01,0.05,5,yes,yes",  # 0.2 Å away, where params.yaml holds it
    "Angles,a1,[*:1]~[*:2]~[*:3],,k,kcal/mol/radian**2,100,150,,50,0,no,no",
    "ProperTorsions,t1,[*:1]~[*:2]~[*:3]~[*:4],2,k,kcal/mol,1,0.5,0.9,1,2,no,no",
)
METRICS = {"prior_strength": 4.0, "noise_variance": 1.0, "parameters": {"effective": 2.5}}


def read(folder: Path, rows: tuple[str, ...] = ROWS, metrics: dict[str, object] = METRICS) -> SmirnoffFit:
    (folder / "parameters.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return SmirnoffFit.read(folder, folder / "metrics.json")


def named(blocks: list[Block], name: str) -> Table:
    (table,) = [block for block in blocks if isinstance(block, Table) and block.name == name]
    return table


def test_changes_are_told_in_widths_of_the_prior(tmp_path: Path) -> None:
    k, length, angle, torsion = read(tmp_path).changes
    assert (k.prior_width, length.prior_width) == (100.0, 0.05)
    assert k.in_prior_widths == pytest.approx(-2.0)
    assert torsion.prior_left == pytest.approx(0.9)
    assert angle.prior_left is None
    assert (torsion.label, length.label) == ("t1 k2", "b1 length")
    assert (torsion.kind, length.kind) == (("ProperTorsions", "k"), ("Bonds", "length"))


def test_parameters_without_a_prior_are_listed(tmp_path: Path) -> None:
    rows = (*ROWS, "vdW,n1,[#6:1],,epsilon,kcal/mol,0.1,0.2,,,9,,")
    table = named(list(section(read(tmp_path, rows)).blocks), "parameters")
    assert (table.rows[-1]["kind"], table.rows[-1]["change_in_prior_widths"]) == ("Van der Waals: epsilon (kcal/mol)", None)


def test_parameters_at_bounds_have_no_standard_error(tmp_path: Path) -> None:
    assert [change.at_bound for change in read(tmp_path).changes] == [False, True, False, False]
    blocks = list(section(read(tmp_path)).blocks)
    table = named(blocks, "parameters-at-bounds")
    assert [row["parameter"] for row in table.rows] == ["b1 length"]
    assert table.rows[0]["standard_error"] is None
    free = list(section(read(tmp_path, ROWS[:1])).blocks)
    assert any(isinstance(block, Text) and block.text == "No parameter lies on a bound." for block in free)


def test_the_least_determined_come_first_and_unused_ones_not_at_all(tmp_path: Path) -> None:
    rows = (
        "ProperTorsions,t1,[*:1],1,k,kcal/mol,1,1,0.2,1,2,yes,no",
        "ProperTorsions,t2,[*:1],1,k,kcal/mol,1,1,0.9,1,2,no,no",
        "ProperTorsions,t3,[*:1],1,k,kcal/mol,1,1,1.0,1,0,no,no",
    )
    table = named(list(section(read(tmp_path, rows)).blocks), "parameters-least-determined")
    assert [row["parameter"] for row in table.rows] == ["t2 k1", "t1 k1"]


def test_counts_are_told(tmp_path: Path) -> None:
    (facts,) = [block for block in section(read(tmp_path)).blocks if isinstance(block, Facts)]
    assert dict(facts.items) == {
        "bonds": "2 trained, 2 determined by the data",
        "angles": "1 trained, 0 determined by the data",
        "proper torsions": "1 trained, 0 determined by the data",
        "effective number of parameters": "2.5",
        "prior strength": "4.00",
    }


def test_a_fit_without_posterior_is_shown_too(tmp_path: Path) -> None:
    rows = tuple(row.replace(",20,", ",,").replace(",0.01,", ",,").replace(",0.9,", ",,") for row in ROWS)
    fit = read(tmp_path, rows, {})
    assert fit.changes[0].in_prior_widths == pytest.approx(-2.0)
    for block in section(fit).blocks:
        if isinstance(block, Figure):
            with style():
                block.draw("wide")


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_figures_show_changes_with_their_errors(tmp_path: Path, layout: Layout) -> None:
    largest, by_kind = [block for block in section(read(tmp_path)).blocks if isinstance(block, Figure)]
    with style():
        labels = [label.get_text() for axes in largest.draw(layout).axes for label in axes.get_yticklabels()]
        panels = by_kind.draw(layout).axes
    assert labels[0] == "b1 length"  # 0.2 Å in 0.05
    assert sorted(labels) == ["a1 k", "b1 k", "b1 length", "t1 k2"]
    assert len(panels) == 4


def test_errors_of_molecules_left_out_are_relative_to_the_start(tmp_path: Path) -> None:
    left_out = {
        "before": {"forces": 8.0, "scans": 0.0},
        "fitted": {"forces": 4.0, "scans": 0.0},
        "left_out": {"forces": 6.0, "scans": 1.0},
    }
    table = named(list(section(read(tmp_path, metrics=METRICS | {"left_out": left_out})).blocks), "fit-left-out")
    assert table.rows == [{"rows": "forces", "fitted": 0.5, "left_out": 0.75}], "scans had no error to compare with"
