"""Clusters of the conformers of one molecule, and the one that is kept of each.

The atoms that an RMSD compares, and their symmetry-equivalent orders, come first; then Butina's clustering (D. Butina, J. Chem. Inf.
Comput. Sci. 39, 747, 1999, doi:10.1021/ci9803381): every point counts its neighbors once. Points are visited by falling count; a point
that no cluster has taken yet becomes the centroid of a new one and takes all of its neighbors that are still free.

The centroid is kept by default. It depends on geometry alone, and clustering comes before the split: what is tested on is then not chosen
by its label. The member of lowest energy is for optimizations, of which it keeps the end.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.cluster.rmsd import pairs_within
from pesfit.core.arrays import BoolArray, IntArray, LongArray
from pesfit.core.exceptions import Failure, MoleculeError
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import most_specific
from pesfit.params.preparation import Cluster

MIN_HEAVY_ATOMS = 3
"""With fewer heavy atoms than this, all atoms are compared: one or two points have no shape."""
MAX_ATOM_ORDERS = 256
"""Equivalent orders tried at most: each costs as much as all pairs without symmetry."""


@dataclass(frozen=True)
class Representatives:
    """Conformers that are kept of one record.

    Attributes:
        conformers: positions of the representatives in the record, ascending, shape (n_clusters,).
        sizes: conformers in each cluster, in Butina's order, shape (n_clusters,).
        all_orders: False where the molecule has more equivalent atom orders than are tried.
    """

    conformers: LongArray
    sizes: LongArray
    all_orders: bool


def choose_representatives(record: Record, params: Cluster) -> Representatives:
    """Cluster the conformers of one record and choose one of each cluster.

    Args:
        record: a molecule with its conformers.
        params: section `cluster`.

    Raises:
        MoleculeError: where symmetry is asked for and the SMILES cannot be read.
    """
    atoms = compared_atoms(record.atomic_numbers, heavy_atoms=params.heavy_atoms)
    orders, all_orders = None, True
    if params.symmetry and record.smiles is not None:
        equivalent = equivalent_orders(record.smiles, atoms)
        orders, all_orders = equivalent.orders, equivalent.complete
    clusters = butina(pairs_within(record.coords[:, atoms], params.cutoff_angstrom, orders))
    if most_specific(params.representative, record.source, "centroid") == "centroid":
        chosen = [members[0] for members in clusters]
    else:
        chosen = [min(members, key=lambda member: (record.energy[member], member)) for members in clusters]
    return Representatives(
        np.sort(np.asarray(chosen, dtype=np.int64)),
        np.asarray([len(members) for members in clusters], dtype=np.int64),
        all_orders,
    )


def cluster_rows(path: Path, params: Cluster, rows: Sequence[int]) -> list[Representatives | Failure]:
    """Cluster some rows of a data set, for a worker process: what fails comes back as a value.

    Args:
        path: of the data set.
        params: section `cluster`.
        rows: their numbers in the data set.
    """
    dataset = _open(path)
    return [_representatives_or_failure(dataset[row], params) for row in rows]


def _representatives_or_failure(record: Record, params: Cluster) -> Representatives | Failure:
    try:
        return choose_representatives(record, params)
    except Exception as error:  # noqa: BLE001 - one molecule that fails is a value, whatever went wrong
        return Failure.from_exception(record.id, "cluster", error)


@functools.lru_cache(maxsize=1)
def _open(path: Path) -> ConformerDataset:
    return ConformerDataset(path)


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


def butina(within: BoolArray) -> list[LongArray]:
    """Return the clusters, the centroid first in each.

    Partition and order are those of RDKit's `Butina.ClusterData(..., reordering=False)`: of points with equally many neighbors
    the one with the higher index is visited first, and members follow their centroid by rising index.

    Args:
        within: which points are neighbors, symmetric with True on the diagonal, shape (n_points, n_points).

    Returns:
        indices of the members of each cluster; each point is in exactly one.
    """
    counts = within.sum(axis=1)
    free = np.ones(len(within), dtype=np.bool_)
    clusters = []
    for centroid in np.argsort(counts, kind="stable")[::-1]:
        if not free[centroid]:
            continue
        free[centroid] = False
        others = np.flatnonzero(within[centroid] & free)
        free[others] = False
        clusters.append(np.concatenate([[centroid], others]))
    return clusters
