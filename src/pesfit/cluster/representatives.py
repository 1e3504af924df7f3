"""One molecule: cluster its conformers and choose one of each cluster."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pesfit.cluster.atoms import compared_atoms, equivalent_orders
from pesfit.cluster.butina import butina
from pesfit.cluster.rmsd import pairs_within
from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import Failure
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.params.preparation import Cluster


@dataclass(frozen=True)
class Representatives:
    """What is kept of one record.

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
    if params.representative == "centroid":
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
