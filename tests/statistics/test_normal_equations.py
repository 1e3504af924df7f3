"""Normal equations: sums, weights, transformations, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations, load, save, total


def rows(n_rows: int = 30, n: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, n)), rng.normal(size=n_rows), rng.uniform(0.1, 2, n_rows)


def test_sum_of_squares_equals_that_of_the_rows() -> None:
    features, targets, weights = rows()
    x = np.array([0.3, -1.0, 2.0, 0.1])
    expected = np.sum(weights * (targets - features @ x) ** 2)
    assert Moments.from_rows(features, targets, weights).sum_of_squares(x) == pytest.approx(expected, rel=1e-12)
    assert Moments.from_rows(features, targets).scaled(3.0).sum_of_squares(x) == pytest.approx(
        3.0 * np.sum((targets - features @ x) ** 2), rel=1e-12
    )


def test_parts_add_up_to_the_whole() -> None:
    features, targets, weights = rows()
    whole = Moments.from_rows(features, targets, weights)
    parts = Moments.from_rows(features[:11], targets[:11], weights[:11]) + Moments.from_rows(
        features[11:], targets[11:], weights[11:]
    )
    np.testing.assert_allclose(parts.gram, whole.gram, rtol=1e-12, atol=1e-14)
    assert parts.square == pytest.approx(whole.square)
    assert (parts.n_rows, parts.log_weight) == (whole.n_rows, pytest.approx(whole.log_weight))


def test_add_at_places_a_part_among_more_parameters() -> None:
    features, targets, _ = rows()
    wide = np.zeros((30, 7))
    columns = np.array([5, 0, 2, 6])
    wide[:, columns] = features
    placed = Moments.zeros(7).add_at(columns, Moments.from_rows(features, targets))
    expected = Moments.from_rows(wide, targets)
    np.testing.assert_allclose(placed.gram, expected.gram, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(placed.moment, expected.moment, rtol=1e-12, atol=1e-14)
    assert (placed.square, placed.n_rows) == (pytest.approx(expected.square), 30)


def test_transformed_is_the_same_objective_in_other_variables() -> None:
    features, targets, _ = rows()
    rng = np.random.default_rng(8)
    matrix, origin, u = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    moments = Moments.from_rows(features, targets)
    assert moments.transformed(matrix, origin).sum_of_squares(u) == pytest.approx(moments.sum_of_squares(origin + matrix @ u))


def test_rows_of_weight_zero_do_not_count() -> None:
    features, targets, _ = rows()
    equations = NormalEquations({ENERGIES: Moments.from_rows(features, targets), FORCES: Moments.from_rows(features, targets)})
    assert equations.weighted({ENERGIES: 0.0, FORCES: 2.0}).n_rows == 30
    assert equations.weighted({ENERGIES: 0.0, FORCES: 0.0}).n_rows == 0


def test_saved_equations_come_back_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    features, targets, weights = rows()
    equations = {
        "train/a": NormalEquations(
            {"scans": Moments.from_rows(features, targets), FORCES: Moments.from_rows(features, targets, weights)}
        ),
        "test": total([NormalEquations.zeros(4)], 4),
    }
    save(tmp_path / "a.npz", equations)
    save(tmp_path / "b.npz", equations)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load(tmp_path / "a.npz")
    assert list(back) == list(equations)
    assert list(back["train/a"]) == ["scans", FORCES]
    np.testing.assert_array_equal(back["train/a"][FORCES].gram, equations["train/a"][FORCES].gram)
    assert back["train/a"][FORCES].log_weight == equations["train/a"][FORCES].log_weight
    assert back["test"].n_rows == 0


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "text.npz")
    np.savez(tmp_path / "new.npz", format_version=np.array(99))
    with pytest.raises(DataError, match="format version 99"):
        load(tmp_path / "new.npz")


def test_random_effects_are_those_of_the_dense_covariance() -> None:
    """Generalized least squares with covariance diag(1/w) + Φ T Φᵀ, and the logarithm of its determinant."""
    rng = np.random.default_rng(4)
    features, targets, weights = rng.normal(size=(12, 4)), rng.normal(size=12), rng.uniform(0.5, 2.0, size=12)
    widths, x = np.array([0.3, 1.0, 2.0, 0.0]), rng.normal(size=4)
    covariance = np.diag(1.0 / weights) + (features * widths**2) @ features.T
    precision = np.linalg.inv(covariance)
    found = Moments.from_rows(features, targets, weights).with_random_effects(widths)
    np.testing.assert_allclose(found.gram, features.T @ precision @ features, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.moment, features.T @ precision @ targets, rtol=1e-9, atol=1e-9)
    residual = targets - features @ x
    assert found.sum_of_squares(x) == pytest.approx(residual @ precision @ residual, rel=1e-9)
    assert found.log_weight == pytest.approx(-np.linalg.slogdet(covariance)[1], rel=1e-9)
