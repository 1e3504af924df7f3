"""Neighbor lists: pairs of atoms of a conformer within a cutoff, found from scratch or followed with a Verlet skin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from pesfit.core.exceptions import DataError

_MAX_PAIRS = 2**24
"""Pairs tested at once, which bounds memory to about 1 GB."""
_MAX_ATOMS = 150
"""Atoms of a conformer up to which testing all pairs, of many conformers at once, beats a cell list for each."""


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

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return `first` and `second` of each pair once, with first < second."""
        once = self.first < self.second
        return self.first[once], self.second[once]

    def to(self, device: torch.device | str) -> Edges:
        """Copy to a device."""
        return Edges(self.first.to(device), self.second.to(device), self.cutoff)


def find_edges(coords: Tensor, sizes: Sequence[tuple[int, int]], cutoff: float) -> Edges:
    """Find all neighbors: all pairs are tested in small conformers, those of vesin's cell lists in large ones.

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
        n_at_once = max(1, _MAX_PAIRS // n_atoms**2) if n_atoms <= _MAX_ATOMS else 1
        for start in range(0, n_conformers, n_at_once):
            n_copies = min(n_at_once, n_conformers - start)
            block = coords[offset : offset + n_copies * n_atoms]
            if n_atoms <= _MAX_ATOMS:
                first, second = _among_all_pairs(block.reshape(n_copies, n_atoms, 3), cutoff)
            else:
                first, second = _by_cell_list(block, cutoff)
            firsts.append(offset + first)
            seconds.append(offset + second)
            offset += n_copies * n_atoms
    return Edges(torch.cat(firsts), torch.cat(seconds), cutoff)


class SkinnedEdges:
    """The neighbors of a graph as its atoms move (Verlet, Phys. Rev. 159, 98, 1967).

    Pairs within cutoff + skin are kept until an atom has moved by more than half the skin; until then no pair can have come within the
    cutoff that is not among them. The result equals that of `find_edges`, edge for edge.

    Args:
        sizes: for each molecule, the number of its conformers and the number of its atoms.
        cutoff: [Å].
        skin: [Å].
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], cutoff: float, skin: float) -> None:
        self._sizes = sizes
        self._cutoff = cutoff
        self._skin = skin
        self._found: tuple[Tensor, Edges] | None = None

    def __call__(self, coords: Tensor) -> Edges:
        """Return the neighbors at these positions.

        Args:
            coords: [Å], shape (n_atoms, 3). Atoms whose coordinates are not finite have no neighbors.
        """
        coords = coords.detach()
        if self._found is None or self._used_up(coords, self._found[0]):
            self._found = coords.clone(), find_edges(coords, self._sizes, self._cutoff + self._skin)
        candidates = self._found[1]
        near = _are_near(coords.index_select(0, candidates.first), coords.index_select(0, candidates.second), self._cutoff)
        return Edges(candidates.first[near], candidates.second[near], self._cutoff)

    def _used_up(self, coords: Tensor, before: Tensor) -> bool:
        moved = ((coords - before) ** 2).sum(-1) > (0.5 * self._skin) ** 2
        # An atom that was not finite at the last search and is now has no candidates yet.
        returned = torch.isfinite(coords).all(-1) & ~torch.isfinite(before).all(-1)
        return bool((moved | returned).any())


def _are_near(x: Tensor, y: Tensor, cutoff: float) -> Tensor:
    """Return whether pairs of points, shapes (..., 3), are within the cutoff."""
    delta = x - y
    return (delta * delta).sum(-1) <= cutoff**2


def _among_all_pairs(block: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Find the edges of conformers of one molecule, shape (n_conformers, n_atoms, 3)."""
    n_atoms = block.shape[1]
    near = _are_near(block[:, :, None, :], block[:, None, :, :], cutoff)
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
    near = _are_near(points[first], points[second], cutoff)
    first, second = finite[first[near]], finite[second[near]]
    order = torch.argsort(first * len(coords) + second)
    return first[order], second[order]
