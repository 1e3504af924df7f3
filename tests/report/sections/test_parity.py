"""Points of parity plots, their files, and their pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pesfit.report.page.figures import render, style
from pesfit.report.sections.parity import parity, parity_figure, write_parity
from tests.report.samples import predicted, predictions, row


def test_points_are_components_and_energies_about_the_mean() -> None:
    rows = [row("a/0"), row("a/1", n_conformers=2), row("b/0", n_conformers=1), row("c/0", with_forces=False)]
    said = [predicted(one, 9.0, 0.5) for one in rows]
    made = predictions(rows, {"direct": said, "smirnoff": [said[0], said[1], None, None]})
    forces = parity(made, "forces")
    assert forces.label.shape == (9 * 7,)
    assert forces.predicted["direct"] - forces.label == pytest.approx(0.5)
    assert np.isnan(forces.predicted["smirnoff"]).sum() == 9
    energy = parity(made, "energy")
    assert len(energy.label) == 6 + 4  # b has one conformer
    assert energy.label[:6].sum() == pytest.approx(0.0, abs=1e-10)
    assert energy.predicted["direct"] == pytest.approx(energy.label, abs=1e-10)
    assert np.isnan(energy.predicted["smirnoff"][6:]).all()


def test_files_are_thinned_the_same_way_each_time(tmp_path: Path) -> None:
    rows = [row("a/0", n_conformers=40), row("b/0", n_conformers=3, source="other")]
    points = parity(predictions(rows, {"direct": [predicted(rows[0], 0.0, 1.0), None]}), "forces")
    for name in ("one", "two"):
        write_parity(tmp_path / f"{name}.csv", points, 50, seed=3)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    write_parity(tmp_path / "other.csv", points, 50, seed=4)
    assert (tmp_path / "one.csv").read_bytes() != (tmp_path / "other.csv").read_bytes()
    with (tmp_path / "one.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == ["label_kcal_per_mol_per_angstrom", "direct", "source"]
    assert len(read) == 50
    for point in read:
        assert (point["direct"] == "") == (point["source"] == "other")
        if point["direct"]:
            label = float(point["label_kcal_per_mol_per_angstrom"])
            assert float(point["direct"]) == pytest.approx(label + 1.0, abs=1e-4)


@pytest.mark.parametrize("n_conformers", [10, 400])
def test_panels_say_the_error_and_what_lies_outside(n_conformers: int) -> None:
    rows = [row("a/0", n_conformers=n_conformers)]
    errors = np.zeros(rows[0].coords.shape)
    errors[0, 0, 0] = 1e6
    said = {"smirnoff": [predicted(rows[0], 0.0, 0.5)], "direct": [predicted(rows[0], 0.0, errors)], "conservative": [None]}
    figure = parity_figure(parity(predictions(rows, said), "forces"))
    with style():
        axes = figure.draw("wide").axes
    texts = [[text.get_text() for text in panel.texts] for panel in axes]
    rmse = 1e6 / np.sqrt(9 * n_conformers)
    assert texts == [["RMSE 0.5"], [f"RMSE {rmse:.3g}\n1 outside"], ["no predictions"]]
    assert "SMIRNOFF, fitted 0.5" in figure.alt
    first = render(figure)
    assert render(figure).png == first.png
    assert first.wide.markup == render(figure).wide.markup


def test_nothing_to_draw_is_drawn_as_nothing() -> None:
    rows = [row("a/0", n_conformers=1, with_forces=False)]
    made = predictions(rows, {"smirnoff": [predicted(rows[0])]})
    for quantity in ("forces", "energy"):
        assert render(parity_figure(parity(made, quantity))).png  # type: ignore[arg-type]
