"""Neighbor lists against scipy's, and those with a skin against lists from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

import pesfit.potentials.neighbors
from pesfit.core.exceptions import DataError
from pesfit.potentials.neighbors import Edges, SkinnedEdges, find_edges

SIZES = ((3, 7), (1, 1), (2, 12))
MOVING = ((3, 7), (2, 4))
N_ATOMS = 29  # of MOVING


def expected_edges(coords: np.ndarray, cutoff: float) -> set[tuple[int, int]]:
    edges, offset = set(), 0
    for n_conformers, n_atoms in SIZES:
        for _ in range(n_conformers):
            found = cKDTree(coords[offset : offset + n_atoms]).query_pairs(cutoff)
            edges |= {(offset + i, offset + j) for i, j in found} | {(offset + j, offset + i) for i, j in found}
            offset += n_atoms
    return edges


@pytest.mark.parametrize("max_pairs", [1, 100, 2**24])
@pytest.mark.parametrize("cutoff", [0.1, 2.0, 100.0])
def test_edges_equal_those_of_scipy(cutoff: float, max_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pesfit.potentials.neighbors, "_MAX_PAIRS", max_pairs)
    coords = np.random.default_rng(5).normal(scale=2.0, size=(3 * 7 + 1 + 2 * 12, 3))
    edges = find_edges(torch.tensor(coords), SIZES, cutoff)
    pairs = list(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
    assert pairs == sorted(expected_edges(coords, cutoff))


@pytest.mark.parametrize("cutoff", [2.0, 5.0, 1000.0])
def test_large_conformers_have_the_edges_of_small_ones(cutoff: float, monkeypatch: pytest.MonkeyPatch) -> None:
    coords = torch.tensor(np.random.default_rng(6).uniform(0.0, 12.0, size=(2 * 170, 3)))
    coords[3] = torch.nan
    coords[200, 1] = torch.inf
    by_cell_list = find_edges(coords, ((2, 170),), cutoff)
    monkeypatch.setattr(pesfit.potentials.neighbors, "_MAX_ATOMS", 1000)
    by_all_pairs = find_edges(coords, ((2, 170),), cutoff)
    assert len(by_cell_list.first) > 500
    assert torch.equal(by_cell_list.first, by_all_pairs.first)
    assert torch.equal(by_cell_list.second, by_all_pairs.second)


def test_a_pair_at_the_cutoff_counts_in_large_conformers() -> None:
    coords = torch.zeros(200, 3, dtype=torch.float64)
    coords[:, 0] = 0.1 * torch.arange(200)
    delta = coords[:, None] - coords
    cutoff = float(delta[7, 3, 0])
    edges = find_edges(coords, ((1, 200),), cutoff)
    assert len(edges.first) == int(((delta**2).sum(-1) <= cutoff**2).sum()) - 200
    assert (7, 3) in zip(edges.first.tolist(), edges.second.tolist(), strict=True)


def test_a_pair_at_the_cutoff_counts_and_one_with_nan_does_not() -> None:
    coords = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    edges = find_edges(coords, ((1, 3),), 2.0)
    assert (edges.first.tolist(), edges.second.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_cutoffs_that_are_not_positive_are_refused(cutoff: float) -> None:
    with pytest.raises(DataError, match="cutoff"):
        find_edges(torch.zeros(1, 3, dtype=torch.float64), ((1, 1),), cutoff)


def same(actual: Edges, expected: Edges) -> None:
    assert torch.equal(actual.first, expected.first)
    assert torch.equal(actual.second, expected.second)
    assert actual.cutoff == expected.cutoff


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.6), st.floats(0.0, 2.0))
def test_neighbors_along_a_path_are_those_found_from_scratch(seed: int, step: float, skin: float) -> None:
    random = np.random.default_rng(seed)
    coords = torch.tensor(random.normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(MOVING, cutoff=2.5, skin=skin)
    for _ in range(12):
        same(edges(coords), find_edges(coords, MOVING, 2.5))
        coords = coords + step * torch.tensor(random.normal(size=(N_ATOMS, 3)))


def test_coordinates_that_move_in_place_are_noticed() -> None:
    coords = torch.tensor(np.random.default_rng(2).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(MOVING, cutoff=2.5, skin=0.5)
    edges(coords)
    coords *= 3.0
    same(edges(coords), find_edges(coords, MOVING, 2.5))


def test_small_moves_need_no_new_search_and_a_large_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[float] = []

    def counted(coords: torch.Tensor, sizes: Sequence[tuple[int, int]], cutoff: float) -> Edges:
        searches.append(cutoff)
        return find_edges(coords, sizes, cutoff)

    monkeypatch.setattr(pesfit.potentials.neighbors, "find_edges", counted)
    coords = torch.tensor(np.random.default_rng(1).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(MOVING, cutoff=2.5, skin=1.0)
    direction = torch.tensor([0.6, 0.8, 0.0])
    for way in (0.0, 0.2, 0.49, -0.49):
        edges(coords + way * direction)
    assert len(searches) == 1
    edges(coords + 0.51 * direction)
    assert len(searches) == 2


def test_an_atom_that_is_lost_leaves_the_others_their_neighbors_and_may_come_back() -> None:
    coords = torch.tensor(np.random.default_rng(2).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(MOVING, cutoff=2.5, skin=1.0)
    lost = coords.clone()
    lost[4] = torch.nan
    for positions in (coords, lost, coords + 0.1, lost + 3.0, coords + 3.0):
        same(edges(positions), find_edges(positions, MOVING, 2.5))
