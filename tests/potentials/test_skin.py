"""Neighbors with a skin against neighbors looked for from scratch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pesfit.potentials.neighbors import Edges, find_edges
from pesfit.potentials.skin import SkinnedEdges

SIZES = ((3, 7), (2, 4))
N_ATOMS = 29


def same(actual: Edges, expected: Edges) -> None:
    assert torch.equal(actual.first, expected.first)
    assert torch.equal(actual.second, expected.second)
    assert actual.cutoff == expected.cutoff


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.6), st.floats(0.0, 2.0))
def test_neighbors_along_a_path_are_those_found_from_scratch(seed: int, step: float, skin: float) -> None:
    random = np.random.default_rng(seed)
    coords = torch.tensor(random.normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(SIZES, cutoff=2.5, skin=skin)
    for _ in range(12):
        same(edges(coords), find_edges(coords, SIZES, 2.5))
        coords = coords + step * torch.tensor(random.normal(size=(N_ATOMS, 3)))


def test_coordinates_that_move_in_place_are_noticed() -> None:
    coords = torch.tensor(np.random.default_rng(2).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(SIZES, cutoff=2.5, skin=0.5)
    edges(coords)
    coords *= 3.0
    same(edges(coords), find_edges(coords, SIZES, 2.5))
    assert edges.n_searches == 2


def test_small_moves_need_no_new_search_and_a_large_one_does() -> None:
    coords = torch.tensor(np.random.default_rng(1).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(SIZES, cutoff=2.5, skin=1.0)
    direction = torch.tensor([0.6, 0.8, 0.0])
    for way in (0.0, 0.2, 0.49, -0.49):
        edges(coords + way * direction)
    assert edges.n_searches == 1
    edges(coords + 0.51 * direction)
    assert edges.n_searches == 2


def test_an_atom_that_is_lost_leaves_the_others_their_neighbors_and_may_come_back() -> None:
    coords = torch.tensor(np.random.default_rng(2).normal(scale=2.0, size=(N_ATOMS, 3)))
    edges = SkinnedEdges(SIZES, cutoff=2.5, skin=1.0)
    lost = coords.clone()
    lost[4] = torch.nan
    for positions in (coords, lost, coords + 0.1, lost + 3.0, coords + 3.0):
        same(edges(positions), find_edges(positions, SIZES, 2.5))
