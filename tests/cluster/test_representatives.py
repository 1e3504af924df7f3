"""One conformer stands for those like it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign
from rdkit.ML.Cluster import Butina

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.cluster.representatives import MAX_ATOM_ORDERS, butina, choose_representatives, compared_atoms, equivalent_orders
from pesfit.cluster.rmsd import all_pairs_rmsd
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.dataset import Record
from pesfit.params.preparation import Cluster

ETHER = "[C:1]([O:2][C:3]([H:7])([H:8])[H:9])([H:4])([H:5])[H:6]"


def make_record(coords: np.ndarray, energy: list[float]) -> Record:
    return Record(
        id="ether",
        smiles=ETHER,
        atomic_numbers=np.array([6, 8, 6, 1, 1, 1, 1, 1, 1], dtype=np.int32),
        coords=coords,
        energy=np.array(energy),
        forces=None,
        charges=None,
        total_charge=0,
        group="COC",
        source="xtb/conformers",
        frame=np.arange(len(coords)),
    )


@pytest.fixture(name="row_of_nine")
def _row_of_nine() -> tuple[Record, float]:
    """Nine conformers along a line, and a cutoff that only the middle one has all others within."""
    coords = np.repeat(np.random.default_rng(0).normal(scale=3.0, size=(1, 9, 3)), 9, axis=0)
    coords[:, 0, 0] += np.linspace(-0.5, 0.5, 9)
    distances = all_pairs_rmsd(coords[:, :3])
    cutoff = 1.0001 * distances[4].max()
    assert (distances.max(axis=1) > cutoff).sum() == 8
    return make_record(coords, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -1.0]), cutoff


@pytest.mark.parametrize(("representative", "expected"), [("centroid", 4), ("lowest_energy", 8)])
def test_which_member_is_kept(row_of_nine: tuple[Record, float], representative: str, expected: int) -> None:
    record, cutoff = row_of_nine
    kept = choose_representatives(record, Cluster(representative={"xtb": representative}, cutoff_angstrom=cutoff))
    assert kept.conformers.tolist() == [expected]
    assert kept.sizes.tolist() == [9]


def test_of_equal_energies_the_first_is_kept(row_of_nine: tuple[Record, float]) -> None:
    record, cutoff = row_of_nine
    record = dataclasses.replace(record, energy=np.zeros(9))
    params = Cluster(representative={record.source: "lowest_energy"}, cutoff_angstrom=cutoff)
    assert choose_representatives(record, params).conformers.tolist() == [0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("xtb/conformers", 4), ("rmd17", 4), ("md17", 4), ("mine", 4), ("espaloma/gen2-opt", 8), ("espaloma/spice-pubchem", 8)],
)
def test_only_optimizations_keep_the_lowest_energy_by_default(
    row_of_nine: tuple[Record, float], source: str, expected: int
) -> None:
    record, cutoff = row_of_nine
    record = dataclasses.replace(record, source=source)
    assert choose_representatives(record, Cluster(cutoff_angstrom=cutoff)).conformers.tolist() == [expected]


def test_labels_do_not_choose_a_centroid(row_of_nine: tuple[Record, float]) -> None:
    """What is tested on must not be chosen by its label."""
    record, cutoff = row_of_nine
    for seed in range(3):
        other = dataclasses.replace(record, energy=np.random.default_rng(seed).normal(size=9))
        assert choose_representatives(other, Cluster(cutoff_angstrom=cutoff)).conformers.tolist() == [4]


def test_symmetry_merges_what_only_numbering_tells_apart() -> None:
    conformer = np.random.default_rng(0).normal(scale=3.0, size=(9, 3))
    # Turned end to end: the methyl groups change places, with their hydrogens.
    record = make_record(np.stack([conformer, conformer[[2, 1, 0, 6, 7, 8, 3, 4, 5]]]), [0.0, 0.0])
    params = Cluster(heavy_atoms=False)
    assert len(choose_representatives(record, params).conformers) == 2
    kept = choose_representatives(record, params.model_copy(update={"symmetry": True}))
    assert len(kept.conformers) == 1
    assert kept.all_orders


def test_without_a_smiles_atoms_are_compared_as_numbered() -> None:
    conformer = np.random.default_rng(0).normal(scale=3.0, size=(9, 3))
    record = make_record(np.stack([conformer, conformer[[2, 1, 0, 6, 7, 8, 3, 4, 5]]]), [0.0, 0.0])
    record = dataclasses.replace(record, smiles=None)
    assert len(choose_representatives(record, Cluster(symmetry=True, heavy_atoms=False)).conformers) == 2


def embedded(smiles: str, n_conformers: int = 1) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(molecule, n_conformers, randomSeed=11)
    return molecule


def atomic_numbers(molecule: Chem.Mol) -> np.ndarray:
    return np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int32)


@pytest.mark.parametrize(
    ("numbers", "heavy_atoms", "expected"),
    [
        ([6, 1, 6, 8, 1], True, [0, 2, 3]),
        ([6, 1, 6, 8, 1], False, [0, 1, 2, 3, 4]),
        ([6, 1, 8, 1], True, [0, 1, 2, 3]),
        ([1, 1], True, [0, 1]),
    ],
)
def test_heavy_atoms_unless_too_few(numbers: list[int], heavy_atoms: bool, expected: list[int]) -> None:
    assert compared_atoms(np.array(numbers, dtype=np.int32), heavy_atoms=heavy_atoms).tolist() == expected


@pytest.mark.parametrize(
    ("smiles", "resonance", "n_orders"),
    [
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", False, 4),  # an acid's oxygens differ by the hydrogen
        ("FC(F)(F)c1ccc(Br)cc1", False, 12),
        ("CC(C)(C)O", False, 6),
        ("[O-]C(=O)CCC(=O)[O-]", True, 8),
        ("C[N+](=O)[O-]", True, 2),
        ("COP(=O)([O-])[O-]", True, 6),
        ("NC(N)=[NH2+]", False, 6),
        ("CS(=O)(=O)c1ccccc1", False, 4),
        ("C[C@H](O)[C@@H](C)O", False, 2),
        ("CO", False, 6),  # two heavy atoms: hydrogens are compared as well
    ],
)
def test_symmetry_equals_rdkit(smiles: str, resonance: bool, n_orders: int) -> None:
    molecule = embedded(smiles, 6)
    atoms = compared_atoms(atomic_numbers(molecule), heavy_atoms=True)
    symmetry = equivalent_orders(mapped_smiles(molecule), atoms)
    assert symmetry.complete
    assert len(symmetry.orders) == n_orders
    assert symmetry.orders[0].tolist() == list(range(len(atoms)))
    compared = Chem.RemoveHs(molecule) if len(atoms) < molecule.GetNumAtoms() else molecule
    coords = np.stack([conformer.GetPositions() for conformer in compared.GetConformers()])
    found = all_pairs_rmsd(coords, symmetry.orders)
    ids = [conformer.GetId() for conformer in compared.GetConformers()]
    for i, j in zip(*np.triu_indices(len(ids), 1), strict=True):
        expected = rdMolAlign.GetBestRMS(
            Chem.Mol(compared), compared, ids[i], ids[j], symmetrizeConjugatedTerminalGroups=resonance
        )
        assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_orders_follow_the_map_numbers() -> None:
    # Written with the chlorines apart: positions are those of the map numbers, not of the SMILES.
    symmetry = equivalent_orders("[Cl:3][C:1]([Cl:4])([Br:2])[H:5]", np.array([0, 1, 2, 3]))
    assert sorted(symmetry.orders.tolist()) == [[0, 1, 2, 3], [0, 1, 3, 2]]


def test_too_many_orders_are_cut_and_said() -> None:
    molecule = embedded("CC(C)(C)C(C(C)(C)C)C(C)(C)C")
    symmetry = equivalent_orders(mapped_smiles(molecule), compared_atoms(atomic_numbers(molecule), heavy_atoms=True))
    assert not symmetry.complete
    assert len(symmetry.orders) == MAX_ATOM_ORDERS
    assert symmetry.orders[0].tolist() == list(range(symmetry.orders.shape[1]))


@pytest.mark.parametrize("smiles", ["not a molecule", "[C:1]([H:2])[H:3]"])
def test_smiles_that_do_not_fit_are_refused(smiles: str) -> None:
    with pytest.raises(MoleculeError, match="SMILES"):
        equivalent_orders(smiles, np.arange(5))


def condensed(distances: FloatArray) -> list[float]:
    return [float(distances[i, j]) for i in range(len(distances)) for j in range(i)]


@given(
    n_points=st.integers(1, 60), levels=st.sampled_from([2, 5, 1000]), cutoff=st.floats(0.05, 0.95), seed=st.integers(0, 10_000)
)
@settings(deadline=None, max_examples=200)
def test_equals_rdkit(n_points: int, levels: int, cutoff: float, seed: int) -> None:
    # Few levels make many distances equal, to each other and to the cutoff.
    rng = np.random.default_rng(seed)
    distances = np.triu(rng.integers(0, levels + 1, size=(n_points, n_points)) / levels, 1)
    distances += distances.T
    cutoff = round(cutoff * levels) / levels
    expected = Butina.ClusterData(condensed(distances), n_points, cutoff, isDistData=True, reordering=False)
    assert [tuple(cluster.tolist()) for cluster in butina(distances <= cutoff)] == list(expected)


def test_dense_data_equal_rdkit() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(center, 0.3, size=(80, 2)) for center in (0.0, 1.0, 4.0)])
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = Butina.ClusterData(condensed(distances), len(points), 0.4, isDistData=True, reordering=False)
    assert [tuple(cluster.tolist()) for cluster in butina(distances <= 0.4)] == list(expected)
