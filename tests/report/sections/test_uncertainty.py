"""The section on uncertainty: what its tables hold, and that its figures can be drawn."""

from __future__ import annotations

import numpy as np

from pesfit.evaluate.out_of_distribution import INSIDE, OTHER_MOLECULES, Scored, Separation, separate
from pesfit.evaluate.uncertainty_scores import Judged, UncertaintyScores, judge_predictions
from pesfit.report.page.blocks import Figure, PageSection, Table, Text
from pesfit.report.page.figures import render
from pesfit.report.sections import uncertainty
from pesfit.uncertainty.calibration import Calibration, Scale
from tests.report.samples import predictions, row, unsure

CALIBRATIONS = {
    "smirnoff": Calibration(Scale(2.0, 0.1, 7), Scale(2.0, 0.1, 7), Scale(6.0, 0.3, 90), 12.5),
    "conservative": None,
}


def judged() -> list[Judged]:
    rows = [row(f"{name}/0", n_conformers=30, source=f"toy/{name}") for name in "ab"]
    said = predictions(rows, {name: [unsure(each, 1.0 + i) for i, each in enumerate(rows)] for name in CALIBRATIONS})
    rng = np.random.default_rng(0)
    for of_rows in said.predicted.values():
        for one in of_rows:
            assert one is not None
            one.energy[:] += rng.normal(size=one.energy.shape)
            one.forces[:] += rng.normal(size=one.forces.shape)
    return judge_predictions(said, CALIBRATIONS)


def separations() -> list[Separation]:
    scores = {INSIDE: np.arange(5.0), OTHER_MOLECULES: np.arange(5.0) + 2.2, "probe/hot-1000K": np.arange(3.0) + 9.0}
    sets = {name: Scored(score, np.ones(4), np.ones(4), 1, None, score > 4.5) for name, score in scores.items()}
    return [one for name in CALIBRATIONS for one in separate(name, sets)]


def tables(section: PageSection) -> dict[str, Table]:
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def test_tables_hold_what_was_judged() -> None:
    found = judged()
    made = tables(uncertainty.section(UncertaintyScores(found, separations(), CALIBRATIONS)))
    assert list(made) == ["uncertainty-forces", "uncertainty-relative-energy", "uncertainty-factors", "uncertainty-domain"]
    rows = made["uncertainty-forces"].rows
    assert [(one["source"], one["potential"]) for one in rows] == [
        (source, potential) for source in ("all", "toy/a", "toy/b") for potential in CALIBRATIONS
    ]
    assert rows[0]["nll"] == found[0].judgment.nll
    assert [one["factor"] for one in made["uncertainty-factors"].rows] == [6.0, 2.0]
    domain = {(one["potential"], one["set"]): one for one in made["uncertainty-domain"].rows}
    assert domain["smirnoff", INSIDE]["auroc"] is None
    assert domain["smirnoff", "probe/hot-1000K"]["auroc"] == 1.0
    assert domain["smirnoff", OTHER_MOLECULES]["flagged_percent"] == 40.0


def test_columns_are_there_and_figures_can_be_drawn_on_wide_and_narrow_pages() -> None:
    section = uncertainty.section(UncertaintyScores(judged(), separations(), CALIBRATIONS))
    for table in tables(section).values():
        for column in table.columns:
            assert all(column.key in one for one in table.rows)
    figures = [block for block in section.blocks if isinstance(block, Figure)]
    assert [figure.name for figure in figures] == ["calibration-curve", "error-by-uncertainty", "out-of-distribution"]
    for figure in figures:
        rendered = render(figure)
        assert rendered.png.startswith(b"\x89PNG")
        assert "SMIRNOFF, fitted" in figure.alt
        assert figure.draw("narrow").get_size_inches()[0] < 4.0


def test_without_a_posterior_the_section_says_so() -> None:
    (only,) = uncertainty.section(UncertaintyScores([], [], {"direct": None})).blocks
    assert isinstance(only, Text)
    assert only.text.startswith("No potential of this run has a posterior")


def test_sentences_tell_coverage_and_separation() -> None:
    scores = UncertaintyScores(judged(), separations(), CALIBRATIONS)
    coverage, separation = uncertainty.sentences(scores)
    assert "95 % intervals cover" in coverage
    assert "SMIRNOFF, fitted" in coverage
    assert "AUROC" in separation
