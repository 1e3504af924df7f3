"""Bonds of geometries: those that a SMILES gives to atoms of a file, and whether they still hold in other conformers.

Distances are measured in units of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008, 2832, as RDKit tabulates them).
In dynamics of small molecules at 500 K bonds reach 1.2 of it, and atoms with a neighbor in common come down to 1.3 (C and P across
an ester oxygen), others to 1.6.

Files without bonds get them by their geometry: atoms closer than 1.3 times the sum of their covalent radii are neighbors, and the graph of
the SMILES must match the graph of neighbors, elements included. Where it does, elements and bonded distances are thereby checked; where it
does not, the geometry is refused. Of equivalent atoms (the hydrogens of a methyl group) it does not matter which is which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from rdkit import Chem
from rdkit.Geometry import Point3D

from pesfit.chemistry.smiles import elements_of, is_mapped, mapped_molecule, mapped_smiles, read_smiles
from pesfit.core.arrays import BoolArray, FloatArray, IntArray
from pesfit.core.exceptions import DataError

BROKEN = 1.4
"""A bond longer than this many times the sum of the covalent radii counts as broken."""
FORMED = 1.2
"""Two atoms that are not bonded and closer than this many times the sum of the covalent radii count as bonded."""
_NEIGHBOR = 1.3
"""Atoms closer than this many times the sum of their covalent radii are neighbors."""


class Connectivity:
    """The bonds of one molecule, to be looked for in its conformers.

    Args:
        mol: all hydrogens explicit.
    """

    def __init__(self, mol: Chem.Mol) -> None:
        radii = _covalent_radii(elements_of(mol))
        bonded = Chem.GetAdjacencyMatrix(mol).astype(bool)
        self._left, self._right = np.triu_indices(len(radii), k=1)
        sums = radii[self._left] + radii[self._right]
        pairs = bonded[self._left, self._right]
        self._shortest = np.where(pairs, 0.0, FORMED * sums)
        self._longest = np.where(pairs, BROKEN * sums, np.inf)

    def holds(self, coords: FloatArray) -> BoolArray:
        """Tell of each conformer whether no bond has broken or formed.

        Args:
            coords: [Å], shape (n_conformers, n_atoms, 3).

        Returns:
            Shape (n_conformers,).
        """
        distances = np.linalg.norm(coords[:, self._left] - coords[:, self._right], axis=-1)
        result: BoolArray = ((distances >= self._shortest) & (distances <= self._longest)).all(axis=1)
        return result


class BondsFromSmiles:
    """Gives geometries the bonds of one SMILES.

    With map numbers, which then every atom must have, hydrogens too, atom i of a geometry is the one with map number i + 1. Without, the
    SMILES is matched with the atoms that are neighbors; geometries with the same atoms in the same order then keep the assignment of the
    first one, so that a bond may stretch later.

    Args:
        smiles: one molecule.

    Raises:
        MoleculeError: if RDKit cannot read it, or only some atoms are mapped.
    """

    def __init__(self, smiles: str) -> None:
        self._smiles = smiles
        self._mapped_elements = elements_of(mapped_molecule(smiles)) if is_mapped(read_smiles(smiles)) else None
        self._known: dict[bytes, str] = {}

    def assign(self, atomic_numbers: IntArray, coords: FloatArray, where: str) -> str:
        """Return the mapped SMILES of a geometry.

        Args:
            atomic_numbers: shape (n_atoms,).
            coords: [Å], shape (n_atoms, 3).
            where: name of the geometry in messages.

        Raises:
            DataError: if elements, or without map numbers distances, are not those of the molecule.
        """
        if self._mapped_elements is not None:
            if not np.array_equal(atomic_numbers, self._mapped_elements):
                raise DataError(
                    f"{where}: its atoms are {_symbols(atomic_numbers)}; by map numbers {self._smiles} has "
                    f"{_symbols(self._mapped_elements)}"
                )
            return self._smiles
        key = np.asarray(atomic_numbers, dtype=np.int32).tobytes()
        if key not in self._known:
            self._known[key] = mapped_smiles(bond_atoms(self._smiles, atomic_numbers, coords, where))
        return self._known[key]


def bond_atoms(smiles: str, atomic_numbers: IntArray, coords: FloatArray, where: str) -> Chem.Mol:
    """Put the bonds of a molecule on the atoms of a geometry.

    Args:
        smiles: the molecule, atoms in any order.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_atoms, 3).
        where: name of the geometry in messages.

    Returns:
        The molecule with all its hydrogens, atoms in the order of `atomic_numbers`, stereo as in the geometry.

    Raises:
        DataError: if elements or distances are not those of the molecule.
    """
    template = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if Counter(elements_of(template).tolist()) != Counter(atomic_numbers.tolist()):
        raise DataError(f"{where} has the atoms {_formula(atomic_numbers)}; {smiles} needs {_formula(elements_of(template))}")
    neighbors = _neighbors(atomic_numbers, coords)
    bonds = ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in template.GetBonds())
    match = neighbors.GetSubstructMatch(_graph(elements_of(template), bonds))
    if not match or neighbors.GetNumBonds() != template.GetNumBonds():
        raise DataError(
            f"{where}: the atoms that are neighbors ({_NEIGHBOR} times the sum of covalent radii) do not form {smiles}; they form "
            f"{Chem.MolToSmiles(neighbors)} (with hydrogens, all bonds single)"
        )
    order = np.empty(len(match), dtype=np.int64)
    order[list(match)] = np.arange(len(match))
    mol = Chem.RenumberAtoms(template, [int(i) for i in order])
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for i, (x, y, z) in enumerate(coords):
        conformer.SetAtomPosition(i, Point3D(float(x), float(y), float(z)))
    mol.AddConformer(conformer, assignId=True)
    Chem.AssignStereochemistryFrom3D(mol)
    mol.RemoveAllConformers()
    return mol


def _neighbors(atomic_numbers: IntArray, coords: FloatArray) -> Chem.Mol:
    """Return a graph whose bonds are the pairs of neighbors."""
    radii = _covalent_radii(atomic_numbers)
    with np.errstate(over="ignore", invalid="ignore"):  # coordinates that are not finite have no neighbors
        distances = np.linalg.norm(coords[:, None] - coords[None, :], axis=-1)
    near = np.triu(distances < _NEIGHBOR * (radii[:, None] + radii[None, :]), k=1)
    return _graph(atomic_numbers, zip(*(side.tolist() for side in np.nonzero(near)), strict=True))


def _graph(atomic_numbers: IntArray, bonds: Iterable[tuple[int, int]]) -> Chem.Mol:
    """Return a molecule of elements and single bonds alone."""
    graph = Chem.RWMol()
    for number in atomic_numbers.tolist():
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for left, right in bonds:
        graph.AddBond(left, right, Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    return graph.GetMol()


def _covalent_radii(atomic_numbers: IntArray) -> FloatArray:
    table = Chem.GetPeriodicTable()
    return np.array([table.GetRcovalent(number) for number in atomic_numbers.tolist()])


def _formula(atomic_numbers: IntArray) -> str:
    return " ".join(f"{_symbols(number)}{count}" for number, count in sorted(Counter(atomic_numbers.tolist()).items()))


def _symbols(atomic_numbers: IntArray | int) -> str:
    table = Chem.GetPeriodicTable()
    return " ".join(table.GetElementSymbol(number) for number in np.atleast_1d(atomic_numbers).tolist())
