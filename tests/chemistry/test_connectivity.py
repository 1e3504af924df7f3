"""Bonds that hold, break and form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.transform import Rotation

from pesfit.chemistry.connectivity import Connectivity
from pesfit.core.arrays import FloatArray
from pesfit.sources.xtb_molecules import MOLECULES


def embedded(smiles: str) -> tuple[Chem.Mol, FloatArray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=11) == 0
    return mol, np.array(mol.GetConformer().GetPositions())


@pytest.mark.parametrize("smiles", [molecule.smiles for molecule in MOLECULES])
def test_an_etkdg_conformer_holds(smiles: str) -> None:
    mol, coords = embedded(smiles)
    assert Connectivity(mol).holds(coords[None]).tolist() == [True]


@pytest.mark.parametrize("smiles", ["CCO", "CSSC", "Brc1ccccc1", "COP(=O)([O-])OC"])
def test_a_stretched_bond_breaks_between_1_3_and_1_5_of_the_radii(smiles: str) -> None:
    mol, coords = embedded(smiles)
    connectivity = Connectivity(mol)
    table = Chem.GetPeriodicTable()
    for bond in mol.GetBonds():
        if bond.IsInRing():
            continue
        left, right = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        radii = sum(table.GetRcovalent(mol.GetAtomWithIdx(i).GetAtomicNum()) for i in (left, right))
        cut = Chem.RWMol(mol)
        cut.RemoveBond(left, right)
        side = next(list(part) for part in Chem.GetMolFrags(cut) if right in part)
        axis = coords[right] - coords[left]
        axis /= np.linalg.norm(axis)
        frames = np.stack([coords, coords, coords])
        for frame, ratio in zip(frames, (1.0, 1.3, 1.5), strict=True):
            frame[side] += (ratio * radii - np.linalg.norm(coords[right] - coords[left])) * axis
        assert connectivity.holds(frames).tolist() == [True, True, False]


def test_a_proton_that_goes_over_is_noticed_before_it_arrives() -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles("[NH4+].[OH-]"))
    nitrogen, oxygen = np.array([0.0, 0.0, 0.0]), np.array([2.5, 0.0, 0.0])
    others = np.array([[-0.34, 0.96, 0.0], [-0.34, -0.48, 0.83], [-0.34, -0.48, -0.83], [2.8, 0.91, 0.0]])
    distances = np.array([1.02, 1.1, 1.35, 1.45])
    frames = np.array([[nitrogen, oxygen, [distance, 0, 0], *others] for distance in distances])
    assert Connectivity(mol).holds(frames).tolist() == [True, True, False, False]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-100, 100))
def test_where_the_molecule_is_and_how_it_lies_does_not_matter(seed: int, shift: float) -> None:
    mol, coords = embedded("CC(N)=O")
    moved = Rotation.random(random_state=seed).apply(coords) + shift
    broken = coords.copy()
    broken[0] += 3.0
    connectivity = Connectivity(mol)
    assert connectivity.holds(np.stack([moved, broken])).tolist() == [True, False]


def test_a_single_atom_holds() -> None:
    assert Connectivity(Chem.MolFromSmiles("[Na+]")).holds(np.zeros((2, 1, 3))).tolist() == [True, True]
