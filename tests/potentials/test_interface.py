"""Batches: how they are put together and taken apart, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import DataError
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.neighbors import find_edges
from pesfit.potentials.terms import Terms
from tests import openff_oracle


def water(n_conformers: int = 2) -> Conformers:
    return Conformers(
        torch.tensor([8, 1, 1]), torch.arange(9.0 * n_conformers, dtype=torch.float64).reshape(n_conformers, 3, 3)
    )


def neon() -> Conformers:
    return Conformers(torch.tensor([10]), torch.full((1, 1, 3), -1.0, dtype=torch.float64))


@pytest.fixture
def batch() -> Batch:
    """Two conformers of water and one neon atom."""
    return collate([water(), neon()])


def test_a_batch_is_molecule_by_molecule_conformer_by_conformer(batch: Batch) -> None:
    assert (batch.n_atoms, batch.n_conformers, batch.sizes) == (7, 3, ((2, 3), (1, 1)))
    assert batch.atomic_numbers.tolist() == [8, 1, 1, 8, 1, 1, 10]
    assert batch.conformer.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert torch.equal(batch.coords[:6], water().coords.reshape(6, 3))
    assert batch.terms is None


def test_values_are_split_into_molecules(batch: Batch) -> None:
    first, second = batch.split_atoms(batch.coords)
    assert torch.equal(first, water().coords)
    assert torch.equal(second, neon().coords)
    assert [part.tolist() for part in batch.split_conformers(torch.arange(3))] == [[0, 1], [2]]


def test_atoms_are_located(batch: Batch) -> None:
    assert [batch.locate(atom) for atom in (0, 2, 4, 6)] == [(0, 0, 0), (0, 0, 2), (0, 1, 1), (1, 0, 0)]
    for atom in (-1, 7):
        with pytest.raises(IndexError):
            batch.locate(atom)


def test_other_conformers_of_a_molecule_are_a_copy_in_double_precision() -> None:
    start = Conformers(torch.tensor([8, 1, 1]), water().coords, total_charge=-1)
    coords = np.ones((5, 3, 3), dtype=np.float32)
    there = start.at(coords)
    coords[:] = 0.0
    assert torch.equal(there.coords, torch.ones(5, 3, 3, dtype=torch.float64))
    assert (there.atomic_numbers.tolist(), there.total_charge) == ([8, 1, 1], -1)
    assert torch.equal(start.coords, water().coords)


def test_new_coordinates_drop_the_neighbors(batch: Batch) -> None:
    with_edges = Batch(**{**vars(batch), "edges": find_edges(batch.coords, batch.sizes, 5.0)})
    assert with_edges.to("cpu").edges is not None
    moved = with_edges.with_coords(batch.coords + 1.0)
    assert moved.edges is None
    assert torch.equal(moved.coords, batch.coords + 1.0)
    with pytest.raises(DataError, match=r"shape \(2, 3\); this batch needs \(7, 3\)"):
        batch.with_coords(batch.coords[:2])


def test_terms_are_joined() -> None:
    molecule = openff_oracle.molecule("CCO")
    terms = Terms.from_topology(openff_oracle.tables_and_topologies([molecule])[1][0])
    ethanol = Conformers(torch.tensor(molecule.atomic_numbers), torch.tensor(molecule.coords), terms)
    joined = collate([ethanol, ethanol]).to("cpu").terms
    assert joined is not None
    assert joined.n_atoms == 36
    with pytest.raises(DataError, match="molecule 1 of the batch has no SMIRNOFF terms"):
        collate([ethanol, water()])
    with pytest.raises(DataError, match="molecule 0 of the batch has 3 atoms and terms for 9"):
        collate([Conformers(water().atomic_numbers, water().coords, terms)])


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (torch.zeros(1, 2, 3, dtype=torch.float64), r"shape \(1, 2, 3\); expected \(n_conformers, 3, 3\)"),
        (torch.zeros(3, 3, dtype=torch.float64), r"shape \(3, 3\)"),
        (torch.zeros(0, 3, 3, dtype=torch.float64), "at least 1 conformer"),
        (torch.zeros(1, 3, 3), "type torch.float32; expected torch.float64"),
    ],
)
def test_malformed_coordinates_are_refused(coords: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        collate([neon(), Conformers(torch.tensor([8, 1, 1]), coords)])
    assert "molecule 1" in str(caught.value)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(DataError, match="0 molecules"):
        collate([])
