"""The form prepared for replicas against the flat one, which itself is held against OpenMM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import DataError
from pesfit.potentials.interface import Batch, Conformers, Prediction, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.smirnoff.replicas import SmirnoffReplicas
from tests import openff_oracle


@pytest.fixture(scope="module")
def everything() -> tuple[torch.nn.Module, Batch]:
    """Every kind of term, in molecules of different sizes, three conformers each."""
    molecules = [openff_oracle.molecule(smiles, n_conformers=3) for smiles in openff_oracle.SMILES]
    force_field, topologies = openff_oracle.tables_and_topologies(molecules)
    conformers = [
        Conformers(torch.tensor(molecule.atomic_numbers), torch.tensor(molecule.coords), Terms.from_topology(topology))
        for molecule, topology in zip(molecules, topologies, strict=True)
    ]
    return SmirnoffPotential(force_field), collate(conformers)


def close(actual: Prediction, expected: Prediction, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual.energy, expected.energy, rtol=0.0, atol=tolerance)
    torch.testing.assert_close(actual.forces, expected.forces, rtol=0.0, atol=tolerance)


def test_it_agrees_with_the_flat_form_for_every_kind_of_term(everything) -> None:
    potential, batch = everything
    bound = potential.bind(batch)
    assert isinstance(bound, SmirnoffReplicas)
    for scale in (1.0, 0.97, 1.2):
        close(bound(scale * batch.coords), potential(batch.with_coords(scale * batch.coords)))


def test_the_same_positions_give_the_same_bytes(everything) -> None:
    potential, batch = everything
    first, second = potential.bind(batch)(batch.coords), potential.bind(batch)(batch.coords)
    assert torch.equal(first.energy, second.energy)
    assert torch.equal(first.forces, second.forces)


def test_unequal_numbers_of_conformers_take_the_flat_form() -> None:
    ethanol, acetamide = openff_oracle.molecule("CCO", 2), openff_oracle.molecule("CC(=O)N", 5)
    force_field, topologies = openff_oracle.tables_and_topologies([ethanol, acetamide])
    batch = collate(
        [
            Conformers(torch.tensor(molecule.atomic_numbers), torch.tensor(molecule.coords), Terms.from_topology(topology))
            for molecule, topology in zip((ethanol, acetamide), topologies, strict=True)
        ]
    )
    potential = SmirnoffPotential(force_field)
    close(potential.bind(batch)(batch.coords), potential(batch), tolerance=0.0)
    with pytest.raises(DataError, match="same number of conformers"):
        SmirnoffReplicas(dict(potential.tables.items()), 0.5, 0.5, batch)


def test_coordinates_that_are_not_finite_or_coincide_spoil_their_own_conformer_alone(everything) -> None:
    potential, batch = everything
    expected = potential(batch)
    coords = batch.coords.clone()
    n_atoms = batch.sizes[1][1]
    first_atom = batch.sizes[0][0] * batch.sizes[0][1]
    coords[first_atom] = torch.nan
    coords[first_atom + n_atoms] = coords[first_atom + n_atoms + 1]
    prediction = potential.bind(batch)(coords)
    spoilt = np.array([batch.sizes[0][0], batch.sizes[0][0] + 1])
    spoilt_atoms = torch.isin(batch.conformer, torch.tensor(spoilt))
    assert not bool(torch.isfinite(prediction.energy[spoilt[0]]))
    for conformer in spoilt:
        assert not bool(torch.isfinite(prediction.forces[batch.conformer == conformer]).all())
    rest = np.setdiff1d(np.arange(batch.n_conformers), spoilt)
    torch.testing.assert_close(prediction.energy[rest], expected.energy[rest], rtol=0.0, atol=1e-10)
    torch.testing.assert_close(prediction.forces[~spoilt_atoms], expected.forces[~spoilt_atoms], rtol=0.0, atol=1e-10)


def test_exactly_linear_atoms_have_the_limits_of_the_flat_form() -> None:
    """Butyne with its four carbons on a line: angles of π and dihedrals that are not defined."""
    butyne = openff_oracle.molecule("CC#CC", n_conformers=2, jitter=0.0)
    force_field, (topology,) = openff_oracle.tables_and_topologies([butyne])
    coords = butyne.coords.copy()
    coords[:, :4] = np.array([[0.0, 0.0, 0.0], [1.45, 0.0, 0.0], [2.65, 0.0, 0.0], [4.1, 0.0, 0.0]])
    coords[:, 4:7] = np.array([[-0.4, 1.0, 0.0], [-0.4, -0.5, 0.87], [-0.4, -0.5, -0.87]])
    coords[:, 7:] = np.array([[4.5, 1.0, 0.0], [4.5, -0.5, 0.87], [4.5, -0.5, -0.87]])
    batch = collate([Conformers(torch.tensor(butyne.atomic_numbers), torch.tensor(coords), Terms.from_topology(topology))])
    potential = SmirnoffPotential(force_field)
    expected = potential(batch)
    assert bool(torch.isfinite(expected.forces).all())
    close(potential.bind(batch)(batch.coords), expected)


def test_terms_of_another_force_field_are_refused(everything) -> None:
    potential, _ = everything
    ethanol = openff_oracle.molecule("CCO", 2)
    _, (topology,) = openff_oracle.tables_and_topologies([ethanol])
    topology.bond_parameters[0] = 999
    batch = collate(
        [Conformers(torch.tensor(ethanol.atomic_numbers), torch.tensor(ethanol.coords), Terms.from_topology(topology))]
    )
    with pytest.raises(DataError, match="Bonds parameter 999"):
        potential.bind(batch)
