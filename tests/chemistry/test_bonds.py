"""Bonds from SMILES for atoms that come without, and bonds that hold, break and form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem, rdDistGeom, rdMolDescriptors
from scipy.spatial.transform import Rotation

from pesfit.application.geometries import embedded
from pesfit.chemistry.bonds import BondsFromSmiles, Connectivity, bond_atoms
from pesfit.chemistry.smiles import group_of, mapped_smiles, read_smiles
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, MoleculeError
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.sources.md17 import MD17_MOLECULES
from pesfit.sources.xtb import MOLECULES

FORMULAS = {
    "aspirin": "C9H8O4",
    "azobenzene": "C12H10N2",
    "benzene": "C6H6",
    "ethanol": "C2H6O",
    "malonaldehyde": "C3H4O2",
    "naphthalene": "C10H8",
    "paracetamol": "C8H9NO2",
    "salicylic": "C7H6O3",
    "toluene": "C7H8",
    "uracil": "C4H4N2O2",
}
ETHANOL = "[C:1]([C:2]([H:6])([H:7])[H:8])([O:3][H:9])([H:4])[H:5]"
ASPIRIN = (
    "[c:1]1([H:15])[c:3]([H:17])[c:4]([H:18])[c:2]([H:16])[c:7]([O:13][C:12](=[O:9])[C:5]([H:19])([H:20])[H:21])[c:6]1[C:11](=[O:8])"
    "[O:10][H:14]"
)


@pytest.mark.parametrize("smiles", ["CC(=O)NC", "C[C@H](O)C(=O)O", "C/C=C/C", "CC(=O)[O-]"])
@pytest.mark.parametrize("seed", [0, 1])
def test_atoms_in_any_order_get_the_bonds_of_the_smiles(smiles: str, seed: int) -> None:
    made = embedded(smiles, smiles, 0)
    order = np.random.default_rng(seed).permutation(len(made.atomic_numbers))
    numbers, coords = made.atomic_numbers[order], made.coords[order]
    found = read_mapped_smiles(BondsFromSmiles(smiles).assign(numbers, coords, "shuffled"))
    expected = read_mapped_smiles(made.smiles or "")
    bonds = {frozenset(order[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]].tolist()) for bond in found.GetBonds()}
    assert bonds == {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in expected.GetBonds()}


def test_later_frames_keep_the_assignment_of_the_first() -> None:
    made = embedded("CO", "CO", 0)
    bonds = BondsFromSmiles("OC")
    first = bonds.assign(made.atomic_numbers, made.coords, "first")
    broken = made.coords.copy()
    broken[-1] += 3.0
    assert bonds.assign(made.atomic_numbers, broken, "second") == first
    with pytest.raises(DataError, match="alone: the atoms that are neighbors"):
        BondsFromSmiles("OC").assign(made.atomic_numbers, broken, "alone")


def test_map_numbers_give_the_order_whatever_the_distances() -> None:
    smiles = "[H:2][O:1][H:3]"
    assert BondsFromSmiles(smiles).assign(np.array([8, 1, 1], dtype=np.int32), np.zeros((3, 3)), "w") == smiles
    with pytest.raises(DataError, match=r"w: its atoms are H O H; by map numbers .* has O H H"):
        BondsFromSmiles(smiles).assign(np.array([1, 8, 1], dtype=np.int32), np.zeros((3, 3)), "w")


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C(", "cannot read the SMILES 'C\\('"),
        ("", "cannot read the SMILES ''"),
        ("[CH3:1]O", "does not map all its atoms; expected map numbers 1 to 6, hydrogens"),
        ("[CH4:1]", "expected map numbers 1 to 5, hydrogens included"),
        ("[H:2][O:2][H:3]", "expected map numbers 1 to 3, hydrogens"),
    ],
)
def test_smiles_that_say_too_little_are_refused(smiles: str, message: str) -> None:
    with pytest.raises(MoleculeError, match=message):
        BondsFromSmiles(smiles)


def scrambled(smiles: str) -> tuple[np.ndarray, np.ndarray]:
    """Elements and a geometry of a molecule, its atoms in an arbitrary order."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=5) == 0
    order = np.random.default_rng(1).permutation(mol.GetNumAtoms())
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
    return numbers[order], mol.GetConformer().GetPositions()[order]


@pytest.mark.parametrize("name", MD17_MOLECULES)
def test_any_order_of_atoms_is_found(name: str) -> None:
    numbers, coords = scrambled(MD17_MOLECULES[name])
    mol = bond_atoms(MD17_MOLECULES[name], numbers, coords, name)
    assert rdMolDescriptors.CalcMolFormula(mol) == FORMULAS[name]
    assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == numbers.tolist()
    lengths = [np.linalg.norm(coords[bond.GetBeginAtomIdx()] - coords[bond.GetEndAtomIdx()]) for bond in mol.GetBonds()]
    assert max(lengths) < 1.6
    assert group_of(mol).replace("/", "") == Chem.CanonSmiles(MD17_MOLECULES[name])


@pytest.mark.parametrize("smiles", ["c1ccc(cc1)/N=N/c1ccccc1", r"c1ccc(cc1)/N=N\c1ccccc1"])
def test_stereo_is_that_of_the_geometry(smiles: str) -> None:
    mol = bond_atoms(MD17_MOLECULES["azobenzene"], *scrambled(smiles), "azobenzene")
    assert group_of(mol) == Chem.CanonSmiles(smiles)


def test_published_files_have_the_recorded_order(rmd17: Path) -> None:
    for name, expected in (("ethanol", ETHANOL), ("aspirin", ASPIRIN)):
        arrays = np.load(rmd17 / f"npz_data/rmd17_{name}.npz")
        numbers, coords = arrays["nuclear_charges"].astype(np.int32), arrays["coords"]
        for frame in (0, 17, 5000):
            mol = bond_atoms(MD17_MOLECULES[name], numbers, coords[frame], name)
            assert Chem.MolToSmiles(read_smiles(mapped_smiles(mol))) == Chem.MolToSmiles(read_smiles(expected)), (name, frame)


def test_other_elements_are_refused() -> None:
    numbers, coords = scrambled("CCO")
    with pytest.raises(DataError, match=r"^file: frame 0 has the atoms H6 C2 O1; Cc1ccccc1 needs H8 C7"):
        bond_atoms("Cc1ccccc1", numbers, coords, "file: frame 0")


def test_exchanged_atoms_are_refused() -> None:
    numbers, coords = scrambled("CCO")
    carbon, hydrogen = int(np.flatnonzero(numbers == 6)[0]), int(np.flatnonzero(numbers == 1)[0])
    coords[[carbon, hydrogen]] = coords[[hydrogen, carbon]]
    with pytest.raises(DataError, match="do not form CCO"):
        bond_atoms("CCO", numbers, coords, "file")


@pytest.mark.parametrize("factor", [1 / 0.529, 0.529, np.nan, 1e200])
def test_another_unit_of_length_is_refused(factor: float) -> None:
    numbers, coords = scrambled("CCO")
    with pytest.raises(DataError, match="do not form CCO"):
        bond_atoms("CCO", numbers, coords * factor, "file")


def test_an_isomer_is_refused() -> None:
    with pytest.raises(DataError, match="they form"):
        bond_atoms("CCO", *scrambled("COC"), "file")


def etkdg(smiles: str) -> tuple[Chem.Mol, FloatArray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=11) == 0
    return mol, np.array(mol.GetConformer().GetPositions())


@pytest.mark.parametrize("smiles", [molecule.smiles for molecule in MOLECULES])
def test_an_etkdg_conformer_holds(smiles: str) -> None:
    mol, coords = etkdg(smiles)
    assert Connectivity(mol).holds(coords[None]).tolist() == [True]


@pytest.mark.parametrize("smiles", ["CCO", "CSSC", "Brc1ccccc1", "COP(=O)([O-])OC"])
def test_a_stretched_bond_breaks_between_1_3_and_1_5_of_the_radii(smiles: str) -> None:
    mol, coords = etkdg(smiles)
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
    mol, coords = etkdg("CC(N)=O")
    moved = Rotation.random(random_state=seed).apply(coords) + shift
    broken = coords.copy()
    broken[0] += 3.0
    connectivity = Connectivity(mol)
    assert connectivity.holds(np.stack([moved, broken])).tolist() == [True, False]


def test_a_single_atom_holds() -> None:
    assert Connectivity(Chem.MolFromSmiles("[Na+]")).holds(np.zeros((2, 1, 3))).tolist() == [True, True]
