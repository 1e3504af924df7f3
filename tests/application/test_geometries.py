"""What users give, and what is refused."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from rdkit import Chem

from pesfit.application.geometries import embedded, read_geometries
from pesfit.core.exceptions import DataError, MoleculeError

WATER = ase.Atoms("OHH", positions=[[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def sdf(smiles: str, seed: int = 0) -> Chem.Mol:
    made = embedded(smiles, smiles, seed)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(made.coords)
    mol.AddConformer(conformer)
    return mol


def write_sdf(path: Path, molecules: list[Chem.Mol]) -> str:
    with Chem.SDWriter(str(path)) as writer:
        for mol in molecules:
            writer.write(mol)
    return str(path)


@pytest.mark.parametrize("file_format", ["xyz", "extxyz"])
def test_xyz_frames_are_read_in_order(tmp_path: Path, file_format: str) -> None:
    frames = [WATER.copy(), WATER.copy()]
    frames[1].positions[0] += 0.1
    path = tmp_path / f"w.{file_format}"
    ase.io.write(path, frames, format=file_format)
    found = read_geometries([str(path)])
    assert [geometry.where for geometry in found] == [f"{path}, frame 1", f"{path}, frame 2"]
    assert all(geometry.smiles is None for geometry in found)
    for geometry, frame in zip(found, frames, strict=True):
        np.testing.assert_allclose(geometry.coords, frame.positions, atol=1e-8)
        assert geometry.atomic_numbers.tolist() == [8, 1, 1]
    assert found[0].molecule == found[1].molecule


def test_bonds_of_xyz_files_come_from_a_smiles_or_from_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "w.extxyz"
    ase.io.write(path, WATER)
    (with_bonds,) = read_geometries([str(path)], "O")
    assert with_bonds.smiles == "[O:1]([H:2])[H:3]"
    named = WATER.copy()
    named.info["smiles"] = with_bonds.smiles
    ase.io.write(path, named)
    assert read_geometries([str(path)])[0].smiles == with_bonds.smiles


def test_sdf_keeps_atoms_bonds_and_stereo(tmp_path: Path) -> None:
    path = write_sdf(
        tmp_path / "m.sdf", [sdf("C[C@H](O)C(=O)O"), sdf("C[C@H](O)C(=O)O", 1), sdf("C[C@@H](O)C(=O)O"), sdf("CC(=O)[O-]")]
    )
    found = read_geometries([path])
    assert len(found) == 4
    assert found[0].molecule == found[1].molecule
    assert found[0].molecule != found[2].molecule
    plain = Chem.MolFromSmiles(found[0].smiles)
    for atom in plain.GetAtoms():
        atom.SetAtomMapNum(0)
    assert Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveHs(plain)))) == "C[C@H](O)C(=O)O"
    assert "[O-:" in (found[3].smiles or "")


def test_smiles_are_embedded_and_this_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.smi").write_text("CCO ethanol\n\nCO\n")
    found = read_geometries([str(tmp_path / "m.smi"), "CCO"], seed=4)
    assert [geometry.note.startswith(geometry.where) and "ETKDG, seed 4" in geometry.note for geometry in found] == [True] * 3
    assert found[0].where.endswith("line 1 (ethanol)")
    np.testing.assert_array_equal(found[0].coords, found[2].coords)
    assert not np.array_equal(found[0].coords, embedded("CCO", "", 5).coords)


def test_embedding_follows_map_numbers_and_names_the_stereoisomer() -> None:
    made = embedded("[H:2][O:1][H:3]", "w", 0)
    assert made.atomic_numbers.tolist() == [8, 1, 1]
    assert made.smiles == "[O:1]([H:2])[H:3]"
    open_stereo = embedded("CC(O)C(=O)O", "lactic", 0)
    assert "stereoisomers that the SMILES leaves open, C[C@" in open_stereo.note
    assert "stereoisomers" not in embedded("C[C@H](O)C(=O)O", "lactic", 0).note


def refused(tmp_path: Path, name: str, content: str) -> str:
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", "3\n\nO 0 0 0\nH 0 0 1\n", "cannot be read as xyz"),
        ("a.xyz", "hello\n", "cannot be read as xyz"),
        ("a.xyz", "1\n\nQq 0 0 0\n", "cannot be read as xyz"),
        ("a.xyz", "1\n\nO 0 0 nan\n", "coordinates of atom 0 are not finite"),
        ("a.xyz", "1\n\nX 0 0 0\n", "atom 0 is of no element"),
        ("a.xyz", "", "holds no molecule|cannot be read as xyz"),
        ("a.xyz", '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3\nO 0 0 0\n', "is periodic"),
        ("a.sdf", "rubbish\n", "cannot be read by RDKit|holds no molecule"),
        ("a.sdf", "", "holds no molecule"),
        ("a.sdf", Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")), "lacks 6 hydrogens"),
        ("a.sdf", Chem.MolToMolBlock(Chem.AddHs(Chem.MolFromSmiles("CCO"))), "has no 3D coordinates"),
        ("a.smi", "C(\n", r"cannot read the SMILES 'C\('"),
        ("a.smi", "\n", "holds no molecule"),
        ("a.pdb", "ATOM\n", "has no known suffix; expected one of .xyz"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = refused(tmp_path, name, content)
    with pytest.raises((DataError, MoleculeError), match=message) as error:
        read_geometries([path])
    assert name in str(error.value) or "SMILES" in str(error.value)


def test_what_is_no_file_and_no_smiles_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.xyz does not exist"):
        read_geometries(["nothing.xyz"])
    with pytest.raises(DataError, match="'ethanol' is neither a file nor a SMILES"):
        read_geometries(["ethanol"])
    with pytest.raises(DataError, match="is a folder"):
        read_geometries([str(tmp_path)])
    with pytest.raises(DataError, match="CCO has bonds of its own"):
        read_geometries(["CCO"], "CCO")
    with pytest.raises(DataError, match="seed = -1; expected 0 to"):
        read_geometries(["CCO"], seed=-1)
