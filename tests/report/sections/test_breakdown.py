"""Errors by element, energy, size and molecule, and drawings of molecules."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesfit.evaluate.breakdown import MoleculeForceErrors
from pesfit.evaluate.predictions import Predictions, summaries
from pesfit.params.evaluation import Analyse
from pesfit.report.page.blocks import Block, Figure, Gallery, Table
from pesfit.report.page.figures import render, style
from pesfit.report.sections.breakdown import caption, draw, sections
from tests.report.samples import ETHANOL, ETHANOL_SMILES, WATER, WATER_SMILES, predicted, predictions, row

PARAMS = Analyse(worst_molecules=2)


def _two_sources() -> Predictions:
    rows = [row("a/0"), row("b/0", ETHANOL, 5, source="other", smiles=ETHANOL_SMILES), row("c/0", n_conformers=1, smiles=None)]
    exact = [predicted(one, 0.0, 0.0) for one in rows]
    wrong = [predicted(one, 1.0, 2.0 + i) for i, one in enumerate(rows)]
    return predictions(rows, {"smirnoff-initial": wrong, "smirnoff": exact, "conservative": wrong})


def _blocks(found: Predictions, params: Analyse = PARAMS) -> list[Block]:
    errors = summaries(found)
    blocks = [block for section in sections(found, errors, params, training_sizes={9: 70}) for block in section.blocks]
    for table in blocks:
        if isinstance(table, Table):
            assert all({column.key for column in table.columns} <= set(r) for r in table.rows), table.name
    return blocks


def test_sizes_have_the_numbers_of_training_conformers() -> None:
    (by_size,) = [block for block in _blocks(_two_sources()) if isinstance(block, Table) and block.name == "errors-by-size"]
    assert {(r["n_atoms"], r["training_conformers"]) for r in by_size.rows} == {("1–5", 0), ("6–10", 70)}


def test_the_worst_molecules_of_the_better_potentials_are_drawn() -> None:
    blocks = _blocks(_two_sources())
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    assert [gallery.title.split(":")[0] for gallery in galleries] == ["SMIRNOFF, fitted", "PaiNN, conservative"]
    assert [drawing.caption.split(" ")[0] for drawing in galleries[1].drawings] == ["c/0", "b/0"]
    assert "no SMILES" in galleries[1].drawings[0].svg
    assert "2 of 3 molecules" in galleries[1].title
    none = _blocks(_two_sources(), Analyse(worst_molecules=0))
    assert not [block for block in none if isinstance(block, Gallery)]


@pytest.mark.slow
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
                with style():
                    block.draw("narrow").draw_without_rendering()
                assert block.alt
    figure = next(block for block in _blocks(cases[2]) if isinstance(block, Figure) and block.name == "errors-by-element")
    assert "the table has all 9" in figure.note
    assert render(figure).narrow is not None


def test_panels_show_what_the_table_says() -> None:
    rows = [row("a/0", energy=np.array([0.0, 1.0, 6.0, 7.0]))]
    said = predicted(rows[0], 0.0, np.array([1.0, 1.0, 3.0, 3.0])[:, None, None])
    blocks = _blocks(predictions(rows, {"direct": [said]}))
    figure = next(block for block in blocks if isinstance(block, Figure) and block.name == "errors-by-energy")
    with style():
        (axes,) = figure.draw("wide").axes
    assert axes.lines[0].get_ydata() == pytest.approx([1.0, 3.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0–5\n2", "5–10\n2"]


def _molecule(smiles: str | None, numbers: tuple[int, ...], errors: list[float] | None = None) -> MoleculeForceErrors:
    of_atoms = np.ones(len(numbers)) if errors is None else np.array(errors)
    rmse = {"smirnoff": float(np.sqrt((of_atoms**2).mean()))}
    return MoleculeForceErrors("m/0", "toy", smiles, np.array(numbers, dtype=np.int32), 1, rmse, {"smirnoff": of_atoms})


def _opacities(svg: str) -> list[float]:
    return [float(value) for value in re.findall(r'fill-opacity="([0-9.]+)"', svg)]


def test_captions_have_the_errors_of_every_potential() -> None:
    assert caption(_molecule(None, WATER, [2.0, 0.0, 1.0])) == "m/0 (toy, 1 conformer). SMIRNOFF, fitted: 1.29"


def test_hydrogens_tint_the_atom_they_are_bonded_to() -> None:
    errors = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0]  # the hydroxyl hydrogen
    svg = draw(_molecule(ETHANOL_SMILES, ETHANOL, errors), "smirnoff", 4.0)
    largest = max(_opacities(svg))
    assert _opacities(svg) == [0.0, 0.0, largest]
    whole = draw(_molecule(ETHANOL_SMILES, ETHANOL), "smirnoff", 1.0)
    assert len(_opacities(whole)) == 3
    assert largest == pytest.approx(max(_opacities(whole)) / np.sqrt(2.0), abs=0.01)
    water = draw(_molecule(WATER_SMILES, WATER), "smirnoff", 1.0)
    assert len(_opacities(water)) == 3  # it has one heavy atom, so its hydrogens are drawn


def test_drawings_follow_the_theme_of_the_page() -> None:
    svg = draw(_molecule(ETHANOL_SMILES, ETHANOL), "smirnoff", 1.0)
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "<rect" not in svg  # no background
    assert svg == draw(_molecule(ETHANOL_SMILES, ETHANOL), "smirnoff", 1.0)
    assert ET.fromstring(svg).get("viewBox")


@pytest.mark.parametrize(
    ("smiles", "numbers", "words"),
    [
        (None, ETHANOL, "no SMILES"),
        ("", WATER, "SMILES that cannot be read"),
        ("not a SMILES", WATER, "SMILES that cannot be read"),
        ("<script>alert(1)</script>", WATER, "SMILES that cannot be read"),
        ("O", WATER, "SMILES that cannot be read"),
        ("[O:1]([H:2])[H:2]", WATER, "SMILES that cannot be read"),
        ("[O:1]([H:2])[H:3].[O:4]", WATER, "SMILES of other atoms"),
        ("C" * 401, (6,) * 401, "401 atoms"),
    ],
)
def test_what_cannot_be_drawn_is_its_formula_in_letters(smiles: str | None, numbers: tuple[int, ...], words: str) -> None:
    root = ET.fromstring(draw(_molecule(smiles, numbers), "smirnoff", 1.0))
    formula, why = ("".join(element.itertext()) for element in root)
    assert formula in ("H2O", "C2H6O", "C401")
    assert why == words


@given(st.text(alphabet="[]()CcNnOoHSs+-=#@/\\.:123456789%$ <&", max_size=30))
def test_no_smiles_stops_a_drawing(smiles: str) -> None:
    ET.fromstring(draw(_molecule(smiles, (6, 8)), "smirnoff", 1.0))


@pytest.mark.parametrize(
    "smiles",
    [
        "[C:1]([H:2])([H:3])([H:4])([H:5])([H:6])[H:7]",  # six bonds
        "[H:1][H:2]",
        "[H:1].[O:2]",
        "[Na+:1].[Cl-:2]",
        "[n:1]1[n:2][n:3][n:4][n:5]1",  # cannot be kekulized
        "[C:1](/[F:2])([H:5])=[C:3](/[Cl:4])[H:6]",
    ],
)
def test_odd_molecules_are_drawn_as_they_are(smiles: str) -> None:
    n_atoms = smiles.count(":")
    svg = draw(_molecule(smiles, (6,) * n_atoms), "smirnoff", 1.0)
    assert _opacities(svg)
    ET.fromstring(svg)
