"""Twins by stereo, protonation and tautomerism are one; other molecules are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.split.twins import connectivity_key, connectivity_keys, twin_groups

TWINS = [
    ("CC(=O)O", "CC(=O)[O-]"),
    ("CN", "C[NH3+]"),
    ("C[C@H](N)C(=O)O", "C[C@@H]([NH3+])C(=O)[O-]"),
    ("C/C=C/C", "C/C=C\\C"),
    ("C[C@H](F)Cl", "C[C@@H](F)Cl"),
    ("Oc1ccccc1", "[O-]c1ccccc1"),
    ("c1c[nH]cn1", "c1c[nH]c[nH+]1"),
    ("NC(N)=N", "NC(N)=[NH2+]"),
    ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ("Cc1cnc[nH]1", "Cc1c[nH]cn1"),
    ("CS", "C[S-]"),
    ("COP(=O)(O)O", "COP(=O)([O-])[O-]"),
    ("CS(N)(=O)=O", "CS([NH-])(=O)=O"),
    ("C#N", "[C-]#N"),
    ("CC(=O)CC(C)=O", "CC(=O)[CH-]C(C)=O"),
    ("N", "[NH4+]"),
    ("O", "[OH-]"),
    ("Cl", "[Cl-]"),
    ("CCN1CCOCC1", "CC[NH+]1CCOCC1"),
]
STRANGERS = [
    ("CC", "C=C"),
    ("CCO", "CC=O"),
    ("CCO", "COC"),
    ("CN(C)C", "C[N+](C)(C)C"),
    ("c1ccccc1", "C1CCCCC1"),
    ("CC(=O)OC", "CCC(=O)O"),
    ("C[N+]#[C-]", "CC#N"),
    ("CC(C)=O", "CC(O)=C"),
    ("Oc1ccccn1", "Oc1cccnc1"),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_share_a_key(one: str, other: str) -> None:
    assert connectivity_key(one) == connectivity_key(other)


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_other_molecules_do_not(one: str, other: str) -> None:
    assert connectivity_key(one) != connectivity_key(other)


def test_key_of_what_cannot_be_read() -> None:
    assert connectivity_key("not a molecule") is None


@given(pair=st.sampled_from(TWINS), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_order_of_atoms_and_explicit_hydrogens_do_not_matter(pair: tuple[str, str], seed: int) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(pair[seed % 2]))
    order = sorted(range(molecule.GetNumAtoms()), key=lambda i: hash((seed, i)))
    assert connectivity_key(mapped_smiles(Chem.RenumberAtoms(molecule, order))) == connectivity_key(pair[0])


def test_keys_of_many_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pesfit.split.twins._SMILES_A_TASK", 4)
    smiles = [smiles for pair in TWINS for smiles in pair]
    assert connectivity_keys(smiles) == {one: connectivity_key(one) for one in smiles}
    assert connectivity_keys([]) == {}


def test_groups_are_joined_through_keys() -> None:
    twins = twin_groups([("b", "k2"), ("a", "k1"), ("b", "k3"), ("c", "k3"), ("d", None), ("e", "k9"), ("d", None)])
    assert twins == {"b": "k2", "a": "k1", "c": "k2", "d": "d", "e": "k9"}


def test_adding_a_twin_keeps_the_name() -> None:
    assert twin_groups([("b", "k")])["b"] == twin_groups([("a", "k"), ("b", "k")])["b"]
