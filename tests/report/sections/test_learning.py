"""The section on the networks' training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pesfit.core.exceptions import DataError
from pesfit.report.page.blocks import Figure, Table, Text
from pesfit.report.page.figures import style
from pesfit.report.sections.learning import Training, section

LOSSES = [9.0, 4.0, 5.0]
METRICS = {
    "best_epoch": 2,
    "stopped_early": False,
    "started_from": None,
    "weights": 1234,
    "cost": {"training_mflop_per_atom": 1.5, "inference_mflop_per_atom": 0.5},
    "force_jacobian_asymmetry": 0.03,
}


def write(folder: Path, losses: list[float], **metrics: object) -> Training:
    names = (
        "train_loss",
        "validation_loss",
        "train_force_mae_kcal_per_mol_per_angstrom",
        "validation_force_mae_kcal_per_mol_per_angstrom",
    )
    lines = [",".join(("epoch", *names))]
    lines += [f"{epoch},{loss / 2},{loss},{loss / 10},{loss / 5}" for epoch, loss in enumerate(losses, start=1)]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "metrics.json").write_text(json.dumps(METRICS | metrics))
    return Training.read("direct", folder, folder / "metrics.json")


def test_the_epoch_that_was_kept_is_told_and_marked(tmp_path: Path) -> None:
    training = write(tmp_path, LOSSES)
    assert training.at_best("validation_loss") == 4.0
    _, figure, table = section([training]).blocks
    assert isinstance(table, Table)
    assert isinstance(figure, Figure)
    assert table.rows[0]["best_epoch"] == 2
    assert table.rows[0]["validation_force_mae_kcal_per_mol_per_angstrom"] == pytest.approx(0.8)
    assert "0.8 kcal/mol/Å at epoch 2" in figure.alt
    with style():
        loss, error = figure.draw("wide").axes
    for axes, value in ((loss, 4.0), (error, 0.8)):
        marks = [line for line in axes.lines if line.get_marker() == "o"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(2, pytest.approx(value))]


def test_a_run_whose_last_epoch_was_best_is_not_at_its_end(tmp_path: Path) -> None:
    warnings = [
        block
        for block in section([write(tmp_path, [3.0, 2.0], best_epoch=2)]).blocks
        if isinstance(block, Text) and block.tone == "warning"
    ]
    assert len(warnings) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"history\.csv is missing"):
        Training.read("direct", tmp_path, tmp_path / "metrics.json")
    (tmp_path / "history.csv").write_text("epoch,train_loss\n1,2\n")
    with pytest.raises(DataError, match="has no column validation_loss"):
        Training.read("direct", tmp_path, tmp_path / "metrics.json")
