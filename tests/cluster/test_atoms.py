"""Which atoms are compared, and symmetry against RDKit's best superposition."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.cluster.atoms import MAX_ATOM_ORDERS, compared_atoms, equivalent_orders
from pesfit.cluster.rmsd import all_pairs_rmsd
from pesfit.core.exceptions import MoleculeError


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
