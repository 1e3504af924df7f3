"""The benchmark on the page: the first table, the first figure, and the section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pesfit.benchmark import summary as keys
from pesfit.report.page.blocks import Layout, Table
from pesfit.report.page.figures import style
from pesfit.report.page.output import write_report
from pesfit.report.page.tables import body
from pesfit.report.sections.benchmark import (
    MEASURES,
    BenchmarkResults,
    headline_table,
    lost_table,
    section,
    sentences,
    tables,
)
from pesfit.report.sections.benchmark_figures import figures, headline_figure

POTENTIALS = ("gfn2", "smirnoff-initial", "smirnoff", "conservative", "direct")
BETTER, WORSE = 0.5, 2.0


def summary() -> dict[str, dict[str, dict[str, Any]]]:
    """Return measures of 1 at the start; the fit halves all but angles, which it doubles; nothing ends with the direct network."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    errors = [m.key for m in MEASURES if m.is_error] + [keys.DDE_MAE, keys.FREQUENCY_BIAS]
    errors += [keys.in_range(key, *ends) for key in (keys.FREQUENCY_MAE, keys.FREQUENCY_BIAS) for ends in keys.RANGES]
    for name in POTENTIALS:
        factor = {"smirnoff": BETTER, "gfn2": 0.0, "conservative": 3.0}.get(name, 1.0)
        values: dict[str, Any] = {"molecules": 2, keys.MINIMA: 4, keys.NOT_CONVERGED: 0, keys.BROKEN: 0, keys.LOST: 0}
        values |= {keys.PAIRS: 2, keys.SCANS: 2, keys.SCAN_POINTS: 24, keys.POINTS_FAILED: 0}
        values |= dict.fromkeys(errors, factor)
        values |= {f"{keys.RMSD}_interval_95": [0.9 * factor, 1.1 * factor], f"{keys.BOND}_interval_95": None}
        if name == "smirnoff":
            values |= {keys.ANGLE: WORSE, keys.LOST: 1, keys.BETTER: 1, keys.COMPARED: 2}
        if name == "direct":
            values = {key: values[key] for key in ("molecules", keys.MINIMA, keys.BROKEN, keys.LOST)} | {keys.NOT_CONVERGED: 4}
        found[name] = dict.fromkeys((keys.TRAINED, keys.HELD_OUT, keys.ALL_MOLECULES), values)
    return found


def results() -> BenchmarkResults:
    minima, scans = [], []
    for name in POTENTIALS:
        for subset in (keys.TRAINED, keys.HELD_OUT):
            for number in range(2):
                fine = name != "direct" and not (name == "smirnoff" and number)
                row = {"potential": name, "molecule": f"xtb/{subset}", "subset": subset, "minimum": str(number)}
                row |= {"converged": str(int(name != "direct")), "intact": str(int(name != "direct")), "kept": str(int(fine))}
                row |= {"rmsd_angstrom": f"0.{number}5", "tfd": "0.01" if number else ""}
                minima.append(row | {"relative_energy_kcal_per_mol": "1.5", "label_kcal_per_mol": "1.0"})
            for angle in range(-180, 180, 60):
                row = {"potential": name, "molecule": f"xtb/{subset}", "subset": subset, "scan": f"{subset}/0-1-2-3"}
                predicted = "" if name == "direct" else str(0.01 * angle)
                scans.append(
                    row | {"angle_degree": str(angle), "label_kcal_per_mol": "0.5", "predicted_kcal_per_mol": predicted}
                )
    return BenchmarkResults(summary(), minima, [], scans)


def test_the_first_table_marks_the_best_potential_of_each_measure() -> None:
    table = headline_table(results(), {"RMSE of forces, kcal/mol/Å": {"smirnoff": 7.0, "smirnoff-initial": 12.0}})
    held_out, trained, test = body(table)
    assert (held_out.name, trained.name, test.name) == (
        "2 held-out molecules",
        "2 training molecules",
        "labeled test conformers",
    )
    best = {row[0].text: [table.columns[i].key for i, cell in enumerate(row) if cell.is_best] for row in held_out.rows}
    assert best["bonds, Å"] == ["smirnoff"]
    assert best["angles, °"] == ["smirnoff-initial"]
    assert best["minima whose basin is lost, of 4"] == [
        "smirnoff-initial",
        "conservative",
    ]  # not direct, of which no minimization ends
    assert [cell.text for cell in test.rows[0]] == ["RMSE of forces, kcal/mol/Å", "12.0", "7.0", "", ""]
    assert "gfn2" not in {column.key for column in table.columns}


def test_what_is_worse_is_told_first() -> None:
    held_out, trained = sentences(results())
    assert held_out.startswith(
        "On 2 held-out molecules the fitted force field is, compared with the initial one, worse in angles (× 2.00);"
    )
    assert "it lowers or keeps 10 of 11 errors" in held_out
    assert "Basins lost: SMIRNOFF, initial 0, SMIRNOFF, fitted 1, PaiNN, conservative 0." in held_out
    assert held_out.endswith("No minimization ends with PaiNN, direct.")
    assert trained.startswith("On 2 training molecules")


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_the_first_figure_has_the_worst_measure_on_top(layout: Layout) -> None:
    figure = headline_figure(results())
    assert figure is not None
    assert figure.name == "summary"
    with style():
        axes = figure.draw(layout).axes
    assert len(axes) == 3
    assert axes[1].get_yticklabels()[0].get_text() == "angles"
    assert "angles × 2.00" in figure.alt
    without = BenchmarkResults({name: of for name, of in summary().items() if name != "smirnoff"}, [], [], [])
    assert headline_figure(without) is None


def test_tables_have_intervals_where_there_are_any() -> None:
    geometry, *_ = tables(results())
    shown = {column.key: column for column in geometry.columns}
    assert shown[keys.RMSD].interval is not None
    assert shown[keys.BOND].interval is None
    lost = lost_table(results())
    assert {(row["potential"], row["what"]) for row in lost.rows} == {
        ("SMIRNOFF, fitted", "another basin"),
        ("PaiNN, direct", "did not end"),
    }


def test_the_section_is_drawn_and_written(tmp_path: Path) -> None:
    found = results()
    whole = section(found, figures(found))
    write_report(tmp_path, "T", "t", [whole])
    written = json.loads((tmp_path / "numbers.json").read_text())["benchmark"]
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {figure.name for figure in figures(found)}
    assert set(written) == {block.name for block in whole.blocks if isinstance(block, Table)}
    empty = BenchmarkResults({name: {} for name in POTENTIALS}, [], [], [])
    assert list(sentences(empty)) == []
    assert headline_table(empty).rows == []


def test_results_are_read_in_the_order_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text(json.dumps({"summary": dict(reversed(summary().items()))}))
    for name in ("minima.csv", "frequencies.csv", "scans.csv"):
        (tmp_path / name).write_text("potential,molecule,subset\n")
    assert list(BenchmarkResults.read(tmp_path, tmp_path / "benchmark.json").summary) == list(POTENTIALS)
