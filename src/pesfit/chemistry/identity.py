"""How a molecule is named: the identity its rows share, and the SMILES that keeps the order of its atoms."""

from __future__ import annotations

from rdkit import Chem

from pesfit.core.exceptions import MoleculeError


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


def mapped_smiles(mol: Chem.Mol) -> str:
    """Return the isomeric SMILES of a molecule with all its hydrogens, where an atom's map number is its index + 1."""
    mapped = Chem.Mol(mol)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return str(Chem.MolToSmiles(mapped))
