"""Linear regression with a Gaussian prior: optimum under bounds, posterior, evidence.

    y = Φx + noise,  noise variance σ²/w a row;   x ~ N(mean, diag(widths²) σ²/λ)

so that the most probable x minimizes  Σ w (y - φᵀx)² + λ Σ ((x - mean)/widths)².  With z = (x - mean)/widths, the Gram matrix over z is
diagonalised once, S = U diag(s) Uᵀ; then the following cost nothing for any λ (MacKay, Neural Computation 4, 415, 1992; Bishop, Pattern
Recognition and Machine Learning, 2006, sections 3.3 and 3.5):

| symbol | meaning |
| --- | --- |
| λ | prior strength (α/β there), in the unit of the objective |
| γ | effective number of parameters, Σ s/(s + λ) |
| M(λ) | minimum of the objective above |
| σ² | noise variance that maximizes the evidence at this λ, M(λ)/n_rows |
| log evidence | ½ Σ log(λ/(s + λ)) - ½ n_rows (log(2πσ²) + 1) + ½ Σ log w |

The evidence leaves the bounds out of account: it is that of the Gaussian which they would cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.optimize

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.core.exceptions import DataError
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations
from pesfit.statistics.quadratic import Constraints, Optimum, minimize

UNDETERMINED_RATIO = math.sqrt(0.5)
"""A parameter whose posterior width is at least this part of its prior width is undetermined: the data give less than half of what is
known of it (1 - ratio² is its share in γ for a parameter that is correlated with no other)."""

_RESOLVED = 1e-9
"""Directions whose eigenvalue is below this part of the largest are not counted as determined, however small the noise: rounding in normal
equations leaves them an error of more than 1e-7."""

_ON_FACE = 1e-9
"""Slack of a constraint, relative to its right side, up to which parameters are on it."""

_LOG_STRENGTHS = np.arange(-18.0, 7.01, 0.25)
"""Grid for the prior strength: decimal logarithms relative to the largest eigenvalue."""


@dataclass(frozen=True)
class GaussianPrior:
    """What is believed of the parameters before the data.

    Attributes:
        mean: shape (n_parameters,).
        widths: standard deviations at λ = σ², above 0; shape (n_parameters,).
    """

    mean: FloatArray
    widths: FloatArray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.widths).all() and (self.widths > 0.0).all()):
            raise DataError(f"a prior width is {self.widths.min():g}; widths must be finite and above 0")


@dataclass(frozen=True)
class Spectrum:
    """A regression problem in the eigenbasis of its whitened Gram matrix.

    Attributes:
        eigenvalues: s, ascending, shape (n_parameters,).
        vectors: U, shape (n_parameters, n_parameters).
        projections: Uᵀ of the whitened moment about the prior mean, shape (n_parameters,).
        square: Σ w (y - φᵀmean)².
        n_rows, log_weight: as in `Moments`.
        prior: the prior it is whitened with.
    """

    eigenvalues: FloatArray
    vectors: FloatArray
    projections: FloatArray
    square: float
    n_rows: float
    log_weight: float
    prior: GaussianPrior

    @classmethod
    def of(cls, moments: Moments, prior: GaussianPrior) -> Spectrum:
        """Whiten and diagonalise.

        Raises:
            DataError: where there are no rows.
        """
        if moments.n_rows == 0:
            raise DataError("there is nothing to fit to: no energy and no force has a weight above 0")
        white = moments.transformed(np.diag(prior.widths), prior.mean)
        values, vectors = scipy.linalg.eigh(white.gram)
        # Rounding moves eigenvalues by 1e-16 of the largest: what is below that, or negative, carries nothing.
        values = np.where(values > 1e-15 * len(values) * max(values[-1], 0.0), values, 0.0)
        projections = np.where(values > 0.0, vectors.T @ white.moment, 0.0)
        return cls(values, vectors, projections, white.square, white.n_rows, white.log_weight, prior)

    def effective_parameters(self, strength: float) -> float:
        """Return γ."""
        return float(np.sum(self.eigenvalues / (self.eigenvalues + strength)))

    def minimum(self, strength: float) -> float:
        """Return M(λ), not below the rounding error it carries."""
        gain = float(np.sum(self.projections**2 / (self.eigenvalues + strength)))
        return max(self.square - gain, 1e-15 * self.square, 1e-300)

    def noise_variance(self, strength: float) -> float:
        """Return σ²."""
        return self.minimum(strength) / self.n_rows

    def log_evidence(self, strength: float) -> float:
        """Return the logarithm of the marginal likelihood, at the noise variance that maximizes it."""
        occam = 0.5 * float(np.sum(np.log(strength / (self.eigenvalues + strength))))
        fit = -0.5 * self.n_rows * (math.log(2.0 * math.pi * self.noise_variance(strength)) + 1.0)
        return occam + fit + 0.5 * self.log_weight

    def log_evidence_at(self, strength: float, noise_variance: float) -> float:
        """Return the logarithm of the marginal likelihood at a given noise variance."""
        occam = 0.5 * float(np.sum(np.log(strength / (self.eigenvalues + strength))))
        fit = -0.5 * self.n_rows * math.log(2.0 * math.pi * noise_variance) - 0.5 * self.minimum(strength) / noise_variance
        return occam + fit + 0.5 * self.log_weight

    def strengths(self) -> FloatArray:
        """Return a grid of prior strengths from far below to far above what can matter."""
        top = self.eigenvalues[-1] if self.eigenvalues[-1] > 0.0 else 1.0
        return np.asarray(top * 10.0**_LOG_STRENGTHS)

    def maximize_evidence(self) -> float:
        """Return the prior strength of largest evidence: the best of the grid, refined by Brent's method."""
        return maximize_on_grid(self.log_evidence, self.strengths())

    def mean(self, strength: float) -> FloatArray:
        """Return the optimum without bounds, shape (n_parameters,)."""
        return self.prior.mean + self.prior.widths * (self.vectors @ (self.projections / (self.eigenvalues + strength)))


def maximize_on_grid(function: Callable[[float], float], grid: FloatArray) -> float:
    """Return where a function of a positive number is largest: the best point of a geometric grid, refined between its neighbors."""
    values = [function(float(x)) for x in grid]
    best = int(np.argmax(values))
    if best in (0, len(grid) - 1):
        return float(grid[best])
    low, high = math.log(grid[best - 1]), math.log(grid[best + 1])
    found = scipy.optimize.minimize_scalar(
        lambda u: -function(math.exp(u)), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(found.x) if -found.fun > values[best] else float(grid[best])


def maximize_balance(equations: NormalEquations, prior: GaussianPrior) -> float:
    """Return the weight of energy rows, beside weight 1 of force rows, that maximizes the evidence.

    At it, weight = noise variance of the forces / noise variance of the energies.

    Raises:
        DataError: where there are no energies or no forces.
    """
    energies, forces = equations[ENERGIES], equations[FORCES]
    for name, moments in (("energy", energies), ("force", forces)):
        if moments.n_rows == 0:
            raise DataError(f"the balance of energies and forces cannot be chosen by evidence: no {name} has a weight above 0")

    def best_evidence(weight: float) -> float:
        spectrum = Spectrum.of(energies.scaled(weight) + forces, prior)
        return spectrum.log_evidence(spectrum.maximize_evidence())

    middle = (forces.square / forces.n_rows) / max(energies.square / energies.n_rows, 1e-300)
    return maximize_on_grid(best_evidence, middle * 10.0 ** np.arange(-4.0, 4.01, 1.0))


@dataclass(frozen=True)
class Posterior:
    """Posterior of the parameters.

    Attributes:
        optimum: most probable parameters under the bounds, with multipliers and the check of optimality.
        covariance: of the parameters along the faces of the active constraints, shape (n_parameters, n_parameters); a parameter that
            bounds hold fast has variance 0.
        noise_variance: σ².
        strength: λ.
        effective_parameters: γ (without bounds).
        log_evidence: at λ and σ² (without bounds).
        determined: whether the data rather than the prior determine the parameter, shape (n_parameters,).
    """

    optimum: Optimum
    covariance: FloatArray
    noise_variance: float
    strength: float
    effective_parameters: float
    log_evidence: float
    determined: BoolArray

    @property
    def x(self) -> FloatArray:
        """Most probable parameters, shape (n_parameters,)."""
        return self.optimum.x

    @property
    def standard_errors(self) -> FloatArray:
        """Square roots of the variances, shape (n_parameters,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


def solve(moments: Moments, prior: GaussianPrior, strength: float, constraints: Constraints) -> Optimum:
    """Find the most probable parameters under bounds.

    Args:
        moments: the data, with the objective's weights.
        prior: its mean is the value of parameters that neither data nor prior strength determine.
        strength: λ, at least 0; with 0 the problem may be rank-deficient.
        constraints: on the parameters.

    Raises:
        PesfitError: where no optimum is reached (`quadratic.minimize`).
    """
    white = moments.transformed(np.diag(prior.widths), prior.mean)
    hessian = white.gram + strength * np.eye(white.n_parameters)
    bounds = Constraints(constraints.matrix * prior.widths, constraints.lower - constraints.matrix @ prior.mean)
    optimum = minimize(hessian, white.moment, bounds)
    return Optimum(prior.mean + prior.widths * optimum.x, optimum.multipliers, optimum.active, optimum.kkt)


def infer(
    moments: Moments, prior: GaussianPrior, strength: float, constraints: Constraints, at: FloatArray | None = None
) -> Posterior:
    """Find the most probable parameters and their posterior.

    Args:
        moments: the data, with the objective's weights.
        prior: the prior.
        strength: λ, above 0.
        constraints: on the parameters.
        at: feasible parameters that stand for the optimum, where `moments` are the last linearization of a problem that is not linear;
            multipliers and the check of optimality are those of the linear problem.
    """
    if not strength > 0.0:
        raise DataError(f"prior strength = {strength:g}; the posterior needs a number above 0")
    spectrum = Spectrum.of(moments, prior)
    variance = spectrum.noise_variance(strength)
    half = spectrum.vectors / np.sqrt(spectrum.eigenvalues + strength)
    white = variance * (half @ half.T)
    optimum = solve(moments, prior, strength, constraints)
    if at is not None:
        slack = constraints.matrix @ at - constraints.lower
        optimum = replace(optimum, x=at, active=slack <= _ON_FACE * np.maximum(1.0, np.abs(constraints.lower)))
    resolved = np.where(spectrum.eigenvalues > _RESOLVED * spectrum.eigenvalues[-1], spectrum.eigenvalues, 0.0)
    ratio = np.sqrt(spectrum.vectors**2 @ (strength / (resolved + strength)))
    return Posterior(
        optimum=optimum,
        covariance=_on_faces(white, constraints.matrix[optimum.active] * prior.widths) * np.outer(prior.widths, prior.widths),
        noise_variance=variance,
        strength=strength,
        effective_parameters=spectrum.effective_parameters(strength),
        log_evidence=spectrum.log_evidence(strength),
        determined=ratio < UNDETERMINED_RATIO,
    )


def _on_faces(covariance: FloatArray, active: FloatArray) -> FloatArray:
    """Condition a covariance on the active constraints: Σ - ΣCᵀ(CΣCᵀ)⁻¹CΣ (Nocedal & Wright, eq. 16.16)."""
    if not len(active):
        return covariance
    cross = active @ covariance
    inner = cross @ active.T
    scale = 1.0 / np.sqrt(np.diag(inner))
    solved = scipy.linalg.pinvh(inner * np.outer(scale, scale)) * np.outer(scale, scale) @ cross
    return np.asarray(covariance - cross.T @ solved)
