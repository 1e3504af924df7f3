"""Opening what the pipeline wrote, and what is no model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pesfit.application.geometries import embedded
from pesfit.core.exceptions import DataError, ForceFieldError, MoleculeError, ParamsError
from pesfit.models.open import open_model
from tests import openff_oracle


def test_output_folders_are_opened(smirnoff: Path, network: Path) -> None:
    fitted = open_model(smirnoff)
    assert (fitted.needs_bonds, fitted.has_posterior) == (True, True)
    learned = open_model(str(network))
    assert (learned.needs_bonds, learned.has_posterior) == (False, False)
    made = embedded("CCO", "CCO", 0)
    prepared = fitted.prepare(made.atomic_numbers, made.smiles, "CCO")
    assert prepared.charge_method == "nagl"
    assert prepared.uncertainty is not None
    assert learned.prepare(made.atomic_numbers, None, "CCO").uncertainty is None


def test_force_fields_are_opened_by_path_and_by_name_and_have_no_posterior(smirnoff: Path, tmp_path: Path) -> None:
    assert open_model(smirnoff / "force-field.offxml").has_posterior
    made = embedded("CC(=O)[O-]", "acetate", 0)
    copy = tmp_path / "mine.offxml"
    shutil.copy(smirnoff / "force-field.offxml", copy)
    for name in (str(copy), openff_oracle.FORCE_FIELD):
        model = open_model(name, ["gasteiger"])
        prepared = model.prepare(made.atomic_numbers, made.smiles, "acetate")
        assert (model.has_posterior, prepared.uncertainty, prepared.total_charge) == (False, None, -1)
        assert prepared.charge_method == "gasteiger"
        assert prepared.terms is not None
        assert float(prepared.terms.charges.sum()) == pytest.approx(-1.0)


def test_what_is_no_model_is_named(tmp_path: Path, smirnoff: Path, network: Path) -> None:
    with pytest.raises(DataError, match="model nowhere does not exist; expected a folder such as"):
        open_model("nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"is a file that is no \.offxml"):
        open_model(tmp_path / "a.txt")
    with pytest.raises(DataError, match=f"neither force-field.offxml nor config.json; did you mean {network}"):
        open_model(network.parent)
    with pytest.raises(ForceFieldError, match=r"'nothing\.offxml' is neither a file nor installed"):
        open_model("nothing.offxml")
    with pytest.raises(ParamsError, match="'am1' is not known"):
        open_model(smirnoff, ["am1"])  # type: ignore[list-item]


def test_other_versions_and_damaged_files_are_refused(tmp_path: Path, smirnoff: Path, network: Path) -> None:
    shutil.copytree(network, tmp_path / "network")
    config = json.loads((network / "config.json").read_text())
    (tmp_path / "network/config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(DataError, match="version 99; this version reads pesfit-painn 1"):
        open_model(tmp_path / "network")
    (tmp_path / "network/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="does not hold a PaiNN potential"):
        open_model(tmp_path / "network")
    shutil.copytree(smirnoff, tmp_path / "smirnoff")
    np.savez(tmp_path / "smirnoff/posterior.npz", format_version=np.array(99))
    with pytest.raises(DataError, match=r"posterior.npz has format version 99; this version reads 1"):
        open_model(tmp_path / "smirnoff")
    (tmp_path / "smirnoff/posterior.npz").unlink()
    (tmp_path / "smirnoff/force-field.offxml").write_text("<SMIRNOFF")
    with pytest.raises(ForceFieldError, match="it is not XML"):
        open_model(tmp_path / "smirnoff")


def test_molecules_that_do_not_fit_are_named(smirnoff: Path) -> None:
    model = open_model(smirnoff)
    with pytest.raises(DataError, match=r"water.xyz has no bonds, which the SMIRNOFF force field .* needs; give an SDF file"):
        model.prepare(np.array([8, 1, 1], dtype=np.int32), None, "water.xyz")
    with pytest.raises(MoleculeError, match=r"silane: .* cannot be assigned: no Bonds parameter"):
        model.prepare(np.array([14, 1, 1, 1, 1], dtype=np.int32), "[Si:1]([H:2])([H:3])([H:4])[H:5]", "silane")
