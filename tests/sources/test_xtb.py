"""The set as a whole: what its rows hold, that it is the same each time, and what happens when bonds break."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.transform import Rotation

from pesfit.chemistry.smiles import group_of
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import Failure
from pesfit.core.units import ACCELERATION, BOLTZMANN
from pesfit.data.dataset import Record
from pesfit.params.preparation import ConvertXtb
from pesfit.potentials.gfn2 import Gfn2
from pesfit.sources.xtb import (
    MOLECULES,
    TRAJECTORY_MOLECULE,
    XTB_LEVELS,
    build_xtb,
)
from pesfit.sources.xtb_dynamics import LabeledFrame, distinct_minima, find_minima

SMALL = ConvertXtb(
    n_molecules=3,
    n_conformers=2,
    n_samples=4,
    sample_interval_fs=2.0,
    equilibration_fs=5.0,
    n_trajectory_frames=1003,
    trajectory_interval_fs=1.0,
    trajectory_equilibration_fs=20.0,
)


def build(params: ConvertXtb, n_workers: int = 1) -> list[Record | Failure]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PESFIT_WORKERS", str(n_workers))
        return list(build_xtb(params))


def records(params: ConvertXtb) -> list[Record]:
    return [row for row in build(params) if isinstance(row, Record)]


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    built = build(SMALL)
    assert all(isinstance(row, Record) for row in built), built
    return [row for row in built if isinstance(row, Record)]


def mol_of(row: Record) -> Chem.Mol:
    """Return the molecule of a row, its atoms in the order of the coordinates."""
    settings = Chem.SmilesParserParams()
    settings.removeHs = False
    mol = Chem.MolFromSmiles(row.smiles, settings)
    order = sorted(range(mol.GetNumAtoms()), key=lambda i: mol.GetAtomWithIdx(i).GetAtomMapNum())
    return Chem.RenumberAtoms(mol, order)


def test_rows_come_in_the_order_of_the_list_and_the_trajectory_in_pieces(rows: list[Record]) -> None:
    names = [f"conformers/{molecule.name}" for molecule in MOLECULES[:3]]
    assert [row.id for row in rows] == [*names, "trajectory/ethanol/00000", "trajectory/ethanol/00001"]
    assert [row.source for row in rows] == ["xtb/conformers"] * 3 + ["xtb/trajectory"] * 2
    assert {row.source for row in rows} == set(XTB_LEVELS)
    assert [row.n_conformers for row in rows] == [8, 8, 8, 1000, 3]
    assert all(row.frame.tolist() == list(range(8)) for row in rows[:3])
    assert np.concatenate([row.frame for row in rows[3:]]).tolist() == list(range(1003))


def test_rows_are_valid_and_say_who_they_are(rows: list[Record]) -> None:
    for row, smiles in zip(rows, [*(molecule.smiles for molecule in MOLECULES[:3]), "CCO", "CCO"], strict=True):
        row.validate()
        mol = mol_of(row)
        assert group_of(mol) == row.group == smiles
        assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == row.atomic_numbers.tolist()
        assert row.total_charge == Chem.GetFormalCharge(mol)
        assert row.charges is None
        assert row.forces is not None


def test_labels_are_gfn2_of_the_coordinates_to_the_last_bit(rows: list[Record]) -> None:
    for row in rows:
        gfn2 = Gfn2(row.atomic_numbers, row.total_charge)
        for i in (0, row.n_conformers - 1):
            labels = gfn2.energy_and_forces(row.coords[i])
            assert row.forces is not None
            assert row.energy[i] == labels.energy
            assert row.forces[i].tobytes() == labels.forces.tobytes()


def test_energies_and_forces_fit_together_along_the_trajectory(rows: list[Record]) -> None:
    row = rows[3]
    assert row.forces is not None
    work = -(0.5 * (row.forces[1:] + row.forces[:-1]) * np.diff(row.coords, axis=0)).sum(axis=(1, 2))
    rise = np.diff(row.energy)
    assert np.corrcoef(work, rise)[0, 1] > 0.995
    assert (work @ rise) / (work @ work) == pytest.approx(1.0, abs=0.02)
    assert np.abs(row.forces.sum(axis=1)).max() < 1e-6
    assert np.abs(np.cross(row.coords - row.coords.mean(axis=1, keepdims=True), row.forces).sum(axis=1)).max() < 1e-3


def test_the_trajectory_is_at_its_temperature(rows: list[Record]) -> None:
    coords = np.concatenate([row.coords for row in rows[3:]])
    masses = np.array([Chem.GetPeriodicTable().GetAtomicWeight(int(number)) for number in rows[3].atomic_numbers])
    velocities = (coords[2:] - coords[:-2]) / 2.0
    kinetic = 0.5 * (masses[:, None] * velocities**2).sum(axis=(1, 2)).mean() / ACCELERATION
    # 1 ps is short (standard error some 8 %), and central differences over 2 fs take a tenth off what the stretches have.
    assert 2 * kinetic / (3 * len(masses) * BOLTZMANN) == pytest.approx(500.0, rel=0.25)


@pytest.mark.usefixtures("worker_pool")
def test_rows_do_not_depend_on_the_number_of_workers() -> None:
    params = SMALL.model_copy(update={"n_molecules": 4, "n_trajectory_frames": 20})
    for one, other in zip(build(params), build(params, n_workers=2), strict=True):
        assert isinstance(one, Record)
        assert isinstance(other, Record)
        assert (one.id, one.coords.tobytes(), one.energy.tobytes()) == (
            other.id,
            other.coords.tobytes(),
            other.energy.tobytes(),
        )


def test_a_molecule_s_frames_do_not_depend_on_how_many_others_there_are(rows: list[Record]) -> None:
    alone = records(SMALL.model_copy(update={"n_molecules": 1, "n_trajectory_frames": 10}))
    assert alone[0].coords.tobytes() == rows[0].coords.tobytes()
    assert alone[1].coords.tobytes() == rows[3].coords[:10].tobytes()


def test_another_seed_gives_other_frames(rows: list[Record]) -> None:
    other = records(SMALL.model_copy(update={"n_molecules": 1, "n_trajectory_frames": 10, "seed": 1}))
    assert other[0].energy[0] != rows[0].energy[0]
    assert other[1].energy[0] != rows[3].energy[0]


def test_walkers_differ_even_from_one_minimum(rows: list[Record]) -> None:
    for row in rows[:3]:
        assert len(np.unique(row.energy)) == row.n_conformers
        assert np.abs(row.coords[0] - row.coords[4]).max() > 0.01


def test_where_bonds_break_the_molecule_is_a_failure_and_the_others_go_on() -> None:
    hot = SMALL.model_copy(
        update={
            "temperature_kelvin": 5000.0,
            "n_samples": 10,
            "sample_interval_fs": 10.0,
            "n_trajectory_frames": 200,
            "seed": 3,
        }
    )
    built = build(hot)
    assert [row.id for row in built] == [f"conformers/{molecule.name}" for molecule in MOLECULES[:3]] + ["trajectory/ethanol"]
    failures = [row for row in built if isinstance(row, Failure)]
    assert len(failures) == 4
    for failure in failures[:3]:
        assert failure.stage == "convert"
        assert failure.kind == "MoleculeError"
        assert failure.message.startswith("bonds broke or formed at 5000 K: ")
        assert failure.message.endswith(" of 20 frames are left, at least 80% are needed")
    assert failures[3].message.startswith("a bond broke or formed at 5000 K after ")


def minimum(coords: FloatArray, energy: float) -> LabeledFrame:
    return LabeledFrame(coords, energy, np.zeros_like(coords))


def test_duplicates_are_found_whatever_their_place_image_or_numbering() -> None:
    random = np.random.default_rng(0)
    masses = np.array([12.0, 12.0, 12.0, 1.0, 1.0])
    coords = random.normal(size=(5, 3))
    turned = Rotation.random(random_state=1).apply(coords) + 5.0
    mirrored = coords * [1.0, 1.0, -1.0]
    renumbered = coords[[1, 2, 0, 4, 3]]
    stretched = coords * 1.05
    frames = [minimum(coords, 1.0), minimum(turned, 1.02), minimum(mirrored, 0.98), minimum(renumbered, 1.05)]
    assert [frame.energy for frame in distinct_minima(frames, masses)] == [0.98]
    others = [*frames, minimum(stretched, 1.0), minimum(coords, 3.0)]
    assert [frame.energy for frame in distinct_minima(others, masses)] == [0.98, 1.0, 3.0]
    for shuffled in itertools.permutations(others[2:]):
        assert [frame.energy for frame in distinct_minima(list(shuffled), masses)] == [0.98, 1.0, 3.0]


def test_minima_of_butane_are_trans_and_gauche() -> None:
    minima = find_minima(Chem.AddHs(Chem.MolFromSmiles("CCCC")), 10, 1, 0.5)
    assert len(minima) == 2
    trans, gauche = (dihedral(frame.coords[:4]) for frame in minima)
    assert abs(trans) == pytest.approx(180.0, abs=2.0)
    assert abs(gauche) == pytest.approx(64.0, abs=5.0)


def dihedral(coords: FloatArray) -> float:
    b1, b2, b3 = np.diff(coords, axis=0)
    normal = np.cross(b1, b2)
    return float(np.degrees(np.arctan2(np.linalg.norm(b2) * (b1 @ np.cross(b2, b3)), normal @ np.cross(b2, b3))))


@pytest.mark.parametrize("name", ["sample_interval_fs", "trajectory_interval_fs"])
def test_intervals_that_are_no_multiple_of_the_time_step_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a whole multiple of timestep_fs = 0\.4"):
        ConvertXtb(timestep_fs=0.4, **{name: 3.0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be a whole multiple of timestep_fs = 3"):
        ConvertXtb(timestep_fs=3.0)
    assert getattr(ConvertXtb(timestep_fs=0.1, **{name: 2.3}), name) == 2.3  # type: ignore[arg-type]


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
