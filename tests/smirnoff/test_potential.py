"""SMIRNOFF energies and forces against OpenMM's Reference platform and smee, and their derivatives against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor

from pesfit.core.exceptions import DataError, ForceFieldError
from pesfit.data.topology import COLUMNS, ForceField, ParameterTable, Topology
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.potential import HANDLERS, SmirnoffPotential
from tests import openff_oracle


@dataclass(frozen=True)
class Parameterized:
    """Molecules with the force field they are assigned from."""

    molecules: list[openff_oracle.OracleMolecule]
    force_field: ForceField
    topologies: list[Topology]

    def batch(self, *which: int) -> Batch:
        return collate(
            [
                Conformers(
                    torch.tensor(self.molecules[i].atomic_numbers),
                    torch.tensor(self.molecules[i].coords),
                    Terms.from_topology(self.topologies[i]),
                )
                for i in which or range(len(self.molecules))
            ]
        )


@pytest.fixture(scope="module")
def small() -> Parameterized:
    """All molecules of the oracle."""
    molecules = [openff_oracle.molecule(smiles) for smiles in openff_oracle.SMILES]
    return Parameterized(molecules, *openff_oracle.tables_and_topologies(molecules))


@pytest.fixture(scope="module")
def amide() -> Parameterized:
    """N-methylacetamide and acetonitrile, which together have every handler."""
    molecules = [openff_oracle.molecule(smiles) for smiles in ("CC(=O)NC", "CC#N")]
    return Parameterized(molecules, *openff_oracle.tables_and_topologies(molecules))


def test_energies_and_forces_equal_openmm(small: Parameterized) -> None:
    batch = small.batch()
    prediction = SmirnoffPotential(small.force_field)(batch)
    energies, forces = batch.split_conformers(prediction.energy), batch.split_atoms(prediction.forces)
    for molecule, energy, force in zip(small.molecules, energies, forces, strict=True):
        expected_energy, expected_forces = openff_oracle.openmm_energy_forces(molecule)
        np.testing.assert_allclose(energy, expected_energy, rtol=0.0, atol=1e-6, err_msg=molecule.smiles)
        np.testing.assert_allclose(force, expected_forces, rtol=0.0, atol=1e-6, err_msg=molecule.smiles)


def test_each_handler_equals_openmm(amide: Parameterized) -> None:
    parts = SmirnoffPotential(amide.force_field).decompose(amide.batch())
    assert tuple(parts) == HANDLERS
    expected = {"Bonds": [], "Angles": [], "Torsions": [], "vdW": [], "Electrostatics": []}
    for molecule in amide.molecules:
        for name, energies in openmm_by_force(molecule).items():
            expected[name] += energies
    found = {name: prediction.energy for name, prediction in parts.items()}
    found["Torsions"] = found.pop("ProperTorsions") + found.pop("ImproperTorsions")
    for name, energies in expected.items():
        np.testing.assert_allclose(found[name], energies, rtol=0.0, atol=1e-6, err_msg=name)
    assert float(parts["ImproperTorsions"].energy.abs().max()) > 1e-3


def openmm_by_force(molecule: openff_oracle.OracleMolecule) -> dict[str, list[float]]:
    """Energies [kcal/mol] of each conformer by force; van der Waals with charges of 0, and the rest of the nonbonded force."""
    system = molecule.interchange.to_openmm_system(combine_nonbonded_forces=True)
    names = {
        openmm.HarmonicBondForce: "Bonds",
        openmm.HarmonicAngleForce: "Angles",
        openmm.PeriodicTorsionForce: "Torsions",
        openmm.NonbondedForce: "Nonbonded",
    }
    groups = {}
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
        if type(force) in names:
            groups[names[type(force)]] = group
    nonbonded = system.getForce(groups["Nonbonded"])
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))

    def energies(group: int) -> list[float]:
        found = []
        for coords in molecule.coords:
            context.setPositions(coords * 0.1)
            energy = context.getState(getEnergy=True, groups={group}).getPotentialEnergy()
            found.append(energy.value_in_unit(unit.kilocalorie_per_mole))
        return found

    by_force = {name: energies(group) for name, group in groups.items()}
    for i in range(nonbonded.getNumParticles()):
        _, *lennard_jones = nonbonded.getParticleParameters(i)
        nonbonded.setParticleParameters(i, 0.0, *lennard_jones)
    for i in range(nonbonded.getNumExceptions()):
        first, second, _, *lennard_jones = nonbonded.getExceptionParameters(i)
        nonbonded.setExceptionParameters(i, first, second, 0.0, *lennard_jones)
    nonbonded.updateParametersInContext(context)
    by_force["vdW"] = energies(groups["Nonbonded"])
    total = by_force.pop("Nonbonded")
    by_force["Electrostatics"] = [both - vdw for both, vdw in zip(total, by_force["vdW"], strict=True)]
    return by_force


@pytest.mark.slow
def test_energies_and_forces_equal_smee(real_data: Path) -> None:
    golden = np.load(real_data / "golden" / "smee-openff-2.1.0.npz", allow_pickle=False)
    sizes = golden["n_atoms"] * golden["n_confs"] * 3
    coords = np.split(golden["coords"], np.cumsum(sizes)[:-1])
    charges = np.split(golden["charges"], np.cumsum(golden["n_atoms"])[:-1])
    molecules = [
        openff_oracle.mapped_molecule(str(smiles), block.reshape(n_conformers, -1, 3), charge)
        for smiles, block, n_conformers, charge in zip(golden["smiles"], coords, golden["n_confs"], charges, strict=True)
    ]
    golden_set = Parameterized(molecules, *openff_oracle.tables_and_topologies(molecules))
    prediction = SmirnoffPotential(golden_set.force_field)(golden_set.batch())
    assert (len(molecules), len(prediction.energy)) == (26, 520)
    np.testing.assert_allclose(prediction.energy, golden["energy"], rtol=0.0, atol=2e-4)
    np.testing.assert_allclose(prediction.forces.reshape(-1), golden["forces"], rtol=0.0, atol=1e-3)


def test_handlers_sum_to_the_whole(amide: Parameterized) -> None:
    potential, batch = SmirnoffPotential(amide.force_field), amide.batch()
    whole, parts = potential(batch), potential.decompose(batch).values()
    torch.testing.assert_close(sum(part.energy for part in parts), whole.energy, rtol=0.0, atol=1e-11)
    torch.testing.assert_close(sum(part.forces for part in parts), whole.forces, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("handler", HANDLERS)
def test_forces_of_each_handler_equal_autograd(amide: Parameterized, handler: str) -> None:
    batch = amide.batch()
    coords = batch.coords.clone().requires_grad_()
    prediction = SmirnoffPotential(amide.force_field).decompose(batch.with_coords(coords))[handler]
    (gradient,) = torch.autograd.grad(prediction.energy.sum(), coords)
    torch.testing.assert_close(prediction.forces, -gradient, rtol=0.0, atol=1e-9)


def one_conformer(parameterized: Parameterized) -> Batch:
    molecule = parameterized.molecules[0]
    terms = Terms.from_topology(parameterized.topologies[0])
    return collate([Conformers(torch.tensor(molecule.atomic_numbers), torch.tensor(molecule.coords[:1]), terms)])


@pytest.mark.parametrize("handler", COLUMNS)
def test_energies_and_forces_pass_gradcheck_for_every_parameter(amide: Parameterized, handler: str) -> None:
    potential, batch = SmirnoffPotential(amide.force_field), one_conformer(amide)
    tables = dict(potential.tables.items())

    def function(table: Tensor) -> tuple[Tensor, Tensor]:
        prediction = potential.evaluate(batch, {**tables, handler: table})
        return prediction.energy, prediction.forces.sum(0) + prediction.forces[0]

    table = tables[handler].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (table,), eps=1e-6, atol=1e-4, rtol=1e-4)


def test_energies_and_forces_pass_gradcheck_for_charges(amide: Parameterized) -> None:
    potential, batch = SmirnoffPotential(amide.force_field), one_conformer(amide)

    def function(charges: Tensor) -> tuple[Tensor, Tensor]:
        prediction = potential(replace(batch, terms=replace(batch.terms, charges=charges)))
        return prediction.energy, prediction.forces[:4]

    assert torch.autograd.gradcheck(function, (batch.terms.charges.clone().requires_grad_(),), atol=1e-4)


def test_one_backward_pass_reaches_the_parameters_of_the_module(amide: Parameterized) -> None:
    potential = SmirnoffPotential(amide.force_field)
    assert not any(parameter.requires_grad for parameter in potential.parameters())
    potential.requires_grad_()
    prediction = potential(amide.batch())
    (prediction.energy.square().sum() + prediction.forces.square().sum()).backward()
    for handler, table in potential.tables.items():
        assert table.grad is not None, handler
        assert bool(torch.isfinite(table.grad).all()), handler
        assert bool((table.grad != 0.0).any()), handler


def test_an_epsilon_of_zero_has_a_gradient_of_zero(amide: Parameterized) -> None:
    potential = SmirnoffPotential(changed(amide.force_field, "vdW", lambda values: values * np.array([0.0, 1.0])))
    batch = amide.batch()
    assert float(potential.decompose(batch)["vdW"].energy.abs().max()) == 0.0
    potential.requires_grad_()
    potential(batch).forces.square().sum().backward()
    assert torch.equal(potential.tables["vdW"].grad, torch.zeros_like(potential.tables["vdW"]))


def test_exactly_linear_molecules_have_finite_energies_and_forces(amide: Parameterized) -> None:
    batch = amide.batch(1)
    straight = torch.zeros_like(batch.coords)
    straight[:, 0] = torch.tensor([0.0, 1.46, 2.62, -1.1, -2.2, -3.3, 0.0, 1.46, 2.62, -1.1, -2.2, -3.3], dtype=torch.float64)
    prediction = SmirnoffPotential(amide.force_field)(batch.with_coords(straight))
    assert bool(torch.isfinite(prediction.energy).all())
    assert bool(torch.isfinite(prediction.forces).all())


def test_atoms_at_the_same_place_are_named(amide: Parameterized) -> None:
    batch = amide.batch()
    coords = batch.coords.clone()
    first_of_acetonitrile = 2 * len(amide.molecules[0].atomic_numbers)
    coords[first_of_acetonitrile + 6 + 2] = coords[first_of_acetonitrile + 6 + 1]
    with pytest.raises(CoincidentAtomsError, match="molecule 1, conformer 1: atoms 1 and 2 are at the same place"):
        SmirnoffPotential(amide.force_field)(batch.with_coords(coords))


def test_a_batch_without_terms_is_refused(amide: Parameterized) -> None:
    with pytest.raises(DataError, match="needs a batch with terms"):
        SmirnoffPotential(amide.force_field)(replace(amide.batch(), terms=None))


def test_terms_from_another_force_field_are_refused(amide: Parameterized) -> None:
    batch = amide.batch()
    foreign = replace(batch.terms, angle_parameters=batch.terms.angle_parameters + 1000)
    n_angles = len(amide.force_field.tables["Angles"].values)
    with pytest.raises(
        DataError, match=rf"use Angles parameter 1\d\d\d; the force field has {n_angles} \(0 to {n_angles - 1}\)"
    ):
        SmirnoffPotential(amide.force_field)(replace(batch, terms=foreign))


def changed(force_field: ForceField, handler: str, change: Callable[[np.ndarray], np.ndarray]) -> ForceField:
    table = force_field.tables[handler]
    return replace(force_field, tables={**force_field.tables, handler: replace(table, values=change(table.values))})


def with_value(row: int, column: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        copy = values.copy()
        copy[row, column] = value
        return copy

    return change


@pytest.mark.parametrize(
    ("handler", "column", "value", "message"),
    [
        ("Bonds", 0, np.nan, "k = nan; a finite number is needed"),
        ("ProperTorsions", 1, 2.5, "periodicity = 2.5; a whole number of at least 1 is needed"),
        ("ImproperTorsions", 3, 0.0, "idivf = 0; a number above 0 is needed"),
        ("vdW", 0, -0.1, "epsilon = -0.1; a number of at least 0 is needed"),
        ("vdW", 1, np.inf, "sigma = inf; a number of at least 0 is needed"),
    ],
)
def test_values_without_an_energy_are_refused(
    amide: Parameterized, handler: str, column: int, value: float, message: str
) -> None:
    with pytest.raises(ForceFieldError, match=message) as caught:
        SmirnoffPotential(changed(amide.force_field, handler, with_value(1, column, value)))
    assert amide.force_field.tables[handler].smirks[1] in str(caught.value)


def test_handlers_that_are_unknown_or_missing_are_refused_by_name(amide: Parameterized) -> None:
    tables = amide.force_field.tables
    odd = ParameterTable("GBSA", (), (), np.zeros(0, np.int32), np.zeros((0, 2)), np.zeros(0, np.int64))
    with pytest.raises(ForceFieldError, match="GBSA is not supported; supported: Bonds, Angles"):
        SmirnoffPotential(replace(amide.force_field, tables={**tables, "GBSA": odd}))
    with pytest.raises(ForceFieldError, match="vdW is missing"):
        SmirnoffPotential(replace(amide.force_field, tables={name: table for name, table in tables.items() if name != "vdW"}))
    with pytest.raises(ForceFieldError, match=r"table of Bonds has shape \(\d+, 1\); expected \(n, 2\): k, length"):
        SmirnoffPotential(changed(amide.force_field, "Bonds", lambda values: values[:, :1]))
