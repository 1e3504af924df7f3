"""The bonds that a SMILES says atoms of a file have."""

from __future__ import annotations

from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from pesfit.chemistry.identity import mapped_smiles
from pesfit.chemistry.known_molecules import bond_atoms
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError


class BondsFromSmiles:
    """Gives geometries the bonds of one SMILES.

    With map numbers, which then every atom must have, hydrogens too, atom i of a geometry is the one with map number i + 1. Without, the
    SMILES is matched with the atoms that are neighbors; geometries with the same atoms in the same order then keep the assignment of the
    first one, so that a bond may stretch later.

    Args:
        smiles: one molecule.

    Raises:
        DataError: if RDKit cannot read it, or only some atoms are mapped.
    """

    def __init__(self, smiles: str) -> None:
        self._smiles = smiles
        self._mapped_elements = _mapped_elements(parse_smiles(smiles), smiles)
        self._known: dict[bytes, str] = {}

    def assign(self, atomic_numbers: IntArray, coords: FloatArray, where: str) -> str:
        """Return the mapped SMILES of a geometry.

        Args:
            atomic_numbers: shape (n_atoms,).
            coords: [Å], shape (n_atoms, 3).
            where: what messages call the geometry.

        Raises:
            DataError: if elements, or without map numbers distances, are not those of the molecule.
        """
        if self._mapped_elements is not None:
            found = [int(number) for number in atomic_numbers]
            if found != self._mapped_elements:
                raise DataError(
                    f"{where}: its atoms are {_symbols(found)}; by map numbers {self._smiles} has {_symbols(self._mapped_elements)}"
                )
            return self._smiles
        key = np.asarray(atomic_numbers, dtype=np.int32).tobytes()
        if key not in self._known:
            self._known[key] = mapped_smiles(bond_atoms(self._smiles, atomic_numbers, coords, where))
        return self._known[key]


def parse_smiles(smiles: str) -> Chem.Mol:
    """Read a SMILES; hydrogens that it writes out stay atoms.

    Raises:
        DataError: if RDKit cannot read it.
    """
    options: Any = Chem.SmilesParserParams()
    options.removeHs = False
    with rdBase.BlockLogs():
        found = Chem.MolFromSmiles(smiles, options)
    if found is None or found.GetNumAtoms() == 0:
        raise DataError(f"RDKit cannot read the SMILES {smiles!r}")
    return found


def in_map_order(mol: Chem.Mol, smiles: str) -> Chem.Mol:
    """Return the molecule with its atoms in the order of map numbers, which are taken off; as it is where none has one.

    Raises:
        DataError: if only some atoms are mapped.
    """
    if _mapped_elements(mol, smiles) is None:
        return mol
    order = sorted(range(mol.GetNumAtoms()), key=lambda index: int(mol.GetAtomWithIdx(index).GetAtomMapNum()))
    sorted_mol = Chem.RenumberAtoms(mol, order)
    for atom in sorted_mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return sorted_mol


def _mapped_elements(mol: Chem.Mol, smiles: str) -> list[int] | None:
    """Return the elements by map number; None without map numbers."""
    numbers = [atom.GetAtomMapNum() for atom in mol.GetAtoms()]
    if not any(numbers):
        return None
    n_implied = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or n_implied:
        raise DataError(
            f"{smiles} has map numbers on some atoms; expected none, or 1 to {len(numbers) + n_implied} on all, hydrogens included"
        )
    by_number = {atom.GetAtomMapNum(): int(atom.GetAtomicNum()) for atom in mol.GetAtoms()}
    return [by_number[number] for number in sorted(by_number)]


def _symbols(atomic_numbers: list[int]) -> str:
    table = Chem.GetPeriodicTable()
    return " ".join(table.GetElementSymbol(number) for number in atomic_numbers)
