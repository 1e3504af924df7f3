"""Bonds from SMILES for atoms that come without."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.application.geometries import embedded
from pesfit.chemistry.bonds import BondsFromSmiles
from pesfit.core.exceptions import DataError
from pesfit.parameterize.molecule import read_mapped_smiles


@pytest.mark.parametrize("smiles", ["CC(=O)NC", "C[C@H](O)C(=O)O", "C/C=C/C", "CC(=O)[O-]"])
@pytest.mark.parametrize("seed", [0, 1])
def test_atoms_in_any_order_get_the_bonds_of_the_smiles(smiles: str, seed: int) -> None:
    made = embedded(smiles, smiles, 0)
    order = np.random.default_rng(seed).permutation(len(made.atomic_numbers))
    numbers, coords = made.atomic_numbers[order], made.coords[order]
    found = read_mapped_smiles(BondsFromSmiles(smiles).assign(numbers, coords, "shuffled"))
    expected = read_mapped_smiles(made.smiles or "")
    bonds = {frozenset(order[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]].tolist()) for bond in found.GetBonds()}
    assert bonds == {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in expected.GetBonds()}


def test_later_frames_keep_the_assignment_of_the_first() -> None:
    made = embedded("CO", "CO", 0)
    bonds = BondsFromSmiles("OC")
    first = bonds.assign(made.atomic_numbers, made.coords, "first")
    broken = made.coords.copy()
    broken[-1] += 3.0
    assert bonds.assign(made.atomic_numbers, broken, "second") == first
    with pytest.raises(DataError, match="alone: the atoms that are neighbors"):
        BondsFromSmiles("OC").assign(made.atomic_numbers, broken, "alone")


def test_map_numbers_give_the_order_whatever_the_distances() -> None:
    smiles = "[H:2][O:1][H:3]"
    assert BondsFromSmiles(smiles).assign(np.array([8, 1, 1], dtype=np.int32), np.zeros((3, 3)), "w") == smiles
    with pytest.raises(DataError, match=r"w: its atoms are H O H; by map numbers .* has O H H"):
        BondsFromSmiles(smiles).assign(np.array([1, 8, 1], dtype=np.int32), np.zeros((3, 3)), "w")


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C(", "cannot read the SMILES 'C\\('"),
        ("", "cannot read the SMILES ''"),
        ("[CH3:1]O", "on some atoms; expected none, or 1 to 6 on all"),
        ("[CH4:1]", "expected none, or 1 to 5 on all, hydrogens included"),
        ("[H:2][O:2][H:3]", "expected none, or 1 to 3 on all"),
    ],
)
def test_smiles_that_say_too_little_are_refused(smiles: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BondsFromSmiles(smiles)
