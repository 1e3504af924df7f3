"""Molecules drawn, and those that cannot be."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesfit.report.structures import MoleculeForces, caption, draw, molecule_errors, worst
from tests.report.samples import ETHANOL, ETHANOL_SMILES, WATER, WATER_SMILES, predicted, predictions, row


def _molecule(smiles: str | None, numbers: tuple[int, ...], errors: list[float] | None = None) -> MoleculeForces:
    of_atoms = np.ones(len(numbers)) if errors is None else np.array(errors)
    rmse = {"smirnoff": float(np.sqrt((of_atoms**2).mean()))}
    return MoleculeForces("m/0", "toy", smiles, np.array(numbers, dtype=np.int32), 1, rmse, {"smirnoff": of_atoms})


def _opacities(svg: str) -> list[float]:
    return [float(value) for value in re.findall(r'fill-opacity="([0-9.]+)"', svg)]


def test_errors_of_atoms_and_molecules_are_roots_of_mean_squares() -> None:
    rows = [row("a/0", n_conformers=3), row("a/1", n_conformers=1), row("b/0", ETHANOL, 2, smiles=ETHANOL_SMILES)]
    of_atoms = np.array([2.0, 0.0, -1.0])[None, :, None]
    said = [predicted(rows[0], 0.0, of_atoms), predicted(rows[1], 0.0, 3.0 * of_atoms), predicted(rows[2], 0.0, 5.0)]
    found = molecule_errors(predictions(rows, {"direct": said, "smirnoff": [said[0], None, said[2]]}))
    assert [(one.id, one.n_conformers) for one in found] == [("a/0", 4), ("b/0", 2)]
    # Three conformers with 2, 0, 1 and one with thrice that: squares 4 (3 + 9) / 4 = 12, 0 and 3.
    assert found[0].of_atoms["direct"] == pytest.approx(np.sqrt([12.0, 0.0, 3.0]))
    assert found[0].force_rmse == pytest.approx({"direct": np.sqrt(5.0)})
    assert found[1].force_rmse == pytest.approx({"direct": 5.0, "smirnoff": 5.0})
    assert [one.id for one in worst(found, "direct", 1)] == ["b/0"]
    assert [one.id for one in worst(found, "smirnoff", 9)] == ["b/0"]
    assert worst(found, "direct", 0) == []
    assert caption(found[0]) == "a/0 (toy, 4 conformers). PaiNN, direct: 2.24"


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
