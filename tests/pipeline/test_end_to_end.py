"""The pipeline as a user runs it: `dvc repro` in a fresh clone, cut down by parameters alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pesfit.__main__ import main
from pesfit.data.dataset import open_datasets, read_failures
from tests.pipeline.conftest import SMALLER, UP_TO_DATE, Checkout
from tests.pipeline.test_dvc_yaml import STAGES

pytestmark = pytest.mark.slow


def wait_until_written(output: Path, dvc: subprocess.Popen[str]) -> None:
    """Wait until a stage has begun to write an output, in the temporary folder that it renames at its end."""
    while not list(output.parent.glob(f".{output.name}.new-*")):
        assert dvc.poll() is None, dvc.communicate()[0]
        time.sleep(0.05)


def test_it_runs_to_the_end_and_a_second_run_does_nothing(finished: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    assert UP_TO_DATE in finished.run("dvc", "repro")
    data = open_datasets(finished.path / "data/clustered")
    assert {record.source for record in data["xtb"]} == {"xtb/conformers", "xtb/trajectory"}
    for folder in ("data/parameterized", "outputs/rollouts"):
        assert not read_failures(finished.path / folder / "failures.csv")
    assert main(["show", str(finished.path / "data/arrow/xtb")]) == 0
    assert "level of theory  GFN2-xTB" in capsys.readouterr().out


def test_what_dvc_shows_is_there(finished: Checkout) -> None:
    finished.run("dvc", "plots", "show", "--out", "plots")
    page = (finished.path / "plots/index.html").read_text()
    shutil.rmtree(finished.path / "plots")
    for name in ("validation_force_mae_kcal_per_mol_per_angstrom", "label_kcal_per_mol", "smirnoff-initial"):
        assert name in page
    metrics = json.loads(finished.run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert {Path(path).stem.partition("-")[0] for path in metrics} == {
        (name.partition("_")[2] or name).partition("@")[0] for name in STAGES
    }
    report = finished.path / "outputs/report"
    assert "<svg" in (report / "index.html").read_text()
    numbers = json.loads((report / "numbers.json").read_text())
    assert {row["potential"] for row in numbers["test-errors"]["test-force-errors"]} >= {"smirnoff", "conservative", "direct"}


def test_killed_at_any_moment_and_with_other_numbers_of_workers_it_ends_in_the_same_bytes(
    finished: Checkout, clone: Checkout
) -> None:
    clone.edit(SMALLER)
    for output, whom in (
        ("data/arrow", signal.SIGKILL),
        ("outputs/smirnoff", signal.SIGTERM),
        ("outputs/learned/conservative", signal.SIGKILL),
        ("outputs/rollouts", signal.SIGTERM),
    ):
        process = clone.start("dvc", "repro", workers=3)
        wait_until_written(clone.path / output, process)
        os.kill(process.pid, whom)  # dvc alone: its stage has to notice
        process.communicate()
        assert not (clone.path / output).exists()
    clone.run("dvc", "repro", workers=2)
    expected = finished.output_hashes()
    assert {"data/splits", "outputs/smirnoff", "outputs/learned/direct", "outputs/rollouts"} < set(expected)
    assert clone.output_hashes() == expected
    for folder in ("data", "outputs"):
        assert not [path for path in (clone.path / folder).iterdir() if path.name.startswith(".") and path.name != ".gitignore"]


def test_a_wrong_parameter_stops_before_work_and_loses_nothing(finished: Checkout) -> None:
    before = finished.output_hashes()
    finished.edit({"cluster": {"cutoff_angstrom": -0.5}})
    output = finished.run("dvc", "repro", status=255)
    assert "profiles.small.cluster.cutoff_angstrom = -0.5: expected a number > 0 and <= 10" in output
    finished.edit({"cluster": {"cutoff_angstrom": 0.1}})
    finished.run("dvc", "repro")
    assert finished.output_hashes() == before
