"""Which atoms of a molecule are compared, and which of their orders are the same molecule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import IntArray, LongArray
from pesfit.core.exceptions import MoleculeError

MIN_HEAVY_ATOMS = 3
"""With fewer heavy atoms than this, all atoms are compared: one or two points have no shape."""

MAX_ATOM_ORDERS = 256
"""Equivalent orders tried at most: each costs as much as all pairs without symmetry."""


@dataclass(frozen=True)
class AtomOrders:
    """Orders of the compared atoms that give the same molecule.

    Attributes:
        orders: positions among the compared atoms, the identity first, shape (n_orders, n_compared).
        complete: False where there are more than `MAX_ATOM_ORDERS`, and only so many are listed.
    """

    orders: LongArray
    complete: bool


def compared_atoms(atomic_numbers: IntArray, *, heavy_atoms: bool) -> LongArray:
    """Return the atoms that an RMSD compares.

    Args:
        atomic_numbers: shape (n_atoms,).
        heavy_atoms: leave out hydrogens, unless fewer than `MIN_HEAVY_ATOMS` atoms would remain.

    Returns:
        indices, shape (n_compared,).
    """
    heavy = np.flatnonzero(atomic_numbers != 1)
    return heavy if heavy_atoms and len(heavy) >= MIN_HEAVY_ATOMS else np.arange(len(atomic_numbers))


def equivalent_orders(smiles: str, atoms: LongArray) -> AtomOrders:
    """Find the symmetry-equivalent orders of the compared atoms: the graph's matches with itself.

    Atoms are equivalent by element, number of hydrogens and place in the graph. Bond orders and formal charges are not looked at,
    so that the oxygens of a carboxylate or of a nitro group are alike however they are drawn, while those of an acid are told apart
    by the hydrogen. Chirality is not looked at either: two conformers may differ by it, their atoms do not.

    Args:
        smiles: mapped, with all hydrogens explicit.
        atoms: those that are compared, ascending, shape (n_compared,).

    Returns:
        the orders; the number of compared atoms is at least 1.

    Raises:
        MoleculeError: where the SMILES cannot be read or does not fit.
    """
    molecule = mapped_molecule(smiles, sanitize=False)
    if molecule.GetNumAtoms() <= atoms[-1]:
        raise MoleculeError(f"SMILES {smiles!r} has {molecule.GetNumAtoms()} atoms; expected {atoms[-1] + 1} or more")
    place = {int(atom): i for i, atom in enumerate(atoms)}
    graph = Chem.RWMol()
    for index in place:
        atom = molecule.GetAtomWithIdx(index)
        node = Chem.Atom(atom.GetAtomicNum())
        node.SetNoImplicit(True)
        # The isotope carries the number of hydrogens: a match compares it, and 0 would match anything.
        node.SetIsotope(1 + atom.GetTotalNumHs(includeNeighbors=True))
        graph.AddAtom(node)
    for bond in molecule.GetBonds():
        begin, end = (place.get(index) for index in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        if begin is not None and end is not None:
            graph.AddBond(begin, end, Chem.BondType.SINGLE)
    matches = graph.GetSubstructMatches(graph, uniquify=False, useChirality=False, maxMatches=MAX_ATOM_ORDERS + 1)
    complete = len(matches) <= MAX_ATOM_ORDERS
    identity = tuple(range(len(atoms)))
    orders = [identity, *(match for match in matches[:MAX_ATOM_ORDERS] if match != identity)]
    return AtomOrders(np.asarray(orders[:MAX_ATOM_ORDERS], dtype=np.int64), complete)
