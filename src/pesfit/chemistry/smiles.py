"""Molecules with all their hydrogens: SMILES with map numbers, elements and masses, and the identity that rows of one molecule share."""

from __future__ import annotations

from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError


def read_smiles(smiles: str, *, sanitize: bool = True) -> Chem.Mol:
    """Read a SMILES; hydrogens that it writes out stay atoms.

    Args:
        smiles: with or without map numbers.
        sanitize: perceive valence, rings and aromaticity, and refuse what RDKit finds impossible.

    Raises:
        MoleculeError: if RDKit cannot read it, or it has no atoms.
    """
    options: Any = Chem.SmilesParserParams()
    options.removeHs = False
    options.sanitize = sanitize
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, options)
    if mol is None or not mol.GetNumAtoms():
        raise MoleculeError(f"RDKit cannot read the SMILES {smiles!r}")
    return mol


def mapped_molecule(smiles: str, *, sanitize: bool = True) -> Chem.Mol:
    """Read a SMILES whose map numbers are 1 to n_atoms on all atoms, hydrogens included.

    Args:
        smiles: mapped.
        sanitize: as for `read_smiles`.

    Returns:
        The molecule, whose atom i is the one with map number i + 1; the numbers are removed.

    Raises:
        MoleculeError: if RDKit cannot read the SMILES, or an atom is implied or not mapped so.
    """
    mol = read_smiles(smiles, sanitize=sanitize)
    if not sanitize:
        mol.UpdatePropertyCache(strict=False)
    numbers = [atom.GetAtomMapNum() for atom in mol.GetAtoms()]
    n_implied = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    if n_implied or sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise MoleculeError(
            f"SMILES {smiles!r} does not map all its atoms; expected map numbers 1 to {len(numbers) + n_implied}, hydrogens included"
        )
    ordered = Chem.RenumberAtoms(mol, sorted(range(len(numbers)), key=numbers.__getitem__))
    for atom in ordered.GetAtoms():
        atom.SetAtomMapNum(0)
    return ordered


def is_mapped(mol: Chem.Mol) -> bool:
    """Tell whether any atom has a map number."""
    return any(atom.GetAtomMapNum() for atom in mol.GetAtoms())


def mapped_smiles(mol: Chem.Mol) -> str:
    """Return the isomeric SMILES of a molecule with all its hydrogens, where an atom's map number is its index + 1."""
    mapped = Chem.Mol(mol)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return str(Chem.MolToSmiles(mapped))


def elements_of(mol: Chem.Mol) -> IntArray:
    """Return the atomic numbers of a molecule, shape (n_atoms,)."""
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)


def standard_masses(atomic_numbers: IntArray) -> FloatArray:
    """Return standard atomic weights [g/mol], shape (n_atoms,)."""
    table = Chem.GetPeriodicTable()
    return np.array([table.GetAtomicWeight(int(number)) for number in atomic_numbers])


def group_of(mol: Chem.Mol) -> str:
    """Return what rows of one molecule have in common: canonical isomeric SMILES, hydrogens implicit, without map numbers.

    It depends neither on the order of the atoms nor on the aromaticity model `mol` came with.

    Raises:
        MoleculeError: if RDKit cannot read the SMILES that it wrote of it.
    """
    bare = Chem.Mol(mol)
    for atom in bare.GetAtoms():
        atom.SetAtomMapNum(0)
    # Read once more: stereo and aromaticity are then perceived the same way whatever program wrote them.
    smiles = Chem.MolToSmiles(Chem.RemoveHs(bare))
    again = Chem.MolFromSmiles(smiles)
    if again is None:
        raise MoleculeError(f"RDKit cannot read the SMILES it wrote: {smiles}")
    return str(Chem.MolToSmiles(again))
