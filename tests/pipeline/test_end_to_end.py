"""The pipeline as a user runs it: `dvc repro` in a fresh clone, cut down by parameters alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pesfit.__main__ import main
from pesfit.dataset import open_datasets, read_failures
from tests.pipeline.conftest import Checkout

SMALLER: dict[str, Any] = {
    "convert": {
        "xtb": {"n_molecules": 6, "n_conformers": 2, "n_samples": 3, "sample_interval_fs": 5.0, "n_trajectory_frames": 60}
    },
    "split": {
        "rules": [
            {"source": "xtb/conformers", "by": "molecule", "train": 0.5, "validation": 0.25, "test": 0.25},
            {"source": "xtb/trajectory", "by": "block", "train": 0.8, "validation": 0.1, "test": 0.1},
        ]
    },
    "train_learned": {"network": {"n_features": 16, "n_interactions": 1}, "num_epochs": 2, "early_stopping_min_epochs": 1},
}
UP_TO_DATE = "Data and pipelines are up to date."

NewClone = Callable[[str], Checkout]


def assert_forces_improve(errors: dict[str, Any], sources: list[str]) -> None:
    key = "force_rmse_kcal_per_mol_per_angstrom"
    for source in {"all", *sources} & set(errors):
        assert errors[source]["after"][key] < errors[source]["before"][key], source


def test_fresh_clones_agree_to_the_byte_whatever_the_workers_and_a_second_run_does_nothing(
    new_clone: NewClone, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = []
    for workers in (1, 2, 3):
        clone = new_clone(f"clone-{workers}")
        clone.edit(SMALLER)
        clone.run("dvc", "repro", workers=workers)
        hashes.append(clone.output_hashes())
        assert UP_TO_DATE in clone.run("dvc", "repro", workers=workers)
    assert hashes[0] == hashes[1] == hashes[2]
    assert "data/splits" in hashes[0]

    clone.run("dvc", "repro", "--force", "--single-item", "06_fit_smirnoff", workers=4)
    assert "outputs/learned/direct" in hashes[0]
    assert clone.output_hashes() == hashes[0]

    data = open_datasets(clone.path / "data/clustered")
    assert {record.source for record in data["xtb"]} == {"xtb/conformers", "xtb/trajectory"}
    assert not read_failures(clone.path / "data/parameterized/failures.csv")
    assert main(["show", str(clone.path / "data/arrow/xtb")]) == 0
    assert "level of theory  GFN2-xTB" in capsys.readouterr().out


def test_killed_at_any_moment_it_ends_in_the_same_bytes(new_clone: NewClone) -> None:
    undisturbed, killed = new_clone("undisturbed"), new_clone("killed")
    for clone in (undisturbed, killed):
        clone.edit(SMALLER)
    undisturbed.run("dvc", "repro")
    for seconds, whom in ((4.0, signal.SIGKILL), (8.0, signal.SIGTERM)):
        process = killed.start("dvc", "repro")
        time.sleep(seconds)
        os.kill(process.pid, whom)  # dvc alone: its stage has to notice
        process.communicate(timeout=60)
    killed.run("dvc", "repro")
    assert killed.output_hashes() == undisturbed.output_hashes()
    assert not [path for path in (killed.path / "data").iterdir() if path.name.startswith(".")]


def test_a_wrong_parameter_stops_before_work_and_loses_nothing(new_clone: NewClone) -> None:
    clone = new_clone("clone")
    clone.edit(SMALLER)
    clone.run("dvc", "repro")
    before = clone.output_hashes()
    clone.edit({"cluster": {"cutoff_angstrom": -0.5}})
    output = clone.run("dvc", "repro", status=255)
    assert "profiles.small.cluster.cutoff_angstrom = -0.5: expected a number > 0 and <= 10" in output
    clone.edit({"cluster": {"cutoff_angstrom": 0.1}})
    clone.run("dvc", "repro")
    assert clone.output_hashes() == before


def test_the_published_data_run_through_every_stage(
    new_clone: NewClone, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = new_clone("clone")
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


def test_an_archive_that_lacks_energies_stops_the_stage_and_is_named(new_clone: NewClone, real_data: Path) -> None:
    clone = new_clone("clone")
    mirror = clone.path / "mirror/espaloma"
    mirror.mkdir(parents=True)
    (mirror / "protein-torsion.tar.gz").write_bytes((real_data / "mirror/bad/protein-torsion-without-u_qm.tar.gz").read_bytes())
    clone.edit({"sources": {"espaloma": ["protein-torsion"], "xtb": False}, "download": {"mirror": "mirror"}})
    output = clone.run("dvc", "repro", status=255)
    assert "u_qm" in output
    assert "protein-torsion" in output
    assert "Traceback" not in output
