"""The pipeline on samples of the published data sets, from a mirror."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pesfit.__main__ import main
from pesfit.data.dataset import open_datasets, read_failures
from tests.pipeline.conftest import SMALLER, UP_TO_DATE, Checkout

pytestmark = pytest.mark.slow


def assert_forces_improve(errors: dict[str, Any], sources: list[str]) -> None:
    key = "force_rmse_kcal_per_mol_per_angstrom"
    for source in {"all", *sources} & set(errors):
        assert errors[source]["after"][key] < errors[source]["before"][key], source


def test_the_published_data_run_through_every_stage(
    clone: Checkout, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in ("espaloma", "rmd17", "md17"):
        shutil.copytree(real_data / "mirror" / source, clone.path / "inputs/mirror" / source, copy_function=os.symlink)
    clone.edit(
        {
            "sources": {
                "espaloma": ["gen2-torsion", "protein-torsion", "rna-diverse", "duplicated-isomeric-smiles-merge"],
                "rmd17": ["ethanol", "aspirin"],
                "md17": ["ethanol"],
                "xtb": False,
            },
            "download": {"mirror": "inputs/mirror"},
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
    mirror = clone.path / "inputs/mirror/espaloma"
    mirror.mkdir(parents=True)
    (mirror / "protein-torsion.tar.gz").write_bytes((real_data / "mirror/bad/protein-torsion-without-u_qm.tar.gz").read_bytes())
    clone.edit({"sources": {"espaloma": ["protein-torsion"], "xtb": False}, "download": {"mirror": "inputs/mirror"}})
    output = clone.run("dvc", "repro", status=255)
    assert "u_qm" in output
    assert "protein-torsion" in output
    assert "Traceback" not in output
