"""The first screen."""

from __future__ import annotations

import pytest

from pesfit.report.page.blocks import Figure, Text
from pesfit.report.page.figures import Palette, style
from pesfit.report.sections.rollout_measures import Drift
from pesfit.report.sections.summary import ForceError, Headlines, section

ERRORS = [
    ForceError("smirnoff-initial", "one", 13.14, 12.0, 14.0),
    ForceError("smirnoff", "one", 8.49),
    ForceError("conservative", "one", 1.2, 1.1, 1.3),
    ForceError("direct", "two", 2.0),
]
DRIFTS = [Drift("conservative", "ethanol", 0.002), Drift("direct", "ethanol", 0.5)]


def told(headlines: Headlines) -> list[str]:
    return [block.text for block in section(headlines).blocks if isinstance(block, Text)]


def test_each_result_is_one_sentence() -> None:
    one, two, drift, stable, more = told(
        Headlines("force MAE", ERRORS, DRIFTS, {"direct": 0.5, "gfn2": 1.0}, ["And one more."])
    )
    assert one.startswith("Force MAE on test conformers of `one`: ")
    assert one.endswith(": the fit takes SMIRNOFF from 13.1 to 8.49 kcal/mol/Å, the network reaches 1.20 (conservative).")
    assert two == "Force MAE on test conformers of `two`: the network reaches 2.00 (direct)."
    assert drift.startswith(
        "At constant energy the total energy of `ethanol` drifts by 0.0020 kcal/mol/ps/atom with the conservative"
    )
    assert drift.endswith("and 0.50 with the direct one, 250 times as much.")
    assert stable == "Replicas that came to their end whole: GFN2-xTB 100\u202f%; PaiNN, direct 50\u202f%."
    assert more == "And one more."


def test_what_was_not_run_is_not_told() -> None:
    assert told(Headlines("force MAE", [], DRIFTS[:1], {})) == []
    assert section(Headlines("force MAE", [], [], {})).blocks == []


@pytest.mark.parametrize("narrow", [False, True])
def test_the_figure_has_a_row_for_each_potential(narrow: bool) -> None:
    (figure,) = [block for block in section(Headlines("force MAE", ERRORS, DRIFTS, {})).blocks if isinstance(block, Figure)]
    palette = Palette(narrow=narrow)
    with style(palette):
        panels = figure.draw(palette).axes
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["SMIRNOFF, initial", "SMIRNOFF, fitted", "PaiNN, conservative", "PaiNN, direct"]
    assert len(panels) == 3
    assert [text.get_text() for text in panels[0].texts] == ["13.1", "8.49", "1.20"]
    assert "PaiNN, direct drifts by 0.50" in figure.alt
