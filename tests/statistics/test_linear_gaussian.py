"""The regression engine against numerical integration, scipy, and its own promises on synthetic data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from pesfit.core.exceptions import DataError
from pesfit.statistics.linear_gaussian import GaussianPrior, Spectrum, infer, maximize_balance, solve
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations
from pesfit.statistics.quadratic import Constraints


def problem(n_rows: int = 40, n: int = 5, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features, x = rng.normal(size=(n_rows, n)), rng.normal(size=n)
    return features, features @ x + noise * rng.normal(size=n_rows), x


def test_log_evidence_equals_the_density_of_the_targets() -> None:
    features, targets, _ = problem()
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(targets))
    prior = GaussianPrior(np.full(5, 0.1), np.array([0.5, 1.0, 2.0, 1.0, 0.3]))
    spectrum = Spectrum.of(Moments.from_rows(features, targets, weights), prior)
    strength, variance = 0.7, 0.2
    covariance = np.diag(variance / weights) + features @ np.diag(prior.widths**2 * variance / strength) @ features.T
    expected = multivariate_normal(features @ prior.mean, covariance).logpdf(targets)
    assert spectrum.log_evidence_at(strength, variance) == pytest.approx(expected, rel=1e-10)
    best = spectrum.noise_variance(strength)
    assert spectrum.log_evidence(strength) == pytest.approx(spectrum.log_evidence_at(strength, best), rel=1e-12)
    assert spectrum.log_evidence(strength) > spectrum.log_evidence_at(strength, 1.05 * best)


def test_log_evidence_equals_numerical_integration_over_the_parameter() -> None:
    features, targets, _ = problem(n_rows=8, n=1)
    spectrum = Spectrum.of(Moments.from_rows(features, targets), GaussianPrior(np.zeros(1), np.full(1, 0.8)))
    strength, variance = 0.4, 0.3
    sigma = 0.8 * math.sqrt(variance / strength)

    def joint(x: float) -> float:
        residuals = targets - features[:, 0] * x
        likelihood = np.prod(np.exp(-0.5 * residuals**2 / variance) / math.sqrt(2 * math.pi * variance))
        return float(likelihood * math.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)))

    integral = quad(joint, -10, 10, epsabs=0, epsrel=1e-10, limit=200)[0]
    assert spectrum.log_evidence_at(strength, variance) == pytest.approx(math.log(integral), rel=1e-8)


def test_maximized_evidence_is_a_maximum_and_meets_mackay_fixed_point() -> None:
    features, targets, _ = problem(n_rows=200, n=20)
    prior = GaussianPrior(np.zeros(20), np.full(20, 2.0))
    moments = Moments.from_rows(features, targets)
    spectrum = Spectrum.of(moments, prior)
    strength = spectrum.maximize_evidence()
    for other in (0.9, 1.1):
        assert spectrum.log_evidence(other * strength) < spectrum.log_evidence(strength)
    # MacKay 1992, eqs. 2.20-2.23: 2 α E_W = γ and 2 β E_D = N - γ.
    z = (spectrum.mean(strength) - prior.mean) / prior.widths
    gamma, variance = spectrum.effective_parameters(strength), spectrum.noise_variance(strength)
    assert strength / variance * (z @ z) == pytest.approx(gamma, rel=1e-4)
    assert moments.sum_of_squares(spectrum.mean(strength)) / variance == pytest.approx(200 - gamma, rel=1e-4)


def test_mean_without_bounds_is_ridge_regression() -> None:
    features, targets, _ = problem()
    prior = GaussianPrior(np.full(5, 0.2), np.array([0.5, 1.0, 2.0, 1.0, 0.3]))
    moments = Moments.from_rows(features, targets)
    stacked = np.vstack([features, np.diag(math.sqrt(0.7) / prior.widths)])
    expected = np.linalg.lstsq(stacked, np.concatenate([targets, math.sqrt(0.7) * prior.mean / prior.widths]))[0]
    np.testing.assert_allclose(Spectrum.of(moments, prior).mean(0.7), expected, rtol=1e-10)
    np.testing.assert_allclose(solve(moments, prior, 0.7, Constraints.none(5)).x, expected, rtol=1e-10)


def test_posterior_covariance_is_the_textbook_one() -> None:
    features, targets, _ = problem()
    prior = GaussianPrior(np.zeros(5), np.array([0.5, 1.0, 2.0, 1.0, 0.3]))
    posterior = infer(Moments.from_rows(features, targets), prior, 0.7, Constraints.none(5))
    expected = posterior.noise_variance * np.linalg.inv(features.T @ features + np.diag(0.7 / prior.widths**2))
    np.testing.assert_allclose(posterior.covariance, expected, rtol=1e-9)


def test_posterior_on_an_active_bound_is_that_of_the_others_alone() -> None:
    features, targets, x = problem()
    lower = np.full(5, -np.inf)
    lower[2] = x[2] + 0.5
    posterior = infer(
        Moments.from_rows(features, targets),
        GaussianPrior(np.zeros(5), np.ones(5)),
        0.1,
        Constraints.box(lower, np.full(5, np.inf)),
    )
    assert posterior.optimum.active.tolist() == [True]
    assert posterior.x[2] == pytest.approx(lower[2], rel=1e-12)
    others = [0, 1, 3, 4]
    part = features[:, others]
    expected = posterior.noise_variance * np.linalg.inv(part.T @ part + 0.1 * np.eye(4))
    np.testing.assert_allclose(posterior.covariance[np.ix_(others, others)], expected, rtol=1e-9)
    assert posterior.standard_errors[2] < 1e-9


def test_intervals_cover_what_they_promise() -> None:
    """Parameters drawn from the prior lie in the 50, 90 and 95 % intervals as often as these say."""
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(300):
        x = rng.normal(size=4) * 2.0
        features = rng.normal(size=(30, 4))
        targets = features @ x + 0.5 * rng.normal(size=30)
        prior = GaussianPrior(np.zeros(4), np.full(4, 2.0))
        posterior = infer(Moments.from_rows(features, targets), prior, 0.25, Constraints.none(4))
        scores.append((posterior.x - x) / posterior.standard_errors)
    inside = [np.mean(np.abs(scores) < bound) for bound in (0.674, 1.645, 1.960)]
    np.testing.assert_allclose(inside, [0.50, 0.90, 0.95], atol=0.035)


def test_balance_recovers_the_ratio_of_the_noise_variances() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=6)
    energy, forces = rng.normal(size=(400, 6)), rng.normal(size=(3000, 6))
    equations = NormalEquations(
        {
            ENERGIES: Moments.from_rows(energy, energy @ x + 0.2 * rng.normal(size=400)),
            FORCES: Moments.from_rows(forces, forces @ x + 1.0 * rng.normal(size=3000)),
        }
    )
    assert maximize_balance(equations, GaussianPrior(np.zeros(6), np.ones(6))) == pytest.approx(25.0, rel=0.2)


def test_parameter_without_data_is_undetermined_and_stays() -> None:
    features, targets, _ = problem()
    features[:, 3] = 0.0
    prior = GaussianPrior(np.full(5, 0.4), np.ones(5))
    posterior = infer(Moments.from_rows(features, targets), prior, 0.1, Constraints.none(5))
    assert posterior.determined.tolist() == [True, True, True, False, True]
    assert posterior.x[3] == pytest.approx(0.4, rel=1e-12)
    assert posterior.effective_parameters < 4.0


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to fit"):
        Spectrum.of(Moments.zeros(2), GaussianPrior(np.zeros(2), np.ones(2)))
    with pytest.raises(DataError, match="prior width"):
        GaussianPrior(np.zeros(2), np.zeros(2))
