"""Averages over resonance forms that can be written down by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize import resonance
from pesfit.parameterize.resonance import average_formal_charges


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
    monkeypatch.setattr(resonance, "MAX_FORMS", 2)
    with pytest.raises(MoleculeError, match="more than 2 resonance forms in a piece of 4 conjugated atoms"):
        heavy_averages("[O-]C(=O)[O-]")


def test_gives_up_on_too_many_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resonance, "MAX_CHAINS", 1)
    with pytest.raises(MoleculeError, match="more than 1 chains of alternating bonds in a piece of 5 conjugated atoms"):
        heavy_averages("O=CC=C[O-]")
