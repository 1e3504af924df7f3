"""The sections on the test set, as blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pesfit.evaluate.errors import summaries
from pesfit.evaluate.predictions import Predictions
from pesfit.params.evaluation import Analyse
from pesfit.report.page.blocks import Block, Figure, Gallery, Table, Text
from pesfit.report.page.figures import Palette, render, style
from pesfit.report.sections.errors import sections
from tests.report.samples import ETHANOL, ETHANOL_SMILES, predicted, predictions, row

PARAMS = Analyse(worst_molecules=2)


def _two_sources() -> Predictions:
    rows = [row("a/0"), row("b/0", ETHANOL, 5, source="other", smiles=ETHANOL_SMILES), row("c/0", n_conformers=1, smiles=None)]
    exact = [predicted(one, 0.0, 0.0) for one in rows]
    wrong = [predicted(one, 1.0, 2.0 + i) for i, one in enumerate(rows)]
    return predictions(rows, {"smirnoff-initial": wrong, "smirnoff": exact, "conservative": wrong})


def _blocks(found: Predictions, params: Analyse = PARAMS) -> list[Block]:
    errors = summaries(found)
    blocks = [block for section in sections(found, errors, params, training_sizes={9: 70}) for block in section.blocks]
    _check_cells(blocks)
    return blocks


def _check_cells(blocks: list[Block]) -> None:
    for table in blocks:
        if isinstance(table, Table):
            assert all({column.key for column in table.columns} <= set(r) for r in table.rows), table.name


def _table(blocks: list[Block], name: str) -> Table:
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def test_tables_have_a_row_for_each_source_and_potential() -> None:
    blocks = _blocks(_two_sources())
    forces = _table(blocks, "test-force-errors")
    assert [(r["source"], r["potential"]) for r in forces.rows] == [
        (source, potential)
        for source in ("all", "other", "toy")
        for potential in ("smirnoff-initial", "smirnoff", "conservative")
    ]
    shown = {column.key for column in forces.columns}
    key = "force_mae_kcal_per_mol_per_angstrom"
    assert key in shown
    assert [r[key] for r in forces.rows if r["source"] == "other"] == pytest.approx([3.0, 0.0, 3.0])
    assert all({f"{key}_interval_95_low", f"{key}_interval_95_high"} <= set(r) for r in forces.rows)
    energies = _table(blocks, "test-energy-errors")
    total = [r["total_energy_mae_kcal_per_mol"] for r in energies.rows if r["source"] == "all"]
    assert total == [None, None, pytest.approx(1.0)]
    assert [r["energies"] for r in energies.rows if r["source"] == "toy"] == [4, 4, 4]
    by_size = _table(blocks, "errors-by-size")
    assert {(r["n_atoms"], r["training_conformers"]) for r in by_size.rows} == {("1–5", 0), ("6–10", 70)}


def test_one_source_is_not_said_twice() -> None:
    rows = [row("a/0")]
    blocks = _blocks(predictions(rows, {"smirnoff": [predicted(rows[0])]}))
    assert {r["source"] for block in blocks if isinstance(block, Table) for r in block.rows} == {"toy"}


def test_the_worst_molecules_of_the_better_potentials_are_drawn() -> None:
    blocks = _blocks(_two_sources())
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    assert [gallery.title.split(":")[0] for gallery in galleries] == ["SMIRNOFF, fitted", "PaiNN, conservative"]
    assert [drawing.caption.split(" ")[0] for drawing in galleries[1].drawings] == ["c/0", "b/0"]
    assert "no SMILES" in galleries[1].drawings[0].svg
    assert "2 of 3 molecules" in galleries[1].title
    none = _blocks(_two_sources(), Analyse(worst_molecules=0))
    assert not [block for block in none if isinstance(block, Gallery)]


def test_potentials_that_lack_molecules_are_compared_on_what_all_can_do() -> None:
    whole = _two_sources()
    lacking = {**whole.predicted, "conservative": (None, *whole.predicted["conservative"][1:])}
    _blocks(replace(whole, predicted={**lacking, "conservative": (*whole.predicted["conservative"][:1], None, None)}))
    blocks = _blocks(Predictions(whole.rows, lacking))
    (warning,) = [block for block in blocks if isinstance(block, Text)]
    assert warning.tone == "warning"
    assert "of 3 rows there is nothing from PaiNN, conservative for 1" in warning.text
    common = _table(blocks, "test-force-errors-common")
    assert {r["conformers"] for r in common.rows if r["source"] == "all"} == {6}
    assert not [block for block in _blocks(whole) if isinstance(block, Text)]


def test_nothing_stops_the_figures() -> None:
    bare = [row("a/0", with_forces=False), row("b/0", n_conformers=1, with_forces=False)]
    many = [row(f"m{i}/0", ETHANOL[: 2 + i % 8], 3, source=f"s{i}", smiles=None) for i in range(9)]
    cases = [
        predictions(bare, {"smirnoff": [predicted(one) for one in bare]}),
        predictions(bare, {"smirnoff": [None, None], "direct": [None, predicted(bare[1])]}),
        predictions(many, {"direct": [predicted(one, 0.0, 10.0 ** (i - 4)) for i, one in enumerate(many)]}),
    ]
    for case in cases:
        for block in _blocks(case):
            if isinstance(block, Figure):
                with style(Palette()):
                    block.draw(Palette(narrow=True)).draw_without_rendering()
                assert block.alt
    figure = next(block for block in _blocks(cases[2]) if isinstance(block, Figure) and block.name == "errors-by-element")
    assert "the table has all 9" in figure.note
    assert render(figure).narrow is not None


def test_panels_show_what_the_table_says() -> None:
    rows = [row("a/0", energy=np.array([0.0, 1.0, 6.0, 7.0]))]
    said = predicted(rows[0], 0.0, np.array([1.0, 1.0, 3.0, 3.0])[:, None, None])
    blocks = _blocks(predictions(rows, {"direct": [said]}))
    figure = next(block for block in blocks if isinstance(block, Figure) and block.name == "errors-by-energy")
    with style(Palette()):
        (axes,) = figure.draw(Palette()).axes
    assert axes.lines[0].get_ydata() == pytest.approx([1.0, 3.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0–5\n2", "5–10\n2"]
