"""What the network sees does not depend on how a group is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize.nagl_features import ELEMENTS, N_FEATURES, NEIGHBORS, atom_features, with_mdl_aromaticity


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
