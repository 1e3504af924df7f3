"""Losses, their weights and centers, and residuals and gradients against the evaluator and autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import huber

from pesfit.core.exceptions import DataError
from pesfit.data.topology import Topology
from pesfit.params.fit_smirnoff import Gradient, Loss, Objective
from pesfit.smirnoff.gradient.objective import LossFunction, LossTerms, ResidualBlock, centers, losses
from tests.smirnoff.gradient.samples import TRAIN_ALL, labels, molecules, parts_of, random_z, setting_of
from tests.smirnoff.samples import Sample, evaluate

LENGTHS = np.concatenate([np.zeros(1), np.geomspace(1e-6, 1e4, 200)])


KINDS = [Loss(kind="l2"), Loss(kind="huber", energy_delta=0.7, force_delta=3.0), Loss(kind="l1")]


def test_huber_is_twice_that_of_scipy() -> None:
    np.testing.assert_allclose(LossFunction(0.7, 1.0).values(LENGTHS), 2.0 * huber(0.7, LENGTHS), rtol=1e-14)


def test_l1_is_the_length_but_for_its_rounded_tip() -> None:
    energy, _ = losses(Loss(kind="l1"))
    np.testing.assert_allclose(energy.values(LENGTHS[LENGTHS > 1e-3]), LENGTHS[LENGTHS > 1e-3] - 5e-4, rtol=1e-9)
    assert energy.values(np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("params", KINDS, ids=lambda p: p.kind)
def test_weights_are_half_the_slope_over_the_length(params: Loss) -> None:
    for rho in losses(params):
        lengths = np.geomspace(1e-4, 100.0, 50)
        step = 1e-6 * lengths
        slope = (rho.values(lengths + step) - rho.values(lengths - step)) / (2 * step)
        np.testing.assert_allclose(2 * lengths * rho.weights(lengths), slope, rtol=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), spread=st.floats(1e-6, 1e5),
    kind=st.sampled_from(KINDS),
)  # fmt: skip
@settings(max_examples=40)
def test_centres_are_where_the_loss_is_least(seed: int, sizes: list[int], spread: float, kind: Loss) -> None:
    rng = np.random.default_rng(seed)
    errors = spread * rng.standard_cauchy(sum(sizes))
    weights = rng.uniform(0.1, 2.0, sum(sizes)) * (rng.random(sum(sizes)) > 0.2)
    rho, _ = losses(kind)
    starts = np.cumsum(sizes) - np.array(sizes)
    found = centers(rho, errors, weights, starts, np.array(sizes))
    for start, size, center in zip(starts, sizes, found, strict=True):
        part, w = errors[start : start + size], weights[start : start + size]

        def loss(c: float, part: np.ndarray = part, w: np.ndarray = w) -> float:
            return float(w @ rho.values(np.abs(part - c)))

        if not w.any():
            assert center == 0.0
            continue
        best = minimize_scalar(loss, bounds=(part.min() - 1e-9, part.max() + 1e-9), method="bounded").fun
        assert loss(center) <= min(best, *(loss(c) for c in part)) * (1 + 1e-9) + 1e-12


@pytest.fixture(scope="module")
def found() -> Sample:
    return molecules()


def charged(topology: Topology, change: np.ndarray | None) -> Topology:
    return topology if change is None else replace(topology, charges=topology.charges + change)


@pytest.mark.parametrize("zero", ["mean", "min", "none"])
def test_loss_is_that_of_the_evaluator_at_the_force_field_that_z_stands_for(found: Sample, zero: str) -> None:
    """All parameters at once: k, q₀, torsions, ε, σ, charges; by `SmirnoffPotential`, which knows nothing of coefficients."""
    objective = Objective(energy_zero=zero, normalization="sum")  # type: ignore[arg-type]
    setting = setting_of(found, TRAIN_ALL, objective, (2.0, 0.5))
    targets = labels(found, found.force_field, noise=1.0)
    block = ResidualBlock(parts_of(found, setting, targets))
    z = random_z(setting)
    terms = LossTerms(*losses(Loss()), zero)  # type: ignore[arg-type]
    numbers, _ = block.evaluate(setting.coefficients.at(z).values, terms)
    fitted = setting.coefficients.force_field(z)
    energies = forces = 0.0
    for i, (topology, coords, (energy, force)) in enumerate(zip(found.topologies, found.coords, targets, strict=True)):
        ours = evaluate(fitted, charged(topology, setting.coefficients.charge_changes(z, i)), coords)
        error = energy - ours[0]
        error = error - {"mean": error.mean(), "min": error[np.argmin(energy)], "none": 0.0}[zero]
        energies += np.sum(error**2)
        forces += np.sum((force - ours[1]) ** 2)
    np.testing.assert_allclose(numbers, [2.0 * energies, 0.5 * forces, energies, forces], rtol=1e-9)


@pytest.mark.parametrize("kind", ["l2", "huber", "l1"])
@pytest.mark.parametrize("zero", ["mean", "min", "none"])
def test_gradient_is_that_of_the_loss(found: Sample, kind: str, zero: str) -> None:
    objective = Objective(energy_zero=zero)  # type: ignore[arg-type]
    setting = setting_of(found, TRAIN_ALL, objective)
    coefficients = setting.coefficients
    block = ResidualBlock(parts_of(found, setting, labels(found, found.force_field, noise=3.0)))
    terms = LossTerms(*losses(Loss(kind=kind, energy_delta=1.5, force_delta=4.0)), zero)  # type: ignore[arg-type]
    z = random_z(setting, 1)

    def loss(z: np.ndarray) -> float:
        point = coefficients.at(z)
        return float(block.numbers(point.values, terms)[:2].sum()) + 0.7 * coefficients.prior(point)[0]

    point = coefficients.at(z)
    _, local = block.evaluate(point.values, terms)
    by_coefficient = np.zeros(coefficients.n_coefficients)
    by_coefficient[block.columns] = local
    gradient = coefficients.pulled(point, by_coefficient) + 0.7 * coefficients.prior(point)[1]
    rng = np.random.default_rng(3)
    for _ in range(6):
        direction = rng.normal(size=len(z))
        step = 1e-6
        numerical = (loss(z + step * direction) - loss(z - step * direction)) / (2 * step)
        assert gradient @ direction == pytest.approx(numerical, rel=2e-6, abs=1e-4)
    for entry in range(0, len(z), 5):
        direction = np.zeros(len(z))
        direction[entry] = 1e-5
        numerical = (loss(z + direction) - loss(z - direction)) / 2e-5
        assert gradient[entry] == pytest.approx(numerical, rel=1e-5, abs=1e-5 * np.abs(gradient).max())


def test_gradient_by_tables_agrees_with_autograd(found: Sample) -> None:
    """The same derivative by way of the potential's tables and one backward pass of torch."""
    from pesfit.potentials.interface import Conformers, collate
    from pesfit.potentials.terms import Terms as Graph
    from pesfit.smirnoff.potential import SmirnoffPotential

    setting = setting_of(found, Gradient(), Objective(normalization="sum"))
    targets = labels(found, found.force_field, noise=1.0)
    block = ResidualBlock(parts_of(found, setting, targets))
    point = setting.coefficients.at(np.zeros(setting.coefficients.n_parameters))
    _, local = block.evaluate(point.values, LossTerms(*losses(Loss()), "mean"))
    by_coefficient = np.zeros(setting.coefficients.n_coefficients)
    by_coefficient[block.columns] = local

    potential = SmirnoffPotential(found.force_field)
    potential.tables.requires_grad_(True)
    loss = torch.zeros((), dtype=torch.float64)
    for topology, coords, (energy, forces) in zip(found.topologies, found.coords, targets, strict=True):
        numbers = torch.ones(topology.n_atoms, dtype=torch.int64)
        prediction = potential(collate([Conformers(numbers, torch.tensor(coords), Graph.from_topology(topology))]))
        error = torch.tensor(energy) - prediction.energy
        loss = loss + ((error - error.mean()) ** 2).sum()
        loss = loss + ((torch.tensor(forces).reshape(-1, 3) - prediction.forces) ** 2).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    layout = setting.layout
    for handler, index in (("Bonds", 0), ("Angles", 1), ("ProperTorsions", 2), ("ImproperTorsions", 3)):
        gradient = potential.tables[handler].grad
        assert gradient is not None
        plain = np.flatnonzero((layout.handler == index) & ~layout.is_shift)
        expected = gradient.numpy()[layout.row[plain], 0]
        np.testing.assert_allclose(by_coefficient[plain], expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
        shifts = np.flatnonzero((layout.handler == index) & layout.is_shift)
        if len(shifts):
            expected = gradient.numpy()[layout.row[shifts], 1] / layout.k[shifts]
            np.testing.assert_allclose(by_coefficient[shifts], expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["l2", "huber"])
def test_normal_matrix_is_the_curvature_of_squares(found: Sample, kind: str) -> None:
    """For squares and constant slopes half the second derivative; for huber it is symmetric, positive, and smaller."""
    setting = setting_of(found, Gradient())
    coefficients = setting.coefficients
    block = ResidualBlock(parts_of(found, setting, labels(found, found.force_field, noise=5.0)))
    terms = LossTerms(*losses(Loss(kind=kind, force_delta=4.0)), "mean")  # type: ignore[arg-type]
    point = coefficients.at(np.zeros(coefficients.n_parameters))
    matrix = block.normal_matrix(point.values, coefficients.jacobian(point), terms)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > -1e-9 * np.abs(matrix).max()
    square = LossTerms(*losses(Loss()), "mean")
    jacobian = coefficients.jacobian(point)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=coefficients.n_parameters)
    change = jacobian @ direction
    middle, up, down = (block.numbers(point.values + t * change, square)[:2].sum() for t in (0.0, 1.0, -1.0))
    curvature = 0.5 * (up - 2 * middle + down)
    if kind == "l2":
        assert direction @ matrix @ direction == pytest.approx(curvature, rel=1e-8)
    else:
        assert 0.0 < direction @ matrix @ direction < curvature


def test_blocks_add_up(found: Sample) -> None:
    setting = setting_of(found, TRAIN_ALL)
    parts = parts_of(found, setting, labels(found, found.force_field, noise=1.0))
    values = setting.coefficients.at(random_z(setting)).values
    terms = LossTerms(*losses(Loss(kind="huber")), "mean")
    whole, _ = ResidualBlock(parts).evaluate(values, terms)
    np.testing.assert_allclose(sum(ResidualBlock([part]).evaluate(values, terms)[0] for part in parts), whole, rtol=1e-12)
    squares = ResidualBlock(parts).error_sums(values)
    np.testing.assert_allclose(
        squares, np.concatenate([ResidualBlock([part]).error_sums(values) for part in parts]), rtol=1e-12
    )


def test_what_is_not_finite_is_named(found: Sample) -> None:
    setting = setting_of(found, Gradient())
    parts = parts_of(found, setting, labels(found, found.force_field))
    values = setting.coefficients.at(np.zeros(setting.coefficients.n_parameters)).values
    terms = LossTerms(*losses(Loss()), "mean")
    target = parts[2].force_target.copy()
    target[-1] = np.nan
    broken = [*parts[:2], replace(parts[2], force_target=target), *parts[3:]]
    with pytest.raises(DataError, match=r"set/m2.*forces"):
        ResidualBlock(broken).evaluate(values, terms)
