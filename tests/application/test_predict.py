"""Predictions against OpenMM, and their deviations against the spread of force fields drawn from the posterior."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.application.geometries import Geometry, embedded
from pesfit.application.predict import predict
from pesfit.core.exceptions import DataError
from pesfit.models.open import open_model
from pesfit.smirnoff.openmm_check import openmm_energies, openmm_system


def conformers(smiles: str, n: int) -> list[Geometry]:
    made = embedded(smiles, smiles, 0)
    rng = np.random.default_rng(0)
    return [
        replace(made, where=f"{smiles} {i}", coords=made.coords + 0.04 * rng.normal(size=made.coords.shape)) for i in range(n)
    ]


def test_energies_are_openmms(smirnoff: Path) -> None:
    model = open_model(smirnoff)
    geometries = conformers("CCO", 3)
    found = predict(model, geometries)
    prepared = model.prepare(geometries[0].atomic_numbers, geometries[0].smiles, "")
    assert prepared.terms is not None
    coords = np.stack([geometry.coords for geometry in geometries])
    offxml = (smirnoff / "force-field.offxml").read_text()
    system = openmm_system(offxml, geometries[0].smiles or "", prepared.terms.charges.numpy())
    expected = openmm_energies(system, coords)
    np.testing.assert_allclose([of.energy for of in found], expected, atol=1e-6)
    np.testing.assert_allclose([of.relative_energy for of in found], expected - expected[0], atol=1e-6)
    assert [of.charge_method for of in found] == ["nagl"] * 3


def test_molecules_the_fit_has_not_seen_are_less_sure(smirnoff: Path) -> None:
    known, unknown = (predict(open_model(smirnoff), conformers(smiles, 2)) for smiles in ("CCO", "CC(=O)NC"))
    assert known[1].std is not None
    assert unknown[1].std is not None
    assert 0.0 < known[1].std.relative_energy < unknown[1].std.relative_energy
    assert known[1].std.forces.max() < unknown[1].std.forces.max()
    assert known[0].std is not None
    assert known[0].std.relative_energy < 1e-12
    assert known[0].std.energy > 0.0


@pytest.mark.parametrize("which", ["smirnoff", "network"])
def test_company_does_not_matter(request: pytest.FixtureRequest, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other molecules nor the size of what is evaluated in one go; relative energies are within an unbroken row."""
    model = open_model(request.getfixturevalue(which))
    ethanol, methanol = conformers("CCO", 5), conformers("CO", 2)
    together = predict(model, [*ethanol[:3], *methanol, *ethanol[3:]])
    monkeypatch.setattr("pesfit.potentials.model.ATOMS_AT_ONCE", 18)
    apart = [*predict(model, ethanol[:3]), *predict(model, methanol), *predict(model, ethanol[3:])]
    for one, other in zip(together, apart, strict=True):
        assert one.geometry.where == other.geometry.where
        assert one.energy == pytest.approx(other.energy, abs=1e-9)
        assert one.relative_energy == pytest.approx(other.relative_energy, abs=1e-9)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-9)
        assert (one.std is None) == (other.std is None) == (which == "network")
        if one.std is not None and other.std is not None:
            assert one.std.relative_energy == pytest.approx(other.std.relative_energy, abs=1e-9)
    assert [together[i].relative_energy for i in (0, 3, 5)] == [0.0, 0.0, 0.0]


def test_what_cannot_be_evaluated_is_named(smirnoff: Path, network: Path) -> None:
    with pytest.raises(DataError, match=r"CN 0: this potential was not trained on N; it knows H, C, O"):
        predict(open_model(network), conformers("CN", 1))
    first, second = conformers("CCO", 2)
    coords = second.coords.copy()
    coords[8] = coords[4]
    with pytest.raises(DataError, match=re.escape("CCO 1: atoms 4 and 8 are at the same place")):
        predict(open_model(smirnoff), [first, replace(second, coords=coords)])
