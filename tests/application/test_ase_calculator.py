"""The ASE calculator with ASE's own optimisers and dynamics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.test import gradient_test
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import pesfit
from pesfit.application.geometries import embedded
from pesfit.application.predict import predict
from pesfit.core.exceptions import DataError, MoleculeError
from pesfit.core.units import EV
from pesfit.models.open import open_model


def molecule(smiles: str = "CCO") -> Atoms:
    made = embedded(smiles, smiles, 0)
    return Atoms(numbers=made.atomic_numbers, positions=made.coords)


def with_model(atoms: Atoms, model: Path, smiles: str | None) -> Atoms:
    atoms.calc = pesfit.calculator(model, smiles=smiles)
    return atoms


@pytest.mark.parametrize(("which", "smiles"), [("smirnoff", "OCC"), ("network", None)])
def test_units_and_forces_are_ases(request: pytest.FixtureRequest, which: str, smiles: str | None) -> None:
    model = request.getfixturevalue(which)
    atoms = with_model(molecule(), model, smiles)
    (expected,) = predict(open_model(model), [embedded("CCO", "CCO", 0)])
    assert atoms.get_potential_energy() == pytest.approx(expected.energy / EV, abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces / EV, atol=1e-10)
    analytic, numerical = gradient_test(atoms, [0, 5])
    np.testing.assert_allclose(analytic, numerical, atol=1e-5)


@pytest.mark.parametrize(("which", "smiles"), [("smirnoff", "CCO"), ("network", None)])
def test_bfgs_finds_a_minimum(request: pytest.FixtureRequest, which: str, smiles: str | None) -> None:
    atoms = with_model(molecule(), request.getfixturevalue(which), smiles)
    before = atoms.get_potential_energy()
    with BFGS(atoms, logfile=None) as optimizer:
        assert optimizer.run(fmax=0.01, steps=300)
    assert atoms.get_potential_energy() < before
    assert np.abs(atoms.get_forces()).max() <= 0.01


def test_velocity_verlet_conserves_energy(smirnoff: Path) -> None:
    atoms = with_model(molecule(), smirnoff, "CCO")
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.01)
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    energies = []
    with VelocityVerlet(atoms, 0.25 * units.fs, logfile=None) as dynamics:
        for _ in dynamics.irun(200):
            energies.append(atoms.get_total_energy())  # noqa: PERF401 - the loop is the simulation
    assert np.ptp(energies) < 0.01 * atoms.get_kinetic_energy()


def test_deviations_are_there_where_the_model_has_a_posterior(smirnoff: Path, network: Path) -> None:
    atoms = with_model(molecule(), smirnoff, "CCO")
    (expected,) = predict(open_model(smirnoff), [embedded("CCO", "CCO", 0)])
    assert expected.std is not None
    atoms.get_forces()
    assert "forces_std" not in atoms.calc.results
    assert atoms.calc.get_property("energy_std", atoms) == pytest.approx(expected.std.energy / EV)
    np.testing.assert_allclose(atoms.calc.get_property("forces_std", atoms), expected.std.forces / EV)
    moved = atoms.copy()
    moved.positions[0] += 0.1
    assert not np.allclose(atoms.calc.get_property("forces_std", moved), expected.std.forces / EV)
    learned = with_model(molecule(), network, None)
    with pytest.raises(PropertyNotImplementedError):
        learned.calc.get_property("energy_std", learned)


def test_one_calculator_goes_from_molecule_to_molecule(network: Path) -> None:
    calculator = pesfit.calculator(network)
    for smiles in ("CCO", "CO", "CCO"):
        atoms = molecule(smiles)
        atoms.calc = calculator
        (expected,) = predict(open_model(network), [embedded(smiles, smiles, 0)])
        assert atoms.get_potential_energy() == pytest.approx(expected.energy / EV, abs=1e-10)


def test_what_does_not_fit_is_named(smirnoff: Path, network: Path) -> None:
    with pytest.raises(DataError, match="needs bonds, which ASE's atoms lack; give the molecule's SMILES as smiles="):
        pesfit.calculator(smirnoff)
    with pytest.raises(DataError, match=r"the atoms has the atoms H4 C1 O1; CCO needs"):
        with_model(molecule("CO"), smirnoff, "CCO").get_potential_energy()
    periodic = molecule()
    periodic.pbc = True
    with pytest.raises(DataError, match="the atoms are periodic"):
        with_model(periodic, network, None).get_potential_energy()
    with pytest.raises(DataError, match="not trained on N"):
        with_model(molecule("CN"), network, None).get_potential_energy()
    with pytest.raises(MoleculeError, match="cannot be assigned"):
        with_model(molecule("[SiH4]"), smirnoff, "[SiH4]").get_potential_energy()
    with pytest.raises(AttributeError, match="module 'pesfit' has no attribute 'calculater'"):
        _ = pesfit.calculater
