"""Neighbors of atoms that move little between two looks: found with a margin, the skin, and looked for again when it is used up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pesfit.potentials.neighbors import Edges, find_edges


class SkinnedEdges:
    """The neighbors of a graph as its atoms move (Verlet, Phys. Rev. 159, 98, 1967).

    Pairs within cutoff + skin are kept until an atom has moved by more than half the skin; until then no pair can have come within the
    cutoff that is not among them. What is returned is what `find_edges` would return, edge for edge.

    Args:
        sizes: for each molecule, the number of its conformers and the number of its atoms.
        cutoff: [Å].
        skin: [Å].

    Attributes:
        n_searches: how often neighbors were looked for from scratch.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], cutoff: float, skin: float) -> None:
        self._sizes = sizes
        self._cutoff = cutoff
        self._skin = skin
        self._found: tuple[Tensor, Edges] | None = None
        self.n_searches = 0

    def __call__(self, coords: Tensor) -> Edges:
        """Return the neighbors at these positions.

        Args:
            coords: [Å], shape (n_atoms, 3). Atoms whose coordinates are not finite have no neighbors.
        """
        coords = coords.detach()
        if self._found is None or self._used_up(coords, self._found[0]):
            self._found = coords.clone(), find_edges(coords, self._sizes, self._cutoff + self._skin)
            self.n_searches += 1
        candidates = self._found[1]
        delta = coords.index_select(0, candidates.first) - coords.index_select(0, candidates.second)
        near = (delta * delta).sum(-1) <= self._cutoff**2
        return Edges(candidates.first[near], candidates.second[near], self._cutoff)

    def _used_up(self, coords: Tensor, before: Tensor) -> bool:
        moved = ((coords - before) ** 2).sum(-1) > (0.5 * self._skin) ** 2
        # An atom that was not finite at the last search and is now has no candidates yet.
        returned = torch.isfinite(coords).all(-1) & ~torch.isfinite(before).all(-1)
        return bool((moved | returned).any())
