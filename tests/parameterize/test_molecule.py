"""Molecules built from mapped SMILES against those of the OpenFF toolkit, and what is refused."""

from __future__ import annotations

import openff.toolkit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.parameterize import exceptions
from pesfit.parameterize.molecule import read_mapped_smiles


def _described(molecule: Chem.Mol) -> tuple[list[object], list[object], list[object]]:
    atoms = [
        (
            atom.GetAtomicNum(),
            atom.GetFormalCharge(),
            atom.GetIsAromatic(),
            atom.GetChiralTag(),
            atom.GetPropsAsDict().get("_CIPCode"),
        )
        for atom in molecule.GetAtoms()
    ]
    bonds = [
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondType(), bond.GetStereo(), tuple(bond.GetStereoAtoms()))
        for bond in molecule.GetBonds()
    ]
    return atoms, bonds, [tuple(ring) for ring in molecule.GetRingInfo().AtomRings()]


@pytest.mark.parametrize(
    "smiles",
    [
        "C[C@H](N)C(=O)O",
        "C[C@@H](O)[C@H](F)/C=C/C#N",
        "C/C(F)=C(/Cl)Br",
        "C/N=N\\C",
        "C[S@](=O)CC",
        "O=[N+]([O-])c1ccc2ccccc2c1",
        "C12C3C4C1C5C2C3C45",
        "C1=CC=CC=CC=C1",
        "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
        "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",
    ],
)
@pytest.mark.parametrize("shift", [0, 5])
def test_same_molecule_as_the_toolkit_matches_on(smiles: str, shift: int) -> None:
    """Atoms, bonds and rings, with their order, aromaticity and stereo, whatever the order of map numbers."""
    there = openff.toolkit.Molecule.from_smiles(smiles)
    there = there.remap({i: (i + shift) % there.n_atoms for i in range(there.n_atoms)})
    assert _described(read_mapped_smiles(there.to_smiles(mapped=True))) == _described(there.to_rdkit())


@settings(deadline=None, max_examples=50)
@given(order=st.permutations(range(13)))
def test_map_numbers_are_the_order_of_atoms(order: list[int]) -> None:
    elements = [6, 6, 7, 6, 8, 8, 1, 1, 1, 1, 1, 1, 1]
    numbers = [order.index(i) + 1 for i in range(13)]
    alanine = "[C:{}]([C@@:{}]([N:{}]([H:{}])[H:{}])([C:{}](=[O:{}])[O:{}][H:{}])[H:{}])([H:{}])([H:{}])[H:{}]"
    written = [0, 1, 2, 6, 7, 3, 4, 5, 8, 9, 10, 11, 12]
    molecule = read_mapped_smiles(alanine.format(*(numbers[i] for i in written)))
    assert [atom.GetAtomicNum() for atom in molecule.GetAtoms()] == [elements[i] for i in order]
    assert [atom.GetProp("_CIPCode") for atom in molecule.GetAtoms() if atom.HasProp("_CIPCode")] == ["R"]
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    assert ends == sorted(ends)
    assert all(i < j for i, j in ends)


@pytest.mark.parametrize(
    ("smiles", "error", "message"),
    [
        ("", exceptions.EmptySmilesError, "the SMILES is empty"),
        ("  ", exceptions.EmptySmilesError, "the SMILES is empty"),
        ("[C:1", exceptions.SMILESParseError, "cannot read the SMILES '\\[C:1'"),
        ("C", exceptions.RemapIndexError, "map numbers 1 to 1 are expected, each once, and 1 is missing"),
        ("[H:1][H:1]", exceptions.RemapIndexError, "map numbers 1 to 2 are expected, each once, and 2 is missing"),
        ("[H:1][H:3]", exceptions.RemapIndexError, "2 is missing"),
        ("[CH4:1]", exceptions.ImplicitHydrogensError, "hydrogens of C are implied"),
        ("[Na+:1].[Cl-:2]", exceptions.MultipleFragmentsError, "2 molecules where one is expected"),
        ("[H:1][F:2][H:3]", exceptions.AtomValenceError, "valence"),
        ("[c:1]1[c:2][c:3][c:4][c:5]1", exceptions.KekulizeError, "kekulize"),
        ("[C:1]([H:2])([H:3])[H:4]", exceptions.RadicalsNotSupportedError, "C:1 has 1 unpaired electrons"),
        (
            "[C:3]([F:1])([Cl:2])([Br:4])[H:5]",
            exceptions.UndefinedStereochemistryError,
            "C:3 is a stereocenter without @ or @@",
        ),
        (
            "[F:1][C:2]([H:3])=[C:4]([F:5])[H:6]",
            exceptions.UndefinedStereochemistryError,
            "the double bond of C:2 and C:4 is drawn",
        ),
    ],
)
def test_what_is_no_molecule_is_refused_by_name(
    smiles: str, error: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=message):
        read_mapped_smiles(smiles)
    assert capfd.readouterr() == ("", ""), "RDKit's own messages belong to the failure, not on the screen"


@pytest.mark.parametrize(
    "smiles",
    [
        "[P:1]([O-:2])(=[O:3])([O:4][H:5])[H:6]",
        "[S:1](=[O:2])([O-:3])[H:4]",
    ],
)
def test_oxygens_that_differ_by_resonance_make_no_stereocenter(smiles: str) -> None:
    read_mapped_smiles(smiles)


def test_a_metal_with_open_shell_is_no_radical() -> None:
    assert read_mapped_smiles("[Fe+3:1]").GetNumAtoms() == 1
