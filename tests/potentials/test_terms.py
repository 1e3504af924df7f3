"""Pairs against networkx's shortest paths, joined graphs, and topologies that are refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import MoleculeError
from pesfit.data.topology import Topology
from pesfit.potentials.terms import Terms, join_terms, nonbonded_pairs
from tests import openff_oracle


@pytest.fixture(scope="module")
def topologies() -> list[Topology]:
    """Ethanol and acetonitrile."""
    return openff_oracle.tables_and_topologies([openff_oracle.molecule(smiles) for smiles in ("CCO", "CC#N")])[1]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    n_atoms = draw(st.integers(1, 9))
    possible = [(i, j) for i in range(n_atoms) for j in range(n_atoms) if i != j]
    return n_atoms, draw(st.lists(st.sampled_from(possible), max_size=12)) if possible else []


@settings(deadline=None, max_examples=80)
@given(graph=graphs())
def test_pairs_are_those_three_bonds_or_more_apart(graph: tuple[int, list[tuple[int, int]]]) -> None:
    n_atoms, edges = graph
    oracle = nx.Graph()
    oracle.add_nodes_from(range(n_atoms))
    oracle.add_edges_from(edges)
    paths = dict(nx.all_pairs_shortest_path_length(oracle))
    expected = [(i, j, paths[i].get(j) == 3) for i in range(n_atoms) for j in range(i + 1, n_atoms) if paths[i].get(j, 3) > 2]
    pairs, pairs_14 = nonbonded_pairs(np.array(edges, dtype=np.int32).reshape(-1, 2), n_atoms)
    assert [(i, j, bool(scaled)) for (i, j), scaled in zip(pairs.tolist(), pairs_14, strict=True)] == expected


def test_joined_graphs_are_disjoint_copies(topologies: list[Topology]) -> None:
    ethanol, acetonitrile = (Terms.from_topology(topology) for topology in topologies)
    joined = join_terms([(ethanol, 2), (acetonitrile, 1)])
    assert joined.n_atoms == 2 * 9 + 6
    n_angles = len(ethanol.angles)
    assert torch.equal(joined.angles[:n_angles], ethanol.angles)
    assert torch.equal(joined.angles[n_angles : 2 * n_angles], ethanol.angles + 9)
    assert torch.equal(joined.angles[2 * n_angles :], acetonitrile.angles + 18)
    assert torch.equal(joined.angle_parameters[n_angles : 2 * n_angles], ethanol.angle_parameters)
    assert torch.equal(joined.charges, torch.cat([ethanol.charges, ethanol.charges, acetonitrile.charges]))
    assert len(joined.pairs) == len(joined.pairs_14) == 2 * len(ethanol.pairs) + len(acetonitrile.pairs)


def test_molecules_without_terms_of_a_kind_can_be_joined() -> None:
    methane, ethanol = (
        Terms.from_topology(topology)
        for topology in openff_oracle.tables_and_topologies([openff_oracle.molecule("C"), openff_oracle.molecule("CCO")])[1]
    )
    assert len(methane.propers) == len(methane.pairs) == 0
    joined = join_terms([(methane, 3), (ethanol, 1)])
    assert torch.equal(joined.propers, ethanol.propers + 15)


def test_a_copy_on_a_device_is_equal(topologies: list[Topology]) -> None:
    terms = Terms.from_topology(topologies[0])
    moved = terms.to("cpu")
    assert all(torch.equal(getattr(moved, field.name), getattr(terms, field.name)) for field in fields(Terms)[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"angles": np.zeros((2, 2), np.int32)}, r"angles has shape \(2, 2\); expected \(n, 3\)"),
        ({"bonds": np.array([[0, 9]], np.int32)}, r"bonds names atoms 0 to 9; the molecule has 0 to 8"),
        ({"connectivity": np.array([[-1, 2]], np.int32)}, r"connectivity names atoms -1 to 2"),
        ({"bond_parameters": np.zeros(3, np.int32)}, r"bond_parameters has shape \(3,\); expected \(8,\)"),
        ({"vdw_parameters": np.zeros(3, np.int32)}, r"vdw_parameters has shape \(3,\); expected \(9,\)"),
        ({"charges": np.array([0.0] * 8 + [np.nan])}, r"the charge of atom 8 is nan; a finite number is needed"),
    ],
)
def test_malformed_topologies_are_refused(topologies: list[Topology], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MoleculeError, match=message) as caught:
        Terms.from_topology(replace(topologies[0], **changes))
    assert topologies[0].smiles in str(caught.value)
