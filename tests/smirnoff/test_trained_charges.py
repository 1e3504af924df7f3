"""Charges that were trained are used for their molecules, in whatever order the atoms come, and for no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pesfit.application.geometries import embedded
from pesfit.core.exceptions import DataError
from pesfit.models.open import open_model

METHANOL = "[C:2]([O:1][H:6])([H:3])([H:4])[H:5]"
CHARGES = {1: -0.6, 2: 0.15, 3: 0.01, 4: 0.01, 5: 0.01, 6: 0.42}


@pytest.fixture
def folder(smirnoff: Path, tmp_path: Path) -> Path:
    shutil.copytree(smirnoff, tmp_path / "fit")
    rows = [f"{METHANOL},{atom},0.0,{charge}" for atom, charge in CHARGES.items()]
    (tmp_path / "fit/charges.csv").write_text("\n".join(["smiles,atom,charge_before,charge_after", *rows, ""]))
    return tmp_path / "fit"


def test_molecules_of_the_fit_have_its_charges(folder: Path) -> None:
    model = open_model(folder)
    made = embedded("CO", "CO", 0)  # C O H H H H
    prepared = model.prepare(made.atomic_numbers, made.smiles, "CO")
    assert prepared.charge_method == "fit"
    assert prepared.terms is not None
    np.testing.assert_allclose(prepared.terms.charges.numpy(), [0.15, -0.6, 0.01, 0.01, 0.01, 0.42], atol=1e-12)
    other = embedded("CCO", "CCO", 0)
    assert model.prepare(other.atomic_numbers, other.smiles, "CCO").charge_method == "nagl"


@pytest.mark.parametrize("change", [("charge_after", "after"), (f"{METHANOL},2,", f"{METHANOL},7,"), ("-0.6", "much")])
def test_damaged_files_are_named(folder: Path, change: tuple[str, str]) -> None:
    path = folder / "charges.csv"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=r"charges\.csv cannot be read as the charges of a fit"):
        open_model(folder)
