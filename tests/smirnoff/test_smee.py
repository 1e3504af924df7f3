"""The bridge to smee, against smee itself where it can be imported (a checkout on PYTHONPATH is enough)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import ForceFieldError, MoleculeError, ParamsError
from pesfit.data.topology import COLUMNS, ForceField, Topology
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.from_smee import from_smee
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.smirnoff.smee import to_smee
from pesfit.smirnoff.smee_potential import SmeePotential
from tests import openff_oracle

SMILES = ("CCO", "C", "CC(=O)NC", "c1c[nH]cn1", "COP(=O)([O-])OC", "CC#N")


@pytest.fixture(scope="module")
def smee() -> Any:
    """The package, with its converters."""
    smee = pytest.importorskip("smee", reason="needs smee, which is optional and not on PyPI")
    pytest.importorskip("smee.converters")
    return smee


@pytest.fixture(scope="module")
def molecules() -> list[openff_oracle.OracleMolecule]:
    """Molecules that use all handlers, and one that uses few."""
    return [openff_oracle.molecule(smiles) for smiles in SMILES]


@pytest.fixture(scope="module")
def ours(molecules: list[openff_oracle.OracleMolecule]) -> tuple[ForceField, list[Topology]]:
    """The molecules in our form."""
    return openff_oracle.tables_and_topologies(molecules)


def batch_of(molecules: list[openff_oracle.OracleMolecule], topologies: list[Topology]) -> Batch:
    return collate(
        [
            Conformers(torch.tensor(molecule.atomic_numbers), torch.tensor(molecule.coords), Terms.from_topology(topology))
            for molecule, topology in zip(molecules, topologies, strict=True)
        ]
    )


def test_smee_evaluates_what_we_convert(smee: Any, molecules: list[Any], ours: tuple[ForceField, list[Topology]]) -> None:
    force_field, topologies = to_smee(*ours)
    for molecule, topology in zip(molecules, topologies, strict=True):
        energies = smee.compute_energy(topology, force_field, torch.tensor(molecule.coords))
        np.testing.assert_allclose(energies, openff_oracle.openmm_energy_forces(molecule)[0], rtol=0.0, atol=2e-4)


def test_what_we_convert_equals_what_smee_converts(
    smee: Any, molecules: list[Any], ours: tuple[ForceField, list[Topology]]
) -> None:
    force_field, topologies = to_smee(*ours)
    expected_force_field, expected = smee.converters.convert_interchange([molecule.interchange for molecule in molecules])
    found_by_type, expected_by_type = force_field.potentials_by_type, expected_force_field.potentials_by_type
    assert found_by_type.keys() == expected_by_type.keys()
    for handler, potential in expected_by_type.items():
        found = found_by_type[handler]
        assert (found.fn, found.parameter_cols, found.parameter_units) == (
            potential.fn,
            potential.parameter_cols,
            potential.parameter_units,
        )
        assert (found.attribute_cols, found.attribute_units) == (potential.attribute_cols, potential.attribute_units)
        if potential.attributes is not None:
            torch.testing.assert_close(found.attributes, potential.attributes)
        if handler != "Electrostatics":
            assert set(found.parameter_keys) == set(potential.parameter_keys)
    for topology, reference in zip(topologies, expected, strict=True):
        assert torch.equal(topology.atomic_nums, reference.atomic_nums)
        assert torch.equal(topology.formal_charges, reference.formal_charges)
        assert torch.equal(topology.bond_idxs, reference.bond_idxs)
        assert sorted(topology.bond_orders.tolist()) == sorted(reference.bond_orders.tolist())
        for handler, potential in expected_by_type.items():
            wanted, given = reference.parameters[handler], topology.parameters[handler]
            torch.testing.assert_close(
                given.assignment_matrix @ found_by_type[handler].parameters,
                wanted.assignment_matrix @ potential.parameters,
                rtol=0.0,
                atol=1e-12,
            )
            if hasattr(wanted, "particle_idxs"):
                assert given.particle_idxs.tolist() == wanted.particle_idxs.tolist()
            else:
                assert scaled_pairs(given, given_potential=found_by_type[handler]) == scaled_pairs(wanted, potential)


def scaled_pairs(mapped: Any, given_potential: Any) -> dict[tuple[int, int], str]:
    names = [given_potential.attribute_cols[i] for i in mapped.exclusion_scale_idxs.flatten().tolist()]
    pairs = (tuple(sorted(pair)) for pair in mapped.exclusions.tolist())
    return {pair: name for pair, name in zip(pairs, names, strict=True) if name != "scale_15"}


def test_what_smee_converts_can_be_read(smee: Any, molecules: list[openff_oracle.OracleMolecule]) -> None:
    force_field, topologies = smee.converters.convert_interchange([molecule.interchange for molecule in molecules])
    read, read_topologies = from_smee(
        force_field, {molecule.smiles: topology for molecule, topology in zip(molecules, topologies, strict=True)}
    )
    assert (read.vdw_scale_14, read.electrostatics_scale_14) == pytest.approx((0.5, 5.0 / 6.0), abs=1e-9)
    assert read.tables["Bonds"].uses.sum() == sum(len(topology.bonds) for topology in read_topologies)
    batch = batch_of(molecules, read_topologies)
    energies = batch.split_conformers(SmirnoffPotential(read)(batch).energy)
    for molecule, energy in zip(molecules, energies, strict=True):
        np.testing.assert_allclose(energy, openff_oracle.openmm_energy_forces(molecule)[0], rtol=0.0, atol=1e-6)


@pytest.mark.usefixtures("smee")
def test_a_round_trip_changes_nothing(ours: tuple[ForceField, list[Topology]]) -> None:
    force_field, topologies = ours
    converted, converted_topologies = to_smee(force_field, topologies)
    names = [topology.smiles for topology in topologies]
    read, read_topologies = from_smee(converted, dict(zip(names, converted_topologies, strict=True)))
    for handler in COLUMNS:
        before, after = force_field.tables[handler], read.tables[handler]
        assert (after.smirks, after.mult.tolist()) == (before.smirks, before.mult.tolist())
        np.testing.assert_array_equal(after.values, before.values)
    for before, after in zip(topologies, read_topologies, strict=True):
        for field in fields(Topology):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name), err_msg=field.name)


@pytest.mark.usefixtures("smee")
def test_the_engine_smee_gives_our_energies_and_forces(
    molecules: list[openff_oracle.OracleMolecule], ours: tuple[ForceField, list[Topology]]
) -> None:
    force_field, topologies = ours
    batch = batch_of(molecules, topologies)
    expected, found = SmirnoffPotential(force_field)(batch), SmeePotential(force_field)(batch)
    torch.testing.assert_close(found.energy, expected.energy, rtol=0.0, atol=2e-4)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0.0, atol=1e-3)


def with_potential(handler: str, change: Callable[[Any], Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
    def changed(force_field: Any, topology: Any) -> tuple[Any, Any]:
        potentials = [change(potential) if potential.type == handler else potential for potential in force_field.potentials]
        return replace(force_field, potentials=potentials), topology

    return changed


def without_an_exclusion(force_field: Any, topology: Any) -> tuple[Any, Any]:
    vdw = topology.parameters["vdW"]
    fewer = replace(vdw, exclusions=vdw.exclusions[1:], exclusion_scale_idxs=vdw.exclusion_scale_idxs[1:])
    return force_field, replace(topology, parameters={**topology.parameters, "vdW": fewer})


def with_two_parameters_for_a_bond(force_field: Any, topology: Any) -> tuple[Any, Any]:
    bonds = topology.parameters["Bonds"]
    doubled = replace(bonds, assignment_matrix=torch.ones_like(bonds.assignment_matrix.to_dense()).to_sparse())
    return force_field, replace(topology, parameters={**topology.parameters, "Bonds": doubled})


@pytest.mark.usefixtures("smee")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (with_potential("vdW", lambda p: replace(p, fn="exp-6")), ForceFieldError, r"vdW \(exp-6\) is not supported"),
        (with_potential("Bonds", lambda p: replace(p, type="LinearBonds")), ForceFieldError, "LinearBonds .* is not supported"),
        (
            with_potential("vdW", lambda p: replace(p, exceptions={(0, 1): 2})),
            ForceFieldError,
            "exceptions from the mixing rules",
        ),
        (
            with_potential("vdW", lambda p: replace(p, attributes=torch.ones(6, dtype=torch.float64))),
            ForceFieldError,
            "vdW: scale_12 = 1 is not supported; supported: 0",
        ),
        (lambda force_field, topology: (replace(force_field, v_sites=object()), topology), ForceFieldError, "VirtualSites"),
        (
            lambda force_field, topology: (
                replace(force_field, potentials=[p for p in force_field.potentials if p.type != "vdW"]),
                topology,
            ),
            ForceFieldError,
            "vdW is missing",
        ),
        (without_an_exclusion, MoleculeError, r"vdW of the atoms 0 and 1 is scaled by 1; the bonds say 0"),
        (with_two_parameters_for_a_bond, MoleculeError, "Bonds: a term that does not use exactly one parameter"),
    ],
)
def test_what_we_do_not_support_is_refused_by_name(
    ours: tuple[ForceField, list[Topology]],
    change: Callable[[Any, Any], tuple[Any, Any]],
    error: type[Exception],
    message: str,
) -> None:
    force_field, topologies = to_smee(ours[0], ours[1][:1])
    changed, topology = change(force_field, topologies[0])
    with pytest.raises(error, match=message):
        from_smee(changed, {ours[1][0].smiles: topology})


@pytest.mark.usefixtures("smee")
@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("not a smiles", "RDKit cannot read"),
        ("[CH3:1][OH:2]", "expected the map numbers 1 to 9"),
        ("[C:1]([C:2]([O:9][H:3])([H:7])[H:8])([H:4])([H:5])[H:6]", "has no bond between the atoms 1 and 2"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_topologies_whose_smiles_says_something_else_are_refused(
    ours: tuple[ForceField, list[Topology]], smiles: str, message: str
) -> None:
    with pytest.raises(MoleculeError, match=message):
        to_smee(ours[0], [replace(ours[1][0], smiles=smiles)])


def test_where_smee_is_missing_it_is_said_what_to_do(
    ours: tuple[ForceField, list[Topology]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smee", None)
    for call in (lambda: SmeePotential(ours[0]), lambda: to_smee(*ours)):
        with pytest.raises(ParamsError, match=r"smee cannot be imported .* or choose engine = pesfit"):
            call()
