"""What the built-in list covers, and that the force field covers it."""

from __future__ import annotations

import pytest
from rdkit import Chem

from pesfit.params.preparation import ConvertXtb
from pesfit.sources.xtb_molecules import MOLECULES, TRAJECTORY_MOLECULE

ELEMENTS = {1, 6, 7, 8, 9, 15, 16, 17, 35}

FUNCTIONAL_GROUPS = {
    "alkane": "[CH3][CH2][CH2][CH3]",
    "alkene": "C/C=C/C",
    "alkyne": "C#C",
    "small ring": "C1CC1",
    "saturated heterocycle": "[NX3;R][CX4;R][CX4;R][OX2;R]",
    "biaryl": "[a;r6]-!@[a;r6]",
    "alcohol": "[CX4][OX2H]",
    "phenol": "c[OX2H]",
    "ether": "[CX4][OX2][CX4]",
    "aryl ether": "c[OX2][CX4]",
    "thiol": "[CX4][SX2H]",
    "thioether": "[CX4][SX2][CX4]",
    "disulfide": "[SX2][SX2]",
    "sulfoxide": "[#6][SX3](=O)[#6]",
    "sulfone": "[#6][SX4](=O)(=O)[#6]",
    "sulfonamide": "[#6][SX4](=O)(=O)[NX3]",
    "sulfonate": "[#6][SX4](=O)(=O)[O-]",
    "aldehyde": "[CX3H]=O",
    "ketone": "[#6][CX3](=O)[#6]",
    "carboxylic acid": "[CX3](=O)[OX2H]",
    "carboxylate": "[CX3](=O)[O-]",
    "ester": "[#6][CX3](=O)[OX2][CX4]",
    "amide": "[#6][CX3](=O)[NX3]",
    "urea": "[NX3][CX3](=O)[NX3]",
    "carbamate": "[NX3][CX3](=O)[OX2]",
    "tertiary amine": "[NX3]([CX4])([CX4])[CX4]",
    "aniline": "c[NX3H2]",
    "ammonium": "[NX4H3+]",
    "quaternary ammonium": "[NX4H0+]",
    "amidinium": "[CX4][CX3](=[NX3+])[NX3]",
    "guanidinium": "[NX3][CX3](=[NX3+])[NX3]",
    "nitrile": "C#N",
    "nitro": "[NX3+](=O)[O-]",
    "phosphate ester": "[PX4](=O)([OX2])([OX2])[OX2]",
    "phosphate anion": "[PX4](=O)([O-])([OX2])[OX2]",
    "benzene": "c1ccccc1",
    "pyridine": "c1ccncc1",
    "imidazole": "c1c[nH]cn1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
    "thiophene": "c1cccs1",
    "furan": "c1ccco1",
    "fluoride": "[CX4]F",
    "trifluoromethyl": "C(F)(F)F",
    "alkyl chloride": "[CX4]Cl",
    "aryl chloride": "cCl",
    "aryl bromide": "cBr",
    "peptide": "[NX3][CX4H]([CX4H3])[CX3](=O)[NX3]",
}


@pytest.fixture(scope="module")
def mols() -> list[Chem.Mol]:
    return [Chem.MolFromSmiles(molecule.smiles) for molecule in MOLECULES]


def test_names_and_molecules_are_unique_and_smiles_canonical(mols: list[Chem.Mol]) -> None:
    assert len(MOLECULES) == ConvertXtb().n_molecules == 40
    assert len({molecule.name for molecule in MOLECULES}) == len(MOLECULES)
    assert len({molecule.smiles for molecule in MOLECULES} | {TRAJECTORY_MOLECULE.smiles}) == len(MOLECULES) + 1
    assert [Chem.MolToSmiles(mol) for mol in mols] == [molecule.smiles for molecule in MOLECULES]
    assert all(molecule.name.replace("-", "").replace(",", "").isalnum() and molecule.name.islower() for molecule in MOLECULES)


def test_molecules_are_small_whole_and_their_stereo_is_defined(mols: list[Chem.Mol]) -> None:
    assert all(3 <= mol.GetNumHeavyAtoms() <= 12 for mol in mols)
    assert all(len(Chem.GetMolFrags(mol)) == 1 for mol in mols)
    for mol in mols:
        info = Chem.FindPotentialStereo(mol)
        assert all(
            element.specified == Chem.StereoSpecified.Specified
            for element in info
            if element.type != Chem.StereoType.Bond_Atropisomer
        )
        assert all(atom.GetNumRadicalElectrons() == 0 for atom in mol.GetAtoms())


@pytest.mark.parametrize("n_molecules", [8, 40])
def test_elements_and_charges_are_covered_by_the_first_few_already(mols: list[Chem.Mol], n_molecules: int) -> None:
    first = mols[:n_molecules]
    assert {atom.GetAtomicNum() for mol in first for atom in Chem.AddHs(mol).GetAtoms()} == ELEMENTS
    assert {Chem.GetFormalCharge(mol) for mol in first} == {-1, 0, 1}
    assert any(atom.GetIsAromatic() for mol in first for atom in mol.GetAtoms())


@pytest.mark.parametrize("name", FUNCTIONAL_GROUPS)
def test_functional_group_is_in_the_list(mols: list[Chem.Mol], name: str) -> None:
    pattern = Chem.MolFromSmarts(FUNCTIONAL_GROUPS[name])
    assert any(mol.HasSubstructMatch(pattern) for mol in mols)


def test_some_have_several_rotors(mols: list[Chem.Mol]) -> None:
    from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds

    assert sum(CalcNumRotatableBonds(mol) >= 2 for mol in mols) >= 8


def test_the_force_field_has_parameters_for_every_molecule() -> None:
    from openff.toolkit import ForceField, Molecule

    force_field = ForceField("openff_unconstrained-2.1.0.offxml")
    for name, smiles in (*MOLECULES, TRAJECTORY_MOLECULE):
        molecule = Molecule.from_smiles(smiles)
        labels = force_field.label_molecules(molecule.to_topology())[0]
        found = {kind: len(labels[kind]) for kind in ("Bonds", "Angles", "ProperTorsions", "vdW")}
        expected = [molecule.n_bonds, molecule.n_angles, molecule.n_propers, molecule.n_atoms]
        assert list(found.values()) == expected, name
