"""The pipeline as a user runs it: `dvc repro` in a fresh clone, cut down by parameters alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pesfit.__main__ import main
from pesfit.data.dataset import open_datasets, read_failures
from tests.pipeline.conftest import SMALLER, Checkout
from tests.pipeline.test_dvc_yaml import STAGES

UP_TO_DATE = "Data and pipelines are up to date."


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300.0
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.2)


def assert_forces_improve(errors: dict[str, Any], sources: list[str]) -> None:
    key = "force_rmse_kcal_per_mol_per_angstrom"
    for source in {"all", *sources} & set(errors):
        assert errors[source]["after"][key] < errors[source]["before"][key], source


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
        name.partition("_")[2].partition("@")[0] for name in STAGES
    }
    report = finished.path / "outputs/report"
    assert "<svg" in (report / "index.html").read_text()
    numbers = json.loads((report / "numbers.json").read_text())
    assert {row["potential"] for row in numbers["test-errors"]["test-force-errors"]} >= {"smirnoff", "conservative", "direct"}


def test_other_numbers_of_workers_give_the_same_bytes(finished: Checkout, clone: Checkout) -> None:
    clone.edit(SMALLER)
    clone.run("dvc", "repro", workers=3)
    expected = finished.output_hashes()
    assert {"data/splits", "outputs/smirnoff", "outputs/learned/direct", "outputs/rollouts"} < set(expected)
    assert clone.output_hashes() == expected
    clone.run("dvc", "repro", "--force", "--single-item", "06_fit_smirnoff", workers=4)
    assert clone.output_hashes() == expected


def test_killed_at_any_moment_it_ends_in_the_same_bytes_with_one_worker_too(finished: Checkout, clone: Checkout) -> None:
    clone.edit(SMALLER)
    for moment, whom in (
        ("data/raw", signal.SIGKILL),
        ("data/arrow", signal.SIGTERM),
        ("outputs/smirnoff", signal.SIGKILL),
        ("outputs/learned/direct", signal.SIGTERM),
    ):
        process = clone.start("dvc", "repro", workers=2)
        wait_for(clone.path / moment)
        time.sleep(2.0)  # the next stage is under way then
        os.kill(process.pid, whom)  # dvc alone: its stage has to notice
        process.communicate(timeout=60)
    clone.run("dvc", "repro", workers=1)
    assert clone.output_hashes() == finished.output_hashes()
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


def test_the_published_data_run_through_every_stage(
    clone: Checkout, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.edit(
        {
            "sources": {
                "espaloma": ["gen2-torsion", "protein-torsion", "rna-diverse", "duplicated-isomeric-smiles-merge"],
                "rmd17": ["ethanol", "aspirin"],
                "md17": ["ethanol"],
                "xtb": False,
            },
            "download": {"mirror": str(real_data / "mirror")},
            "train_learned": SMALLER["train_learned"] | {"subset_size": 50, "sources": ["rmd17"]},
            "rollout": SMALLER["rollout"]
            | {
                "potentials": ["conservative", "direct", "smirnoff", "smirnoff-initial"],  # GFN2-xTB takes minutes for an RNA
                "probes": {"temperatures_kelvin": [], "stretch_angstrom": [0.2], "conformers": 2},
            },
        }
    )
    clone.run("dvc", "repro")
    assert UP_TO_DATE in clone.run("dvc", "repro")
    assert set(open_datasets(clone.path / "data/clustered")) == {"espaloma", "rmd17", "md17"}
    for split in ("validation", "test"):
        assert_forces_improve(clone.metrics("fit_smirnoff")["errors"][split], ["espaloma/gen2-torsion", "rmd17", "md17"])
    assert not read_failures(clone.path / "data/parameterized/failures.csv")
    assert main(["show", str(clone.path / "data/arrow")]) == 0
    assert "PBE/def2-SVP" in capsys.readouterr().out


def test_an_archive_that_lacks_energies_stops_the_stage_and_is_named(clone: Checkout, real_data: Path) -> None:
    mirror = clone.path / "mirror/espaloma"
    mirror.mkdir(parents=True)
    (mirror / "protein-torsion.tar.gz").write_bytes((real_data / "mirror/bad/protein-torsion-without-u_qm.tar.gz").read_bytes())
    clone.edit({"sources": {"espaloma": ["protein-torsion"], "xtb": False}, "download": {"mirror": "mirror"}})
    output = clone.run("dvc", "repro", status=255)
    assert "u_qm" in output
    assert "protein-torsion" in output
    assert "Traceback" not in output
