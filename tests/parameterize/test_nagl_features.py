"""Features do not depend on how a group is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize import nagl_features
from pesfit.parameterize.nagl_features import (
    ELEMENTS,
    N_FEATURES,
    NEIGHBORS,
    atom_features,
    average_formal_charges,
    with_mdl_aromaticity,
)


def features(smiles: str) -> np.ndarray:
    return atom_features(with_mdl_aromaticity(Chem.AddHs(Chem.MolFromSmiles(smiles))))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CS(C)=O", "C[S+](C)[O-]"),
        ("CS(C)(=O)=O", "C[S+2](C)([O-])[O-]"),
        ("CN(=O)=O", "C[N+](=O)[O-]"),
        ("CP(=O)([O-])OC", "C[P+]([O-])([O-])OC"),
        ("CC(N)=[NH2+]", "C[C+](N)N"),
        ("CN(C)C=CC=[NH2+]", "C[N+](C)=CC=CN"),
    ],
)
def test_two_ways_of_writing_a_group_are_one(one: str, other: str) -> None:
    np.testing.assert_array_equal(features(one), features(other))


def test_columns() -> None:
    (carbon, oxygen, *hydrogens) = features("CO")
    expected = np.zeros(N_FEATURES)
    expected[[ELEMENTS.index("C"), len(ELEMENTS) + NEIGHBORS.index(4)]] = 1
    np.testing.assert_array_equal(carbon, expected)
    assert oxygen[[ELEMENTS.index("O"), len(ELEMENTS) + 2]].tolist() == [1, 1]
    assert [row[ELEMENTS.index("H")] for row in hydrogens] == [1, 1, 1, 1]


def test_rings() -> None:
    spiro = features("C1CC12CCC2")
    assert spiro[:6, 18:].tolist() == [[1, 0, 0, 0]] * 2 + [[1, 1, 0, 0]] + [[0, 1, 0, 0]] * 3


def test_copy_has_mdl_aromaticity() -> None:
    """Furan is aromatic for RDKit and not in the MDL model."""
    furan = Chem.AddHs(Chem.MolFromSmiles("c1ccoc1"))
    copy = with_mdl_aromaticity(furan)
    assert furan.GetAtomWithIdx(0).GetIsAromatic()
    assert not copy.GetAtomWithIdx(0).GetIsAromatic()


def test_refuses_too_many_neighbors() -> None:
    iodine = Chem.MolFromSmiles("FI(F)(F)(F)(F)(F)F", sanitize=False)
    iodine.UpdatePropertyCache(strict=False)
    Chem.GetSSSR(iodine)
    with pytest.raises(MoleculeError, match=r"atom 1 \(I\) has 7 neighbors"):
        atom_features(iodine)


def test_refuses_what_rdkit_refuses() -> None:
    pentavalent = Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)
    with pytest.raises(MoleculeError, match="valence"):
        with_mdl_aromaticity(pentavalent)


def averages(molecule: Chem.Mol) -> np.ndarray:
    kekule = Chem.Mol(molecule)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    atoms = list(kekule.GetAtoms())
    orders = {
        tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))): int(bond.GetBondTypeAsDouble())
        for bond in kekule.GetBonds()
    }
    return average_formal_charges([atom.GetAtomicNum() for atom in atoms], [atom.GetFormalCharge() for atom in atoms], orders)


def heavy_averages(smiles: str) -> list[float]:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return averages(molecule)[: Chem.MolFromSmiles(smiles).GetNumAtoms()].tolist()


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC(=O)[O-]", [0, 0, -1 / 2, -1 / 2]),
        ("[O-]C(=O)[O-]", [-2 / 3, 0, -2 / 3, -2 / 3]),
        ("C[N+](=O)[O-]", [0, 1, -1 / 2, -1 / 2]),
        ("NC(N)=[NH2+]", [1 / 3, 0, 1 / 3, 1 / 3]),
        ("CC(N)=[NH2+]", [0, 0, 1 / 2, 1 / 2]),
        ("O=CC=C[O-]", [-1 / 2, 0, 0, 0, -1 / 2]),
        ("CC([S-])=S", [0, 0, -1 / 2, -1 / 2]),
        ("CC([S-])=O", [0, 0, -1 / 2, -1 / 2]),
        ("CC(=O)[N-]C(C)=O", [0, 0, -1 / 3, -1 / 3, 0, 0, -1 / 3]),
        ("c1c[nH]c[nH+]1", [0, 0, 1 / 2, 0, 1 / 2]),
        ("C[n+]1ccccc1", [0, 1, 0, 0, 0, 0, 0]),
        ("[O-]c1ccccc1", [-1, 0, 0, 0, 0, 0, 0]),
        ("O=C1C=CC(=O)C=C1", [0] * 8),
        ("CC(=O)N", [0, 0, 0, 0]),
        ("C[N+](C)(C)CC(=O)[O-]", [0, 1, 0, 0, 0, 0, -1 / 2, -1 / 2]),
        ("COP(=O)([O-])OC", [0, 0, 0, -1 / 2, -1 / 2, 0, 0]),
        ("CS(=O)(=O)[O-]", [0, 0, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_known_averages(smiles: str, expected: list[float]) -> None:
    assert heavy_averages(smiles) == pytest.approx(expected)


CHARGED = (
    "[O-]c1ccc(cc1)[N+](=O)[O-]",
    "CN(C)C=CC=CC=[N+](C)C",
    "[O-]c1nc([O-])nc([O-])n1",
    "O=C([O-])c1cc(=O)c2cc([O-])ccc2o1",
)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(CHARGED), st.randoms(use_true_random=False))
def test_neither_order_nor_kekule_structure_matters(smiles: str, random: object) -> None:
    """Renumbering makes RDKit choose other Kekulé structures too."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    order = list(range(molecule.GetNumAtoms()))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_allclose(averages(Chem.RenumberAtoms(molecule, order)), averages(molecule)[order], atol=1e-12)


@pytest.mark.parametrize("smiles", CHARGED)
def test_sum_is_kept(smiles: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert averages(molecule).sum() == pytest.approx(Chem.GetFormalCharge(molecule))


def test_gives_up_on_too_many_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nagl_features, "MAX_FORMS", 2)
    with pytest.raises(MoleculeError, match="more than 2 resonance forms in a piece of 4 conjugated atoms"):
        heavy_averages("[O-]C(=O)[O-]")


def test_gives_up_on_too_many_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nagl_features, "MAX_CHAINS", 1)
    with pytest.raises(MoleculeError, match="more than 1 chains of alternating bonds in a piece of 5 conjugated atoms"):
        heavy_averages("O=CC=C[O-]")
