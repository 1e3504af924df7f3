"""The export to smee, against smee itself where it can be imported (a checkout on PYTHONPATH is enough)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import MoleculeError, ParamsError
from pesfit.data.topology import ForceField, Topology
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.smirnoff.smee import to_smee, write_smee
from tests import openff_oracle
from tests.oracles.smee import SmeePotential

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


def test_a_written_file_is_what_descent_trains(
    smee: Any, molecules: list[Any], ours: tuple[ForceField, list[Topology]], tmp_path: Path
) -> None:
    assert write_smee(tmp_path / "ff.pt", ours[0], [*ours[1], ours[1][0]]) == len(molecules)
    force_field, topologies = torch.load(tmp_path / "ff.pt", weights_only=False)
    for molecule in molecules:
        energies = smee.compute_energy(topologies[molecule.smiles], force_field, torch.tensor(molecule.coords))
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


@pytest.mark.usefixtures("smee")
def test_the_engine_smee_gives_our_energies_and_forces(
    molecules: list[openff_oracle.OracleMolecule], ours: tuple[ForceField, list[Topology]]
) -> None:
    force_field, topologies = ours
    batch = batch_of(molecules, topologies)
    expected, found = SmirnoffPotential(force_field)(batch), SmeePotential(force_field)(batch)
    torch.testing.assert_close(found.energy, expected.energy, rtol=0.0, atol=2e-4)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0.0, atol=1e-3)


@pytest.mark.usefixtures("smee")
@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("not a smiles", "RDKit cannot read"),
        ("[CH3:1][OH:2]", "does not map all its atoms"),
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
    ours: tuple[ForceField, list[Topology]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "smee", None)
    with pytest.raises(ParamsError, match=r"smee cannot be imported .* install it from conda-forge"):
        write_smee(tmp_path / "ff.pt", *ours)
    assert not list(tmp_path.iterdir())
