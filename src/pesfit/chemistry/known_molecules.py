"""The molecules of MD17, whose files have elements and coordinates but no bonds.

Bonds are taken from a table of SMILES and put on the atoms of a file by its geometry: atoms closer than 1.3 times the sum of their covalent
radii are neighbors, and the molecule's graph must match the graph of neighbors, elements included. Where it does, elements and bonded
distances are thereby checked; where it does not, the file is refused. Of equivalent atoms (the hydrogens of a methyl group) it does
not matter which is which.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from rdkit import Chem
from rdkit.Geometry import Point3D

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError

MD17_MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "azobenzene": "c1ccc(cc1)N=Nc1ccccc1",
    "benzene": "c1ccccc1",
    "ethanol": "CCO",
    "malonaldehyde": "O=CCC=O",
    "naphthalene": "c1ccc2ccccc2c1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "salicylic": "OC(=O)c1ccccc1O",
    "toluene": "Cc1ccccc1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
}
"""SMILES of each molecule of MD17 and rMD17; stereo (azobenzene's) is taken from the geometry."""

_NEIGHBOR = 1.3
"""Atoms closer than this many times the sum of their covalent radii are neighbors."""


def bond_atoms(smiles: str, atomic_numbers: IntArray, coords: FloatArray, what: str) -> Chem.Mol:
    """Put the bonds of a molecule on the atoms of a geometry.

    Args:
        smiles: the molecule, atoms in any order.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_atoms, 3).
        what: what error messages call the geometry.

    Returns:
        The molecule with all its hydrogens, atoms in the order of `atomic_numbers`, stereo as in the geometry.

    Raises:
        DataError: if elements or distances are not those of the molecule.
    """
    template = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if Counter(atom.GetAtomicNum() for atom in template.GetAtoms()) != Counter(int(number) for number in atomic_numbers):
        raise DataError(f"{what} has the atoms {_formula(atomic_numbers)}; {smiles} needs {_formula(_numbers(template))}")
    neighbors = _neighbors(atomic_numbers, coords)
    match = neighbors.GetSubstructMatch(_bare(template))
    if not match or neighbors.GetNumBonds() != template.GetNumBonds():
        raise DataError(
            f"{what}: the atoms that are neighbors ({_NEIGHBOR} times the sum of covalent radii) do not form {smiles}; they form "
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


def _numbers(mol: Chem.Mol) -> IntArray:
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)


def _neighbors(atomic_numbers: IntArray, coords: FloatArray) -> Chem.Mol:
    """Return a graph whose bonds, all single, are the pairs of neighbors."""
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(number)) for number in atomic_numbers])
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is nobody's neighbor
        distances = np.linalg.norm(coords[:, None] - coords[None, :], axis=-1)
    near = np.triu(distances < _NEIGHBOR * (radii[:, None] + radii[None, :]), k=1)
    graph = Chem.RWMol()
    for number in atomic_numbers:
        graph.AddAtom(_bare_atom(int(number)))
    for left, right in np.argwhere(near):
        graph.AddBond(int(left), int(right), Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    return graph.GetMol()


def _bare(mol: Chem.Mol) -> Chem.Mol:
    """Return the molecule's graph alone: elements, and bonds that are all single."""
    graph = Chem.RWMol()
    for atom in mol.GetAtoms():
        graph.AddAtom(_bare_atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    return graph.GetMol()


def _bare_atom(atomic_number: int) -> Chem.Atom:
    atom = Chem.Atom(atomic_number)
    atom.SetNoImplicit(True)
    return atom


def _formula(atomic_numbers: IntArray) -> str:
    table = Chem.GetPeriodicTable()
    return " ".join(
        f"{table.GetElementSymbol(int(number))}{count}" for number, count in sorted(Counter(atomic_numbers.tolist()).items())
    )
