"""Neighbor lists: which atoms of a conformer are within a cutoff of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from pesfit.core.exceptions import DataError

_MAX_PAIRS = 2**24
"""Pairs looked at in one go, which bounds memory to about 1 GB."""
_MAX_ATOMS = 150
"""Atoms of a conformer up to which looking at all pairs, of many conformers at once, beats a cell list for each."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed pairs of neighbors, each in both directions, sorted by `first`, then `second`.

    Attributes:
        first: index of the atom whose neighbor it is, int64, shape (n_edges,).
        second: index of the neighbor, shape (n_edges,).
        cutoff: [Å].
    """

    first: Tensor
    second: Tensor
    cutoff: float

    def to(self, device: torch.device | str) -> Edges:
        """Copy to a device."""
        return Edges(self.first.to(device), self.second.to(device), self.cutoff)


def find_edges(coords: Tensor, sizes: Sequence[tuple[int, int]], cutoff: float) -> Edges:
    """Find all neighbors: by looking at all pairs of small conformers, by vesin's cell lists in large ones.

    An atom whose coordinates are not finite has no neighbors.

    Args:
        coords: [Å], shape (n_atoms, 3), in the order molecule, conformer, atom.
        sizes: for each molecule, the number of its conformers and the number of its atoms.
        cutoff: [Å], above 0; a pair at exactly this distance counts.

    Raises:
        DataError: if the cutoff is not a positive number.
    """
    if not cutoff > 0.0:
        raise DataError(f"cutoff = {cutoff} Å; a positive number is needed")
    coords = coords.detach()
    firsts, seconds = [], []
    offset = 0
    for n_conformers, n_atoms in sizes:
        n_in_one_go = max(1, _MAX_PAIRS // n_atoms**2) if n_atoms <= _MAX_ATOMS else 1
        for start in range(0, n_conformers, n_in_one_go):
            n_copies = min(n_in_one_go, n_conformers - start)
            block = coords[offset : offset + n_copies * n_atoms]
            if n_atoms <= _MAX_ATOMS:
                first, second = _among_all_pairs(block.reshape(n_copies, n_atoms, 3), cutoff)
            else:
                first, second = _by_cell_list(block, cutoff)
            firsts.append(offset + first)
            seconds.append(offset + second)
            offset += n_copies * n_atoms
    return Edges(torch.cat(firsts), torch.cat(seconds), cutoff)


def _squared_length(delta: Tensor) -> Tensor:
    return (delta * delta).sum(-1)


def _among_all_pairs(block: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Find the edges of conformers of one molecule, shape (n_conformers, n_atoms, 3)."""
    n_atoms = block.shape[1]
    near = _squared_length(block[:, :, None, :] - block[:, None, :, :]) <= cutoff**2
    near.diagonal(dim1=1, dim2=2).fill_(value=False)
    copy, first, second = torch.nonzero(near, as_tuple=True)
    return copy * n_atoms + first, copy * n_atoms + second


def _by_cell_list(coords: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Find the edges of one conformer, shape (n_atoms, 3)."""
    finite = torch.isfinite(coords).all(1).nonzero().squeeze(1)
    points = coords[finite]
    # Slightly too many, so that what counts as within the cutoff is decided by the same arithmetic for all sizes.
    search = NeighborList(cutoff=cutoff * (1.0 + 1e-9), full_list=True, n_threads=1)
    i, j = search.compute(points.cpu().numpy(), np.zeros((3, 3)), periodic=False, quantities="ij")
    first, second = (torch.from_numpy(index.astype(np.int64)).to(coords.device) for index in (i, j))
    near = _squared_length(points[first] - points[second]) <= cutoff**2
    first, second = finite[first[near]], finite[second[near]]
    order = torch.argsort(first * len(coords) + second)
    return first[order], second[order]
