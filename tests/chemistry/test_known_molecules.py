"""Bonds are put on MD17's atoms by their geometry, or the file is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolDescriptors

from pesfit.chemistry.identity import group_of, mapped_smiles
from pesfit.chemistry.known_molecules import MD17_MOLECULES, bond_atoms
from pesfit.core.exceptions import DataError

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


def scrambled(smiles: str) -> tuple[np.ndarray, np.ndarray]:
    """Elements and a geometry of a molecule, its atoms in an arbitrary order."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=5) == 0
    order = np.random.default_rng(1).permutation(mol.GetNumAtoms())
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
    return numbers[order], mol.GetConformer().GetPositions()[order]


def canonical(smiles: str) -> str:
    params = Chem.SmilesParserParams()
    params.removeHs = False
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles, params)))


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


def test_published_files_have_the_recorded_order(real_data: Path) -> None:
    with tarfile.open(real_data / "mirror" / "rmd17" / "rmd17.tar.bz2", "r|bz2") as tar:
        for name, expected in (("ethanol", ETHANOL), ("aspirin", ASPIRIN)):
            member = tar.next()
            assert member is not None
            assert member.name == f"rmd17/npz_data/rmd17_{name}.npz"
            stream = tar.extractfile(member)
            assert stream is not None
            arrays = np.load(io.BytesIO(stream.read()))
            numbers = arrays["nuclear_charges"].astype(np.int32)
            for frame in (0, 17, 5000):
                mol = bond_atoms(MD17_MOLECULES[name], numbers, arrays["coords"][frame], name)
                assert canonical(mapped_smiles(mol)) == canonical(expected), (name, frame)


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
