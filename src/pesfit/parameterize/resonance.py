"""Formal charges averaged over resonance forms: the two oxygens of a carboxylate carry half a charge each.

Electron pairs move from donor atoms to acceptor atoms along chains of alternating bonds, as in the vcharge method of Gilson,
Gilson and Potter, J. Chem. Inf. Comput. Sci. 43, 1982 (2003), https://doi.org/10.1021/ci034148o, with the atom types of
openff-nagl:

=====================  ========================  ==========================
atom                   as an acceptor            as a donor
=====================  ========================  ==========================
oxygen, sulfur         neutral, bond order 2     charge -1, bond order 1
nitrogen, 3 neighbors  charge +1, orders 1 1 2   neutral, orders 1 1 1
nitrogen, 2 neighbors  neutral, orders 1 2       charge -1, orders 1 1
nitrogen, 1 neighbor   neutral, bond order 3     charge -1, bond order 2
=====================  ========================  ==========================

A form's energy is the number of such atoms that are charged (times 5, in the paper's units); the forms of least energy count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError

MAX_FORMS = 20_000
"""More resonance forms than this in one conjugated piece are refused rather than waited for (some seconds)."""

MAX_CHAINS = 200_000
"""The same for chains of alternating bonds from one donor; large graphene-like molecules have that many."""

BondOrders: TypeAlias = Mapping[tuple[int, int], int]
"""By pair of atom indices, the smaller first."""

_OrderKey: TypeAlias = tuple[int, int, tuple[int, ...]]

# (atomic number, charge, sorted bond orders) as an acceptor; a donor has one electron pair more, so its charge is one less.
_ACCEPTOR_CHARGES: dict[_OrderKey, int] = {
    (8, 0, (2,)): 0,
    (16, 0, (2,)): 0,
    (7, 1, (1, 1, 2)): 1,
    (7, 0, (1, 2)): 0,
    (7, 0, (3,)): 0,
}
_DONOR_CHARGES: dict[_OrderKey, int] = {
    (8, -1, (1,)): -1,
    (16, -1, (1,)): -1,
    (7, 0, (1, 1, 1)): 0,
    (7, -1, (1, 1)): -1,
    (7, -1, (2,)): -1,
}


def average_formal_charges(atomic_numbers: Sequence[int], charges: Sequence[int], orders: BondOrders) -> FloatArray:
    """Return each atom's formal charge, averaged over the resonance forms of least energy.

    Args:
        atomic_numbers: shape (n_atoms,), hydrogens explicit.
        charges: [e], formal charges in one Kekulé structure, shape (n_atoms,).
        orders: bond orders in it.

    Returns:
        [e], shape (n_atoms,).

    Raises:
        MoleculeError: if there are more than `MAX_FORMS` forms or `MAX_CHAINS` chains.
    """
    neighbors: list[dict[int, int]] = [{} for _ in atomic_numbers]
    for (i, j), order in orders.items():
        neighbors[i][j] = neighbors[j][i] = order
    averages = np.array(charges, dtype=np.float64)
    for piece in _conjugated_pieces(atomic_numbers, charges, neighbors):
        enumerator = _Piece(piece, atomic_numbers, charges, neighbors)
        for atom, charge in enumerator.average_charges().items():
            averages[atom] = charge
    return averages


def _conjugated_pieces(
    atomic_numbers: Sequence[int], charges: Sequence[int], neighbors: Sequence[Mapping[int, int]]
) -> Iterator[list[int]]:
    """Yield the connected sets of atoms that are left when hydrogens and saturated carbons are taken out."""
    left = {
        atom
        for atom, number in enumerate(atomic_numbers)
        if number != 1 and not (number == 6 and charges[atom] == 0 and sorted(neighbors[atom].values()) == [1, 1, 1, 1])
    }
    while left:
        piece = []
        front = [min(left)]
        left.discard(front[0])
        while front:
            atom = front.pop()
            piece.append(atom)
            reached = sorted(left.intersection(neighbors[atom]))
            left.difference_update(reached)
            front.extend(reached)
        yield piece


class _Piece:
    """A conjugated piece of a molecule and the atoms in it that can give or take an electron pair.

    A form is the set of atoms that are acceptors in it, with bond orders that go with that. Which pairs can move next does not
    depend on which of several arrangements of single and double bonds a form has: two arrangements differ by closed alternating
    cycles, and those open or close no chain. So one arrangement is kept for each set.
    """

    def __init__(
        self,
        atoms: Sequence[int],
        atomic_numbers: Sequence[int],
        charges: Sequence[int],
        neighbors: Sequence[Mapping[int, int]],
    ) -> None:
        inside = set(atoms)
        self._orders = {atom: {other: order for other, order in neighbors[atom].items() if other in inside} for atom in atoms}
        self._acceptor_charge: dict[int, int] = {}
        acceptors = set()
        for atom in sorted(atoms):
            key = (atomic_numbers[atom], charges[atom], tuple(sorted(neighbors[atom].values())))
            if key in _ACCEPTOR_CHARGES:
                self._acceptor_charge[atom] = _ACCEPTOR_CHARGES[key]
                acceptors.add(atom)
            elif key in _DONOR_CHARGES:
                self._acceptor_charge[atom] = _DONOR_CHARGES[key] + 1
        self._start = frozenset(acceptors)

    def average_charges(self) -> dict[int, float]:
        """Return the mean formal charge of the donors and acceptors, by atom index."""
        typed = self._acceptor_charge
        # Without charges nothing can be lower, and whatever is as low has no charges either.
        if not self._start or len(self._start) == len(typed) or self._energy(self._start) == 0:
            return {}
        forms = self._forms()
        energies = [self._energy(form) for form in forms]
        lowest = [form for form, energy in zip(forms, energies, strict=True) if energy == min(energies)]
        return {atom: sum(self._charge(atom, form) for form in lowest) / len(lowest) for atom in typed}

    def _charge(self, atom: int, acceptors: frozenset[int]) -> int:
        return self._acceptor_charge[atom] - (atom not in acceptors)

    def _energy(self, acceptors: frozenset[int]) -> int:
        return sum(self._charge(atom, acceptors) != 0 for atom in self._acceptor_charge)

    def _forms(self) -> list[frozenset[int]]:
        """Return every form that can be reached by moving electron pairs, the given one first."""
        found = {self._start: self._orders}
        queue = [self._start]
        for acceptors in queue:
            orders = found[acceptors]
            for donor in self._acceptor_charge:
                if donor in acceptors:
                    continue
                for acceptor, path in self._chains(donor, acceptors, orders).items():
                    form = acceptors - {acceptor} | {donor}
                    if form not in found:
                        found[form] = _shifted(orders, path)
                        queue.append(form)
            if len(found) > MAX_FORMS:
                raise MoleculeError(f"more than {MAX_FORMS} resonance forms in a piece of {len(self._orders)} conjugated atoms")
        return queue

    def _chains(
        self, donor: int, acceptors: frozenset[int], orders: Mapping[int, Mapping[int, int]]
    ) -> dict[int, tuple[int, ...]]:
        """Return, for each acceptor that the donor's pair can move to, one chain of alternating bonds that leads there."""
        chains: dict[int, tuple[int, ...]] = {}
        stack: list[tuple[int, ...]] = [(donor,)]
        n_tried = 0
        while stack and len(chains) < len(acceptors):
            path = stack.pop()
            n_tried += 1
            if n_tried > MAX_CHAINS:
                raise MoleculeError(
                    f"more than {MAX_CHAINS} chains of alternating bonds in a piece of {len(self._orders)} conjugated atoms"
                )
            for middle, low in orders[path[-1]].items():
                if middle in path or (len(path) > 1 and low != orders[path[0]][path[1]]):
                    continue
                for end, high in orders[middle].items():
                    if high == low + 1 and end not in path:
                        longer = (*path, middle, end)
                        stack.append(longer)
                        if end in acceptors:
                            chains.setdefault(end, longer)
        return chains


def _shifted(orders: Mapping[int, Mapping[int, int]], path: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return the bond orders after an electron pair has moved along a chain: up and down by one in turn."""
    changed = {atom: dict(bonds) for atom, bonds in orders.items()}
    step = 1
    for i, j in pairwise(path):
        changed[i][j] += step
        changed[j][i] += step
        step = -step
    return changed
