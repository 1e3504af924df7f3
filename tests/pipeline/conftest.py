"""Clones of this repository that tests run `dvc` in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]

SMALLER: dict[str, Any] = {
    "convert": {
        "xtb": {"n_molecules": 6, "n_conformers": 2, "n_samples": 3, "sample_interval_fs": 5.0, "n_trajectory_frames": 60}
    },
    "minima": {"n_conformers": 1, "n_minima": 1, "scans_per_molecule": 0},
    "split": {
        "rules": [
            {"source": "xtb/conformers", "by": "molecule", "train": 0.5, "validation": 0.25, "test": 0.25},
            {"source": "xtb/trajectory", "by": "block", "train": 0.8, "validation": 0.1, "test": 0.1},
        ]
    },
    "train_learned": {"network": {"n_features": 16, "n_interactions": 1}, "num_epochs": 2, "early_stopping_min_epochs": 1},
    "benchmark": {"max_steps": 100},
    "rollout": {
        "replicas": 2,
        "gfn2_replicas": 1,
        "nve": {"length_fs": 40.0},
        "nvt": {"length_fs": 40.0, "equilibration_fs": 10.0},
        "min_reference_frames": 20,
        "label_frames": 2,
        "probes": {"temperatures_kelvin": [1000.0], "replicas": 1, "frames": 2, "equilibration_fs": 20.0, "conformers": 2},
    },
}
"""The small profile, cut down by parameters alone."""

UP_TO_DATE = "Data and pipelines are up to date."


@dataclass(frozen=True)
class Checkout:
    """A clone with its own DVC cache and download cache."""

    path: Path

    def environment(self, workers: int) -> dict[str, str]:
        binaries = Path(sys.executable).parent
        return os.environ | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "SHELL": "/bin/sh",  # the harder case: dash does not replace itself with its only command, as bash does
            "PESFIT_CACHE": str(self.path / ".download-cache"),
            "PESFIT_WORKERS": str(workers),
        }

    def start(self, *command: str, workers: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment(workers),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *command: str, workers: int = 1, status: int = 0) -> str:
        process = self.start(*command, workers=workers)
        output, _ = process.communicate()
        assert process.returncode == status, output
        return output

    def edit(self, profile_small: dict[str, Any]) -> None:
        """Lay values over the small profile in params.yaml, as a user would with an editor."""
        yaml = YAML()
        document = yaml.load(self.path / "params.yaml")
        merge(document["profiles"]["small"], profile_small)
        yaml.dump(document, self.path / "params.yaml")

    def metrics(self, stage: str) -> dict[str, Any]:
        return json.loads((self.path / "outputs/metrics" / f"{stage}.json").read_text())

    def output_hashes(self) -> dict[str, str]:
        """Hash of each output in dvc.lock."""
        stages = YAML(typ="safe", pure=True).load(self.path / "dvc.lock")["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def merge(base: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def clone_to(path: Path) -> Checkout:
    """Clone what is checked out here, with changes that are not committed yet."""
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True, capture_output=True)
    changed = subprocess.run(
        ["git", "ls-files", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for file in filter(None, changed.stdout.splitlines()):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, path / file)
        else:
            (path / file).unlink(missing_ok=True)
    return Checkout(path)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Checkout]:
    """A fresh clone, which vanishes with the test."""
    yield clone_to(tmp_path / "clone")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone that ran to the end with one worker and parameters `SMALLER`; tests leave it as they found it."""
    folder = tmp_path_factory.mktemp("finished")
    checkout = clone_to(folder / "clone")
    checkout.edit(SMALLER)
    checkout.run("dvc", "repro")
    yield checkout
    shutil.rmtree(folder, ignore_errors=True)
