"""The fitted force field in OpenMM, by the OpenFF toolkit, as docs/using.md shows it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openmm
import pytest
from openff.toolkit import ForceField, Molecule
from openmm import unit

from pesfit.application.geometries import embedded
from pesfit.application.predict import predict
from pesfit.models.open import open_model


def test_minimise_and_one_picosecond(smirnoff: Path) -> None:
    made = embedded("CCO", "CCO", 0)
    model = open_model(smirnoff)
    prepared = model.prepare(made.atomic_numbers, made.smiles, "ethanol")
    assert prepared.terms is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the toolkit's
        molecule = Molecule.from_mapped_smiles(made.smiles)
        molecule.partial_charges = unit.Quantity(prepared.terms.charges.numpy(), unit.elementary_charge)
        force_field = ForceField(str(smirnoff / "force-field.offxml"))
        system = force_field.create_openmm_system(molecule.to_topology(), charge_from_molecules=[molecule])
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(made.coords * unit.angstrom)

    def energy() -> float:
        state = context.getState(getEnergy=True)
        return float(state.getPotentialEnergy().value_in_unit(unit.kilocalorie_per_mole))

    (start,) = predict(model, [made])
    assert energy() == pytest.approx(start.energy, abs=1e-5)
    openmm.LocalEnergyMinimizer.minimize(context, 0.1)
    lowest = energy()
    assert lowest < start.energy - 1.0
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    integrator.step(1000)
    coords = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    bonds = prepared.terms.bonds.numpy()
    lengths = np.linalg.norm(coords[bonds[:, 0]] - coords[bonds[:, 1]], axis=1)
    assert ((lengths > 0.8) & (lengths < 1.8)).all()
    assert lowest < energy() < lowest + 60.0
