"""Molecules come out as openff-toolkit reads them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openff.toolkit import Molecule
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.exceptions import ArchiveError, MoleculeError
from pesfit.sources.openff_json import build_molecule, read_openff_json
from tests.sources.synthetic import openff_json

STEREO = (
    "C/C=C/C",
    r"C/C=C\C",
    r"F/C(Cl)=C(/F)Br",
    r"CC(/C=C/C)=C\C",
    "C[C@@H](O)[C@H](O)[C@@H](O)C",
    "C[C@H](O)[C@H](O)[C@@H](O)C",
    "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",
    "C[S@](=O)CC",
    "C[N+](C)(C)[C@@H](C)F",
    "C[P@](=O)(O)OCC",
    "c1ccc(/N=N/c2ccccc2)cc1",
    r"C1CC/C=C\CCC1",
    "C[C@H]1CC[C@@H](C)CC1",
    r"C/C=C/C=C\C(F)=C/F",
    "C[C@@H]1C[C@@H]1/C=C/Cl",
    r"C/C(=N\O)/CC",
    "[H]/N=C(/N)C",
    "C[C@H](Cl)/C=C/[C@@H](C)Cl",
    "O=[N+]([O-])c1ccccc1",
    "NC(N)=[NH2+]",
)


def canonical(smiles: str) -> str:
    params = Chem.SmilesParserParams()
    params.removeHs = False
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles, params)))


def toolkit_molecule(values: dict[str, Any]) -> Molecule:
    """Read the JSON of version 0.10 with the toolkit: it needs what later versions added or renamed."""
    values = {**values, "hierarchy_schemes": {}}
    values["partial_charge_unit"] = values.pop("partial_charges_unit")
    return Molecule.from_dict(values)


def assert_same(content: bytes, name: str) -> None:
    expected = toolkit_molecule(json.loads(json.loads(content)))
    smiles = mapped_smiles(build_molecule(read_openff_json(content, name)))
    assert canonical(smiles) == canonical(expected.to_smiles(mapped=True)), name
    found = Molecule.from_mapped_smiles(smiles, allow_undefined_stereo=True)
    assert Molecule.are_isomorphic(found, expected)[0], name
    assert [atom.atomic_number for atom in found.atoms] == [atom.atomic_number for atom in expected.atoms]


def real_molecules(real_data: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((real_data / "golden" / "dgl").rglob("mol.json")):
        yield str(path), path.read_bytes()
    for path in sorted((real_data / "mirror").glob("*/*.tar.gz")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith("mol.json"):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield member.name, stream.read()


def test_every_real_molecule_is_the_toolkits(real_data: Path) -> None:
    molecules = list(real_molecules(real_data))
    assert len(molecules) == 9 + 10
    for name, content in molecules:
        assert_same(content, name)


def test_molecules_of_other_golden_files_are_the_toolkits(real_data: Path) -> None:
    smiles = np.load(real_data / "golden" / "nagl-am1bcc-1.0.0.npz")["smiles"]
    assert len(smiles) > 100
    for one in smiles:
        mol = Chem.AddHs(Chem.MolFromSmiles(str(one)))
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(0)
        assert_same(json.dumps(json.dumps(openff_json(mol))).encode(), str(one))


@pytest.mark.parametrize("smiles", STEREO)
def test_stereo_is_the_toolkits(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert_same(json.dumps(json.dumps(openff_json(mol))).encode(), smiles)


def test_a_center_that_hangs_on_double_bonds_is_kept() -> None:
    """The toolkit loses this one: the atom is a center only once both double bonds have their stereo."""
    mol = Chem.AddHs(Chem.MolFromSmiles(r"C/C=C/[C@H](O)/C=C\C"))
    found = build_molecule(read_openff_json(json.dumps(openff_json(mol)).encode(), "name"))
    assert Chem.MolToSmiles(Chem.RemoveHs(found)) == Chem.CanonSmiles(r"C/C=C/[C@H](O)/C=C\C")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"{}"', b"\xff\xfe", b'{"atoms": [3], "bonds": []}', b'{"atoms": 3}'])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"^set/3/mol\.json: is not the JSON of an OpenFF molecule"):
        read_openff_json(content, "set/3/mol.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bonds": [{"atom1": 0, "atom2": 9, "bond_order": 1, "stereochemistry": None}]}, "joins atoms 0 and 9 of 5"),
        ({"bonds": [{"atom1": 0, "atom2": 1, "bond_order": 7, "stereochemistry": None}]}, "order 7"),
        ({"bonds": 2 * [{"atom1": 0, "atom2": 1, "bond_order": 1, "stereochemistry": None}]}, "two bonds join atoms 0 and 1"),
        ({"atoms": [{"atomic_number": 0, "formal_charge": 0, "stereochemistry": None}], "bonds": []}, "atomic number 0"),
        ({"bonds": [{"atom1": 0, "atom2": i, "bond_order": 2, "stereochemistry": None} for i in range(1, 5)]}, "RDKit refuses"),
        ({"bonds": [{"atom1": 0, "atom2": 1, "bond_order": 1, "stereochemistry": "E"}]}, "cannot have stereo"),
    ],
)
def test_impossible_molecules_are_failures(change: dict[str, Any], message: str) -> None:
    methane = openff_json(Chem.AddHs(Chem.MolFromSmiles("C")))
    content = json.dumps({**methane, **change}).encode()
    with pytest.raises(MoleculeError, match=message):
        build_molecule(read_openff_json(content, "name"))


def test_impossible_stereo_is_a_failure() -> None:
    molecule = openff_json(Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)F")))
    molecule["atoms"][1]["stereochemistry"] = "Q"
    with pytest.raises(MoleculeError, match=r"no handedness gives the stereo codes of atom 1 \(Q\)"):
        build_molecule(read_openff_json(json.dumps(molecule).encode(), "name"))
