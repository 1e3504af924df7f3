"""Mapped SMILES keep the order of atoms; the identity of a molecule does not depend on how it is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.chemistry.smiles import elements_of, group_of, mapped_molecule, mapped_smiles, read_smiles, standard_masses
from pesfit.core.exceptions import MoleculeError
from pesfit.sources.xtb import MOLECULES


@pytest.mark.parametrize("smiles", [molecule.smiles for molecule in MOLECULES])
def test_group_is_canonical_smiles_whatever_the_molecule_came_with(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert group_of(mol) == smiles
    mapped = read_smiles(mapped_smiles(mol))
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


@pytest.mark.parametrize("sanitize", [True, False])
def test_atoms_come_in_map_order_without_map_numbers(sanitize: bool) -> None:
    mol = mapped_molecule("[H:6][C:1]([F:3])([O:2][H:5])[Cl:4]", sanitize=sanitize)
    assert elements_of(mol).tolist() == [6, 8, 9, 17, 1, 1]
    assert not any(atom.GetAtomMapNum() for atom in mol.GetAtoms())
    bonds = {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in mol.GetBonds()}
    assert bonds == {frozenset(pair) for pair in ((0, 1), (0, 2), (0, 3), (0, 5), (1, 4))}


@pytest.mark.parametrize("sanitize", [True, False])
@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("not a SMILES", "RDKit cannot read the SMILES 'not a SMILES'"),
        ("", "RDKit cannot read the SMILES ''"),
        ("CO", "does not map all its atoms; expected map numbers 1 to 6, hydrogens included"),
        ("[CH4:1]", "does not map all its atoms; expected map numbers 1 to 5"),
        ("[O:1]([H:2])[H:2]", "does not map all its atoms; expected map numbers 1 to 3"),
        ("[O:1]([H:2])[H:4]", "does not map all its atoms; expected map numbers 1 to 3"),
    ],
)
def test_smiles_without_all_map_numbers_are_refused(smiles: str, message: str, sanitize: bool) -> None:
    with pytest.raises(MoleculeError, match=message):
        mapped_molecule(smiles, sanitize=sanitize)


def test_impossible_valences_are_read_without_sanitizing_alone() -> None:
    smiles = "[C:1]([H:2])([H:3])([H:4])([H:5])([H:6])[H:7]"
    assert mapped_molecule(smiles, sanitize=False).GetNumAtoms() == 7
    with pytest.raises(MoleculeError, match="RDKit cannot read"):
        mapped_molecule(smiles)


def test_masses_are_standard_atomic_weights() -> None:
    np.testing.assert_allclose(
        standard_masses(np.array([1, 6, 17, 35], dtype=np.int32)), [1.008, 12.011, 35.45, 79.904], atol=5e-3
    )
