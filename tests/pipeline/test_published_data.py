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


def test_energies_and_forces_of_every_espaloma_subset_improve(clone: Checkout, real_data: Path) -> None:
    """Docs/fitting.md has the numbers, and why the energies of one held-out molecule do not."""
    shutil.copytree(real_data / "mirror/espaloma", clone.path / "inputs/mirror/espaloma", copy_function=os.symlink)
    clone.edit(
        {
            "sources": {
                "espaloma": ["gen2-torsion", "protein-torsion", "rna-diverse", "duplicated-isomeric-smiles-merge"],
                "xtb": False,
            },
            "download": {"mirror": "inputs/mirror"},
            "fit_smirnoff": {"prior_strength": 5.0, "train": {"proper_torsions": {"k": {"prior_width": 0.5}}}},
        }
    )
    keys = "force_rmse_kcal_per_mol_per_angstrom", "energy_rmse_kcal_per_mol"
    worse = {}
    for by in ("molecule", "frame"):
        clone.edit({"split": {"rules": [{"source": "espaloma", "by": by, "train": 0.8, "validation": 0.1, "test": 0.1}]}})
        clone.run("dvc", "repro", "06_fit_smirnoff")
        errors = clone.metrics("fit_smirnoff")["errors"]
        assert set(errors["train"]) == {
            "all",
            *(f"espaloma/{name}" for name in ("gen2-torsion", "protein-torsion", "rna-diverse")),
        }
        for split, sources in errors.items():
            for source, values in sources.items():
                for key in keys:
                    if values["before"][key] is not None and values["after"][key] >= values["before"][key]:
                        worse[by, split, source, key] = values["after"][key] / values["before"][key]
    assert set(worse) <= {("molecule", "test", "espaloma/gen2-torsion", keys[1])}, worse
    assert max(worse.values(), default=1.0) < 1.05
    found = clone.metrics("minima")
    assert (found["molecules"], found["minima"], found["scans"], found["failures"]) == (5, 5, 5, 0)
    assert found["left_out_without_minima_and_scans"] == 3


def test_an_archive_that_lacks_energies_stops_the_stage_and_is_named(clone: Checkout, real_data: Path) -> None:
    mirror = clone.path / "inputs/mirror/espaloma"
    mirror.mkdir(parents=True)
    (mirror / "protein-torsion.tar.gz").write_bytes((real_data / "mirror/bad/protein-torsion-without-u_qm.tar.gz").read_bytes())
    clone.edit({"sources": {"espaloma": ["protein-torsion"], "xtb": False}, "download": {"mirror": "inputs/mirror"}})
    output = clone.run("dvc", "repro", status=255)
    assert "u_qm" in output
    assert "protein-torsion" in output
    assert "Traceback" not in output
