"""QCP distances against superpositions by RDKit and by singular values, and where the polynomial is hardest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign
from scipy.spatial.transform import Rotation

from pesfit.cluster import rmsd as module
from pesfit.cluster.rmsd import all_pairs_rmsd, pairs_within
from pesfit.core.arrays import FloatArray

TETRAHEDRON = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [0.0, 0.0, 0.0]])


def kabsch(left: FloatArray, right: FloatArray) -> float:
    """RMSD by singular values (Kabsch, Acta Cryst. A32, 922, 1976), superimposing the pair for real."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    u, _, vt = np.linalg.svd(left.T @ right)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.sqrt(((left @ rotation - right) ** 2).sum() / len(left)))


def kabsch_pairs(coords: FloatArray) -> FloatArray:
    return np.array([[kabsch(left, right) for right in coords] for left in coords])


def moved(rng: np.random.Generator, coords: FloatArray) -> FloatArray:
    """Turn and shift each conformer by itself."""
    rotations = Rotation.random(len(coords), rng=rng).as_matrix()
    return coords @ rotations + rng.normal(scale=20.0, size=(len(coords), 1, 3))


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1, 1.0, 10.0])
def test_equals_superposition_at_every_scale(noise: float) -> None:
    rng = np.random.default_rng(3)
    coords = rng.normal(size=(28, 3)) * [4.0, 2.0, 1.0] + rng.normal(scale=noise, size=(130, 28, 3))
    coords = moved(rng, coords)
    found = all_pairs_rmsd(coords)
    sample = rng.choice(130, 25, replace=False)
    np.testing.assert_allclose(found[np.ix_(sample, sample)], kabsch_pairs(coords[sample]), rtol=0.0, atol=1e-7)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 0.0)


def degenerate(name: str, rng: np.random.Generator) -> FloatArray:
    line = np.outer(np.arange(5.0), [1.0, 0.0, 0.0])
    plane = rng.normal(size=(12, 3)) * [2.0, 2.0, 0.0]
    chiral = rng.normal(size=(10, 3))
    return {
        "linear": line * rng.uniform(0.9, 1.1, size=(40, 5, 1)),
        "nearly linear": line + rng.normal(scale=1e-3, size=(40, 5, 3)),
        "planar": plane + rng.normal(scale=0.1, size=(40, 12, 3)) * [1.0, 1.0, 0.0],
        "mirror images": chiral * np.where(np.arange(40) % 2, 1.0, -1.0)[:, None, None],
        "nearly mirror images": chiral * [1.0, 1.0, -1.0] ** (np.arange(40) % 2)[:, None, None]
        + rng.normal(scale=1e-3, size=(40, 10, 3)),
        "permuted tetrahedron": np.stack([TETRAHEDRON[[*rng.permutation(4), 4]] for _ in range(40)]),
        "inverted tetrahedron": TETRAHEDRON * np.where(np.arange(40) % 2, 1.0, -1.0)[:, None, None],
        "two atoms": rng.normal(size=(40, 2, 3)),
        "one atom": rng.normal(size=(40, 1, 3)),
        "one point": np.zeros((40, 4, 3)),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "nearly linear",
        "planar",
        "mirror images",
        "nearly mirror images",
        "permuted tetrahedron",
        "inverted tetrahedron",
        "two atoms",
        "one atom",
        "one point",
    ],
)
def test_is_right_where_roots_meet(name: str) -> None:
    rng = np.random.default_rng(5)
    coords = moved(rng, degenerate(name, rng))
    np.testing.assert_allclose(all_pairs_rmsd(coords), kabsch_pairs(coords), rtol=0.0, atol=2e-7)


def test_mirror_images_stay_apart() -> None:
    chiral = np.random.default_rng(1).normal(size=(8, 3))
    found = all_pairs_rmsd(np.stack([chiral, chiral * [1.0, 1.0, -1.0], -chiral]))
    assert found[0, 1] > 0.3
    # An inversion is a reflection after a rotation: both images are one.
    assert found[0, 2] == pytest.approx(found[0, 1], abs=1e-12)
    assert found[1, 2] < 1e-7


def test_same_conformer_is_at_distance_zero() -> None:
    rng = np.random.default_rng(2)
    conformer = rng.normal(size=(1, 30, 3)) * 5.0
    np.testing.assert_array_equal(all_pairs_rmsd(np.repeat(conformer, 5, axis=0)), 0.0)
    assert all_pairs_rmsd(moved(rng, np.repeat(conformer, 5, axis=0))).max() < 1e-6


def test_equals_rdkit() -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles("CC(=O)N[C@@H](Cc1ccccc1)C(=O)NCCCC(=O)O"))
    AllChem.EmbedMultipleConfs(molecule, 24, randomSeed=7)
    molecule = Chem.RemoveHs(molecule)
    found = all_pairs_rmsd(np.stack([conformer.GetPositions() for conformer in molecule.GetConformers()]))
    moving, ids = Chem.Mol(molecule), [conformer.GetId() for conformer in molecule.GetConformers()]
    for i, j in zip(*np.triu_indices(len(ids), 1), strict=True):
        assert found[i, j] == pytest.approx(rdMolAlign.AlignMol(moving, molecule, ids[i], ids[j]), abs=1e-6)


@given(
    n_conformers=st.integers(1, 7),
    n_atoms=st.integers(1, 9),
    scale=st.sampled_from([1e-4, 1.0, 50.0]),
    flat=st.integers(0, 2),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=150)
def test_equals_superposition_for_any_shape(n_conformers: int, n_atoms: int, scale: float, flat: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coords = rng.normal(size=(n_conformers, n_atoms, 3)) * scale
    coords[..., 3 - flat :] = 0.0
    coords = coords @ Rotation.random(rng=rng).as_matrix()
    np.testing.assert_allclose(all_pairs_rmsd(coords), kabsch_pairs(coords), rtol=0.0, atol=1e-6 * max(1.0, scale / 10.0))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = np.random.default_rng(4).normal(size=(50, 6, 3))
    orders = np.array([[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]])
    whole = all_pairs_rmsd(coords, orders)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(all_pairs_rmsd(coords, orders), whole, rtol=0.0, atol=1e-9)


def test_atom_orders_give_the_lowest_distance() -> None:
    rng = np.random.default_rng(6)
    coords = rng.normal(size=(9, 5, 3))
    orders = np.array([[0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 2, 4, 3], [0, 2, 1, 4, 3]])
    expected = [[min(kabsch(left[order], right) for order in orders) for right in coords] for left in coords]
    np.testing.assert_allclose(all_pairs_rmsd(coords, orders), expected, rtol=0.0, atol=1e-7)


def test_pairs_within_is_the_matrix_below_the_cutoff() -> None:
    rng = np.random.default_rng(8)
    coords = rng.normal(size=(12, 3)) + rng.normal(scale=0.4, size=(230, 12, 3))
    distances = all_pairs_rmsd(coords)
    cutoff = float(np.median(distances))
    np.testing.assert_array_equal(pairs_within(coords, cutoff), distances <= cutoff)
