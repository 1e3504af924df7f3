"""Neighbor lists: which atoms of a conformer are within a cutoff of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pesfit.errors import DataError

_MAX_PAIRS = 2**24
"""Pairs looked at in one go, which bounds memory to about 1 GB."""


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
    """Find all neighbors by looking at all pairs of each conformer, which is fastest up to some hundred atoms.

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
    firsts, seconds = [], []
    offset = 0
    for n_conformers, n_atoms in sizes:
        n_in_one_go = max(1, _MAX_PAIRS // n_atoms**2)
        for start in range(0, n_conformers, n_in_one_go):
            n_copies = min(n_in_one_go, n_conformers - start)
            block = coords[offset : offset + n_copies * n_atoms].detach().reshape(n_copies, n_atoms, 3)
            delta = block[:, :, None, :] - block[:, None, :, :]
            near = (delta * delta).sum(-1) <= cutoff**2
            near.diagonal(dim1=1, dim2=2).fill_(False)
            copy, first, second = torch.nonzero(near, as_tuple=True)
            firsts.append(offset + copy * n_atoms + first)
            seconds.append(offset + copy * n_atoms + second)
            offset += n_copies * n_atoms
    return Edges(torch.cat(firsts), torch.cat(seconds), cutoff)
