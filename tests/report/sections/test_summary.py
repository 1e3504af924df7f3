"""The first screen."""

from __future__ import annotations

import pytest

from pesfit.report.page.blocks import Figure, Layout, Text
from pesfit.report.page.figures import style
from pesfit.report.sections.rollouts import MoleculeDrift
from pesfit.report.sections.summary import ForceError, Headlines, section

ERRORS = [
    ForceError("smirnoff-initial", "one", 13.14, 12.0, 14.0),
    ForceError("smirnoff", "one", 8.49),
    ForceError("conservative", "one", 1.2, 1.1, 1.3),
    ForceError("direct", "two", 2.0),
]
DRIFTS = [MoleculeDrift("conservative", "ethanol", 0.002), MoleculeDrift("direct", "ethanol", 0.5)]


def told(headlines: Headlines) -> list[str]:
    return [block.text for block in section(headlines).blocks if isinstance(block, Text)]


def test_each_result_is_one_sentence() -> None:
    one, two, drift, stable, more = told(
        Headlines("force MAE", ERRORS, DRIFTS, {"direct": 0.5, "gfn2": 1.0}, ["And one more."])
    )
    assert one.startswith("Force MAE on test conformers of `one`, kcal/mol/Å: ")
    assert one.endswith(": SMIRNOFF 13.1 before the fit, 8.49 after; PaiNN 1.20 (conservative).")
    assert two == "Force MAE on test conformers of `two`, kcal/mol/Å: PaiNN 2.00 (direct)."
    assert drift.startswith(
        "Drift of the total energy in NVE simulations of `ethanol`: 0.0020 kcal/mol/ps/atom with the conservative"
    )
    assert drift.endswith("network, 0.50 with the direct one (250 times as much).")
    assert stable == "Replicas that were stable to the end of the simulation: GFN2-xTB 100\u202f%; PaiNN, direct 50\u202f%."
    assert more == "And one more."


def test_what_was_not_run_is_not_told() -> None:
    assert told(Headlines("force MAE", [], DRIFTS[:1], {})) == []
    assert section(Headlines("force MAE", [], [], {})).blocks == []


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_the_figure_has_a_row_for_each_potential(layout: Layout) -> None:
    (figure,) = [block for block in section(Headlines("force MAE", ERRORS, DRIFTS, {})).blocks if isinstance(block, Figure)]
    with style():
        panels = figure.draw(layout).axes
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["SMIRNOFF, initial", "SMIRNOFF, fitted", "PaiNN, conservative", "PaiNN, direct"]
    assert len(panels) == 3
    assert [text.get_text() for text in panels[0].texts] == ["13.1", "8.49", "1.20"]
    assert "PaiNN, direct drifts by 0.50" in figure.alt
