"""The identity of a molecule does not depend on how it is written; the mapped SMILES keeps the order of its atoms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.chemistry.identity import group_of, mapped_smiles
from pesfit.sources.xtb_molecules import MOLECULES


@pytest.mark.parametrize("smiles", [molecule.smiles for molecule in MOLECULES])
def test_group_is_canonical_smiles_whatever_the_molecule_came_with(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert group_of(mol) == smiles
    settings = Chem.SmilesParserParams()
    settings.removeHs = False
    mapped = Chem.MolFromSmiles(mapped_smiles(mol), settings)
    assert group_of(mapped) == smiles
    assert any(atom.GetAtomMapNum() for atom in mapped.GetAtoms()), "the argument is left as it was"
    Chem.SetAromaticity(mapped, Chem.AromaticityModel.AROMATICITY_MDL)
    assert group_of(mapped) == smiles


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([molecule.smiles for molecule in MOLECULES]), st.randoms(use_true_random=False))
def test_group_does_not_depend_on_the_order_of_atoms(smiles: str, random: object) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    order = list(range(mol.GetNumAtoms()))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert group_of(Chem.RenumberAtoms(mol, order)) == smiles


def test_stereoisomers_and_protonation_states_have_groups_of_their_own() -> None:
    smiles = ["C[C@H](O)C(=O)O", "C[C@@H](O)C(=O)O", "C[C@H](O)C(=O)[O-]", "C/C=C/C", "C/C=C\\C"]
    assert len({group_of(Chem.MolFromSmiles(one)) for one in smiles}) == len(smiles)


def test_map_numbers_are_atom_indices_plus_one() -> None:
    from openff.toolkit import Molecule

    mol = Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)C(=O)[O-]"))
    smiles = mapped_smiles(mol)
    again = Molecule.from_mapped_smiles(smiles)
    assert [atom.atomic_number for atom in again.atoms] == [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    bonds = {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in mol.GetBonds()}
    assert {frozenset((bond.atom1_index, bond.atom2_index)) for bond in again.bonds} == bonds
    assert all(atom.GetAtomMapNum() == 0 for atom in mol.GetAtoms()), "the argument is left as it was"
