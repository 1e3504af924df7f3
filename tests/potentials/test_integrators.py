"""Rigid motion against angular momentum and counting; the integrator itself is tested where it is used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesfit.potentials.integrators import remove_rigid_motion, rigid_directions


@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_what_is_left_has_no_momentum_and_what_was_taken_was_rigid(seed: int, n_atoms: int) -> None:
    random = np.random.default_rng(seed)
    coords, velocities = random.normal(size=(2, n_atoms, 3))
    masses = random.uniform(1.0, 40.0, n_atoms)
    left = remove_rigid_motion(coords, velocities, masses)
    momenta = masses[:, None] * left
    np.testing.assert_allclose(momenta.sum(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.cross(coords, momenta).sum(axis=0), 0.0, atol=1e-9)
    # Rigid motion changes no distance: (x_i - x_j)·(v_i - v_j) = 0.
    taken = velocities - left
    rates = ((coords[:, None] - coords) * (taken[:, None] - taken)).sum(axis=-1)
    np.testing.assert_allclose(rates, 0.0, atol=1e-9)
    np.testing.assert_allclose(remove_rigid_motion(coords, left, masses), left, atol=1e-9)


@pytest.mark.parametrize(
    ("coords", "n_directions"),
    [
        ([[1.0, 2.0, 3.0]], 3),
        ([[0.0, 0.0, 0.0], [0.0, 1.1, 0.0]], 5),
        ([[0.0, 0.0, 0.0], [0.7, 0.7, 0.0], [-0.7, -0.7, 0.0]], 5),
        ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-0.3, 0.9, 0.0]], 6),
    ],
)
def test_rigid_motion_of_atoms_lines_and_other_molecules(coords: list[list[float]], n_directions: int) -> None:
    directions = rigid_directions(np.array(coords), np.linspace(1.0, 16.0, len(coords)))
    assert len(directions) == n_directions
    np.testing.assert_allclose(directions @ directions.T, np.eye(n_directions), atol=1e-12)
