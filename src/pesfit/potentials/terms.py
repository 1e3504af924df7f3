"""A SMIRNOFF topology as flat index tensors, for one molecule or for a batch of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import BoolArray, IntArray, LongArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.topology import Topology

ATOM_FIELDS = {
    "bonds": "bond_parameters",
    "angles": "angle_parameters",
    "propers": "proper_parameters",
    "impropers": "improper_parameters",
    "pairs": "pairs_14",
}
"""Fields of `Terms` that hold atom indices, which move by an offset when graphs are joined, and the field with one value for each row."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a graph of atoms. `*_parameters` index the rows of the handler's `ParameterTable`.

    `pesfit.data.topology.Topology` defines the terms; pairs follow from its bonds.

    Attributes:
        n_atoms: number of atoms in the graph.
        bonds, angles, propers, impropers: atom indices, int64, shapes (n_terms, 2), (n_terms, 3), (n_terms, 4), (n_terms, 4).
        bond_parameters, angle_parameters, proper_parameters, improper_parameters: int64, shape (n_terms,).
        vdw_parameters: int64, shape (n_atoms,).
        charges: [e], float64, shape (n_atoms,).
        pairs: atoms that have van der Waals and Coulomb energy: all of one molecule that are three bonds or more apart, or not
            connected, i < j, in lexical order; shape (n_pairs, 2).
        pairs_14: whether a pair is exactly three bonds apart, so that its energy is scaled; bool, shape (n_pairs,).
    """

    n_atoms: int
    bonds: Tensor
    bond_parameters: Tensor
    angles: Tensor
    angle_parameters: Tensor
    propers: Tensor
    proper_parameters: Tensor
    impropers: Tensor
    improper_parameters: Tensor
    vdw_parameters: Tensor
    charges: Tensor
    pairs: Tensor
    pairs_14: Tensor

    @classmethod
    def from_topology(cls, topology: Topology) -> Terms:
        """Make the terms of one molecule. Do this once for each molecule and keep the result.

        Raises:
            MoleculeError: where the topology's arrays do not fit together; names the molecule and the array.
        """
        _validate(topology)
        pairs, pairs_14 = nonbonded_pairs(topology.connectivity, topology.n_atoms)

        of_topology = {field.name for field in fields(cls)} - {"n_atoms", "charges", "pairs", "pairs_14"}
        return cls(
            n_atoms=topology.n_atoms,
            charges=torch.from_numpy(topology.charges.astype(np.float64)),
            pairs=torch.from_numpy(pairs),
            pairs_14=torch.from_numpy(pairs_14),
            **{name: torch.from_numpy(getattr(topology, name).astype(np.int64)) for name in of_topology},
        )

    def to(self, device: torch.device | str) -> Terms:
        """Copy to a device."""
        tensors = {field.name: getattr(self, field.name).to(device) for field in fields(self) if field.name != "n_atoms"}
        return replace(self, **tensors)


def join_terms(parts: Sequence[tuple[Terms, int]]) -> Terms:
    """Join graphs into one of which they are disjoint subgraphs, each repeated as often as it has conformers.

    Args:
        parts: the terms of a molecule, and how many copies there are of it; all on one device.

    Returns:
        The joined terms; copies of a molecule follow one another, molecules are in the order given.
    """
    offsets = np.cumsum([0] + [terms.n_atoms * n_copies for terms, n_copies in parts])
    joined: dict[str, Tensor] = {}
    for field in fields(Terms):
        if field.name == "n_atoms":
            continue
        blocks = []
        for (terms, n_copies), offset in zip(parts, offsets[:-1].tolist(), strict=True):
            block = getattr(terms, field.name).expand(n_copies, *getattr(terms, field.name).shape)
            if field.name in ATOM_FIELDS:
                first_atom = offset + terms.n_atoms * torch.arange(n_copies, device=block.device)
                block = block + first_atom[:, None, None]
            blocks.append(block.flatten(0, 1))
        joined[field.name] = torch.cat(blocks)
    return Terms(n_atoms=int(offsets[-1]), **joined)


def nonbonded_pairs(connectivity: IntArray, n_atoms: int) -> tuple[LongArray, BoolArray]:
    """List the pairs of atoms that are not 1-2 or 1-3 neighbors, and mark those that are 1-4.

    A pair counts by its shortest path: in a ring of five, no pair is 1-4.

    Args:
        connectivity: bonds, shape (n_edges, 2).
        n_atoms: number of atoms.

    Returns:
        Pairs i < j in lexical order, shape (n_pairs, 2), and whether each is 1-4, shape (n_pairs,).
    """
    bonded = np.zeros((n_atoms, n_atoms), dtype=np.float32)
    bonded[connectivity[:, 0], connectivity[:, 1]] = 1.0
    bonded = np.maximum(bonded, bonded.T)
    two_apart = bonded @ bonded > 0
    excluded = (bonded > 0) | two_apart
    three_apart = (two_apart.astype(np.float32) @ bonded > 0) & ~excluded
    first, second = np.nonzero(np.triu(~excluded, k=1))
    return np.stack((first, second), axis=1), three_apart[first, second]


def _validate(topology: Topology) -> None:
    n_atoms = topology.n_atoms
    for name, n_body in (("connectivity", 2), ("bonds", 2), ("angles", 3), ("propers", 4), ("impropers", 4)):
        atoms = getattr(topology, name)
        if atoms.ndim != 2 or atoms.shape[1] != n_body:
            raise MoleculeError(f"{topology.smiles}: {name} has shape {atoms.shape}; expected (n, {n_body})")
        if atoms.size and (atoms.min() < 0 or atoms.max() >= n_atoms):
            raise MoleculeError(
                f"{topology.smiles}: {name} names atoms {atoms.min()} to {atoms.max()}; the molecule has 0 to {n_atoms - 1}"
            )
    counts = {"bond": "bonds", "angle": "angles", "proper": "propers", "improper": "impropers"}
    expected = {f"{kind}_parameters": len(getattr(topology, terms)) for kind, terms in counts.items()}
    for name, count in {**expected, "vdw_parameters": n_atoms}.items():
        if getattr(topology, name).shape != (count,):
            raise MoleculeError(f"{topology.smiles}: {name} has shape {getattr(topology, name).shape}; expected ({count},)")
    if not np.isfinite(topology.charges).all():
        atom = int(np.argmin(np.isfinite(topology.charges)))
        raise MoleculeError(
            f"{topology.smiles}: the charge of atom {atom} is {topology.charges[atom]}; a finite number is needed"
        )
