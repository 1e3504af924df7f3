"""Internal coordinates against RDKit and autograd, and what is defined where they are singular."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from rdkit.Geometry import Point3D
from torch import Tensor

from pesfit.potentials.internal_coordinates import CoincidentAtomsError, InternalCoordinates, angles, dihedrals, distances

KINDS: dict[Callable[[Tensor, Tensor], InternalCoordinates], int] = {distances: 2, angles: 3, dihedrals: 4}
N_ATOMS = 6

positions = st.lists(st.floats(-3.0, 3.0, allow_subnormal=False), min_size=3 * N_ATOMS, max_size=3 * N_ATOMS).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(N_ATOMS, 3)
)


def some_atoms(n_body: int) -> Tensor:
    generator = torch.Generator().manual_seed(n_body)
    return torch.stack([torch.randperm(N_ATOMS, generator=generator)[:n_body] for _ in range(8)])


def some_coords(*leading: int) -> Tensor:
    return torch.randn(*leading, N_ATOMS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def wilson_matrix(coordinates: InternalCoordinates, atoms: Tensor) -> Tensor:
    """The rows put where their atoms are, shape (n_terms, n_atoms, 3)."""
    matrix = torch.zeros(len(atoms), N_ATOMS, 3, dtype=torch.float64)
    for term, members in enumerate(atoms):
        matrix[term].index_add_(0, members, coordinates.rows[term])
    return matrix


def place(*points: tuple[float, float, float]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_rdkit(kind: Callable[[Tensor, Tensor], InternalCoordinates]) -> None:
    coords, atoms = some_coords(), some_atoms(KINDS[kind])
    oracle = Chem.Conformer(N_ATOMS)
    for i, position in enumerate(coords.tolist()):
        oracle.SetAtomPosition(i, Point3D(*position))
    function = {
        distances: rdMolTransforms.GetBondLength,
        angles: rdMolTransforms.GetAngleRad,
        dihedrals: rdMolTransforms.GetDihedralRad,
    }[kind]
    expected = [function(oracle, *members) for members in atoms.tolist()]
    np.testing.assert_allclose(kind(coords, atoms).values.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_through_values_passes_gradcheck(kind: Callable[[Tensor, Tensor], InternalCoordinates]) -> None:
    atoms = some_atoms(KINDS[kind])
    coords = some_coords().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: torch.cos(kind(x, atoms).values), (coords,), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(coords=positions)
def test_rows_equal_autograd(kind: Callable[[Tensor, Tensor], InternalCoordinates], coords: Tensor) -> None:
    atoms = some_atoms(KINDS[kind])
    separation = torch.pdist(coords)
    assume(bool((separation > 1e-3).all()))
    sines = torch.sin(angles(coords, torch.combinations(torch.arange(N_ATOMS), 3)).values)
    assume(bool((sines > 1e-3).all()))
    jacobian = torch.autograd.functional.jacobian(lambda x: kind(x, atoms).values, coords)
    rows = wilson_matrix(kind(coords, atoms), atoms)
    torch.testing.assert_close(rows, jacobian, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_no_net_force_and_no_torque(kind: Callable[[Tensor, Tensor], InternalCoordinates]) -> None:
    coords, atoms = some_coords(), some_atoms(KINDS[kind])
    rows = kind(coords, atoms).rows
    torch.testing.assert_close(rows.sum(1), torch.zeros(len(atoms), 3, dtype=torch.float64), rtol=0.0, atol=1e-12)
    torque = torch.linalg.cross(coords[atoms], rows).sum(1)
    torch.testing.assert_close(torque, torch.zeros_like(torque), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_are_conformers(kind: Callable[[Tensor, Tensor], InternalCoordinates]) -> None:
    coords, atoms = some_coords(5), some_atoms(KINDS[kind])
    together = kind(coords, atoms)
    assert together.rows.shape == (5, len(atoms), KINDS[kind], 3)
    for i, conformer in enumerate(coords):
        alone = kind(conformer, atoms)
        torch.testing.assert_close(together.values[i], alone.values, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(together.rows[i], alone.rows, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_no_terms(kind: Callable[[Tensor, Tensor], InternalCoordinates]) -> None:
    none = kind(some_coords(), torch.zeros(0, KINDS[kind], dtype=torch.int64))
    assert none.values.shape == (0,)
    assert none.rows.shape == (0, KINDS[kind], 3)


def test_coincident_atoms_of_a_distance_are_named() -> None:
    coords = some_coords(3)
    coords[2, 4] = coords[2, 1]
    with pytest.raises(CoincidentAtomsError, match=r"conformer 2: atoms 1 and 4 are at the same place") as caught:
        distances(coords, torch.tensor([[0, 1], [1, 4]]))
    assert (caught.value.conformer, caught.value.atoms) == (2, (1, 4))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(CoincidentAtomsError, match=r"^atoms 1 and 4"):
        distances(coords[2], torch.tensor([[1, 4]]))


@pytest.mark.parametrize("deviation", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("folded", [False, True])
def test_angles_are_exact_near_collinear_atoms(deviation: float, folded: bool) -> None:
    far = 1.2 * math.cos(deviation) * (1.0 if folded else -1.0)
    coords = place((1.5, 0.0, 0.0), (0.0, 0.0, 0.0), (far, 1.2 * math.sin(deviation), 0.0))
    angle = angles(coords, torch.tensor([[0, 1, 2]]))
    assert angle.values.item() == pytest.approx(deviation if folded else math.pi - deviation, abs=1e-15)
    expected = -1.0 / 1.5  # the first leg turns towards -y: away from the last atom when folded, and away from π when not
    assert angle.rows[0, 0].tolist() == pytest.approx([0.0, expected, 0.0], abs=1e-6)
    assert bool(torch.isfinite(angle.rows).all())


@pytest.mark.parametrize("last", [(-1.2, 0.0, 0.0), (1.2, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_angles_of_collinear_atoms_have_rows_of_zero(last: tuple[float, float, float]) -> None:
    angle = angles(place((1.5, 0.0, 0.0), (0.0, 0.0, 0.0), last), torch.tensor([[0, 1, 2]]))
    assert angle.values.item() == (math.pi if last[0] < 0.0 else 0.0)
    assert torch.equal(angle.rows, torch.zeros(1, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize("turn", [0.0, 1e-9, -1e-9, 1e-4, math.pi / 2, -math.pi / 2, math.pi - 1e-9, 1e-9 - math.pi])
def test_dihedrals_are_exact_at_all_turns(turn: float) -> None:
    # Seen along +z, from the second atom to the third, a clockwise turn goes from +x towards +y.
    coords = place((1.0, 0.0, -0.5), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (math.cos(turn), math.sin(turn), 2.0))
    dihedral = dihedrals(coords, torch.tensor([[0, 1, 2, 3]]))
    assert dihedral.values.item() == pytest.approx(turn, abs=1e-15)
    assert dihedral.rows[0, 0].tolist() == pytest.approx([0.0, -1.0, 0.0], abs=1e-12)
    assert dihedral.rows[0, 3].tolist() == pytest.approx([-math.sin(turn), math.cos(turn), 0.0], abs=1e-12)


@pytest.mark.parametrize(
    "points",
    [
        ((0.0, 0.0, -1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (1.0, 0.0, 2.0)),
        ((1.0, 0.0, -1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (0.0, 0.0, 2.0)),
        ((1.0, 0.0, -1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 2.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (1.0, 0.0, 2.0)),
    ],
    ids=["first-three-collinear", "last-three-collinear", "axis-of-no-length", "first-two-coincident"],
)
def test_dihedrals_that_are_undefined_are_zero_with_rows_of_zero(points: tuple[tuple[float, float, float], ...]) -> None:
    dihedral = dihedrals(place(*points), torch.tensor([[0, 1, 2, 3]]))
    assert dihedral.values.item() == 0.0
    assert torch.equal(dihedral.rows, torch.zeros(1, 4, 3, dtype=torch.float64))


@pytest.mark.parametrize("kind", [angles, dihedrals])
@settings(deadline=None, max_examples=60)
@given(grid=st.lists(st.integers(-1, 1), min_size=12, max_size=12))
def test_nothing_is_nan_on_a_grid_full_of_collinear_and_coincident_atoms(
    kind: Callable[[Tensor, Tensor], InternalCoordinates], grid: list[int]
) -> None:
    coords = torch.tensor(grid, dtype=torch.float64).reshape(4, 3)
    found = kind(coords, torch.arange(KINDS[kind])[None])
    assert bool(torch.isfinite(found.values).all())
    assert bool(torch.isfinite(found.rows).all())
