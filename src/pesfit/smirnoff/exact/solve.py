"""The exact fit: strength of the prior, bounded optimum, posterior, and the path over prior strengths.

Errors of a force field are not independent: those of one molecule's conformers and atoms have common causes, so n rows carry less
information than n independent ones would. Taken as independent they make the prior too weak and the error bars too small. The statistical
inefficiency T, the number of rows that are worth one independent row, follows from the training set itself. With
V = (A + λ diag(widths⁻²))⁻¹ and G = Σ g gᵀ over molecules, g the gradient of a molecule's part of the objective, independent rows would
give tr(VG) = σ²γ; T is the ratio of the two. The likelihood is raised to the power 1/T, the magnitude adjustment of composite likelihoods
(Ribatet, Cooley, Davison, Statistica Sinica 22, 813, 2012). T needs many molecules to be known; with a single one it stays 1.

With minima and scans (`landscapes`) round 0 is a linear problem as before, and its bounded optimum is global. The rounds after it linearize
at the force field's own minima and accept a step only where the objective itself falls: they end near a local optimum. Weights
and λ are those of round 0; the posterior is the linear-Gaussian one of the last linearization, about the x that was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import scipy.optimize

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.params.fit_smirnoff import FitSmirnoff, Objective
from pesfit.smirnoff.exact.accumulate import FitEquations
from pesfit.smirnoff.exact.landscapes import LandscapeRows, LandscapeSet, landscape_weights
from pesfit.statistics.linear_gaussian import GaussianPrior, Posterior, Spectrum, infer, maximize_balance, solve
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments
from pesfit.statistics.quadratic import Constraints

_PATH = 10.0 ** np.arange(-10.0, 2.01, 0.5)
"""Prior strengths of the path, relative to the largest eigenvalue of the whitened Gram matrix."""
_MAX_ROUNDS = 8
_REDUNDANCY_TOLERANCE = 0.01
_MAX_GAUSS_NEWTON = 100
_GAUSS_NEWTON_TOLERANCE = 1e-10
_STEP_FACTORS = (1.0, 0.4, 0.16, 0.064, 0.0256)
"""Fractions of a Gauss-Newton step that are tried, until the objective falls."""
_LEAST_GAIN = 1e-3
"""Gain of a round, relative to the objective, below which it was the last."""


@dataclass(frozen=True)
class PathPoint:
    """The bounded optimum at one prior strength.

    Attributes:
        strength: of the prior.
        effective_parameters: γ.
        log_evidence: logarithm of the marginal likelihood.
        train, validation: parts of the objective by kind of rows, without the kinds' weights.
    """

    strength: float
    effective_parameters: float
    log_evidence: float
    train: Mapping[str, float]
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Round:
    """Where a round ended.

    Attributes:
        objective: J with the prior, as it is rather than linearized.
        step: fraction of the Gauss-Newton step that was taken; 0 for round 0.
        lost: number of minima of the training set that the force field does not keep.
    """

    objective: float
    step: float
    lost: int


@dataclass(frozen=True)
class ExactFit:
    """Result of the exact fit.

    Attributes:
        posterior: optimum and uncertainty.
        weights: of each kind of rows in the objective, as given or as chosen.
        redundancy: T, the statistical inefficiency: rows for each independent row.
        path: over prior strengths, of the last linear problem.
        equations: the last linear problem.
        rounds: Gauss-Newton rounds, round 0 first; none where the problem is linear.
        rows: of minima and scans at the optimum, where there were rounds.
    """

    posterior: Posterior
    weights: Mapping[str, float]
    redundancy: float
    path: tuple[PathPoint, ...]
    equations: FitEquations
    rounds: tuple[Round, ...] = ()
    rows: LandscapeRows | None = None


Scores: TypeAlias = Callable[[Mapping[str, float], FloatArray, Mapping[str, FloatArray]], tuple[FloatArray, int]]
"""From the weights of kinds, x, and what minima add to each molecule's gradient: Σ g gᵀ over the molecules of the training set, and their
number (`accumulate.scores`)."""


def objective_weights(objective: Objective, energy: float) -> dict[str, float]:
    """Return the weight of each kind of rows; that of energies may have been chosen."""
    return {ENERGIES: energy, FORCES: objective.force_weight} | landscape_weights(objective)


def fit_exactly(problem: FitEquations, scores: Scores, params: FitSmirnoff, landscapes: LandscapeSet | None = None) -> ExactFit:
    """Choose the weights and the prior strength that are left open, and solve; then go on with Gauss-Newton rounds where there are minima.

    Args:
        problem: energies and forces.
        scores: how much molecules disagree.
        params: section `fit_smirnoff`.
        landscapes: minima and scans, if there are any.

    Raises:
        DataError: where there is nothing to fit to, or no validation set though `prior_strength` asks for one.
        PesfitError: where the conditions of optimality do not hold.
    """
    prior, constraints = problem.layout.prior(), problem.layout.constraints()
    x, redundancy = np.zeros(len(problem.layout)), 1.0
    weights = _weights(problem, prior, params, x)
    rows = None if landscapes is None else landscapes.first()
    if rows is not None:
        problem = problem.with_rows(rows.equations())

    def disagreement(at: FloatArray) -> tuple[FloatArray, int]:
        return scores(weights, at, {} if rows is None else rows.gradients(weights, at))

    for _ in range(_MAX_ROUNDS):
        solver = _Solver(problem, prior, constraints, weights, redundancy)
        strength = solver.choose_strength(params.prior_strength, x)
        x = solver.optimum(strength, x)
        last, redundancy = redundancy, solver.redundancy_at(strength, x, *disagreement(x))
        if problem.is_linear and abs(redundancy - last) < _REDUNDANCY_TOLERANCE * last:
            break
        weights = weights if problem.is_linear else _weights(problem, prior, params, x)
    rounds: tuple[Round, ...] = ()
    if landscapes is not None and params.objective.rounds and any(landscape_weights(params.objective).values()):
        solver, x, rows, rounds = _descend(solver, landscapes, strength, x, params.objective.rounds)
        solver = replace(solver, redundancy=solver.redundancy_at(strength, x, *disagreement(x)))
    posterior = infer(solver.moments("train", x), prior, strength, constraints, at=x if rounds else None)
    return ExactFit(
        posterior, solver.weights, solver.redundancy, tuple(solver.path(x)), solver.problem, rounds, rows if rounds else None
    )


def _descend(
    solver: _Solver, landscapes: LandscapeSet, strength: float, x: FloatArray, n_rounds: int
) -> tuple[_Solver, FloatArray, LandscapeRows, tuple[Round, ...]]:
    """Take Gauss-Newton steps with the rows linearized at the force field's own minima, while the objective falls."""

    def linearized(at: FloatArray) -> tuple[LandscapeRows, _Solver, float]:
        rows = landscapes.again(at)
        there = replace(solver, problem=solver.problem.with_rows(rows.equations()))
        return rows, there, there.penalized(strength, at)

    rows, here, value = linearized(x)
    rounds = [Round(value, 0.0, rows.n_lost)]
    for _ in range(n_rounds):
        step = here.optimum(strength, x) - x
        for length in _STEP_FACTORS:
            trial = linearized(x + length * step)
            if trial[2] < value:
                break
        else:
            break
        gain, x = value - trial[2], x + length * step
        rows, here, value = trial
        rounds.append(Round(value, length, rows.n_lost))
        if gain < _LEAST_GAIN * value:
            break
    return here, x, rows, tuple(rounds)


def _weights(problem: FitEquations, prior: GaussianPrior, params: FitSmirnoff, x: FloatArray) -> dict[str, float]:
    energy, force = params.objective.energy_weight, params.objective.force_weight
    if energy == "evidence":
        if force == 0.0:
            raise ParamsError(
                "fit_smirnoff.objective.force_weight = 0 beside energy_weight = evidence: expected a force_weight above 0, "
                "to which the weight of energies is set"
            )
        energy = force * maximize_balance(problem.linearised("train", x), prior)
    return objective_weights(params.objective, energy)


@dataclass(frozen=True)
class _Solver:
    """The problem with its weights fixed."""

    problem: FitEquations
    prior: GaussianPrior
    constraints: Constraints
    weights: Mapping[str, float]
    redundancy: float

    def moments(self, split: str, x: FloatArray) -> Moments:
        """Return the weighted statistics of a split, linearised about x."""
        return self.problem.linearised(split, x).weighted(self.weights).correlated(self.redundancy)

    def redundancy_at(self, strength: float, x: FloatArray, disagreement: FloatArray, n_molecules: int) -> float:
        """Return T, between 1 and the number of rows that a molecule has on average.

        Args:
            strength: λ.
            x: the optimum at it.
            disagreement: G, shape (n, n).
            n_molecules: of the training set.
        """
        moments = self.problem.linearised("train", x).weighted(self.weights)
        spectrum = Spectrum.of(moments, self.prior)
        white = spectrum.vectors.T @ (disagreement * np.outer(self.prior.widths, self.prior.widths)) @ spectrum.vectors
        found = float(np.sum(np.diag(white) / (spectrum.eigenvalues + strength)))
        expected = spectrum.noise_variance(strength) * spectrum.effective_parameters(strength)
        return float(np.clip(found / max(expected, 1e-300), 1.0, max(moments.n_rows / max(n_molecules, 1), 1.0)))

    def objective(self, split: str, x: FloatArray) -> float:
        """Return J of a split, without the prior."""
        return sum(self.weights[kind] * part for kind, part in self.problem.sums_of_squares(split, x).items())

    def penalized(self, strength: float, x: FloatArray) -> float:
        """Return J of the training set with the prior."""
        return self.objective("train", x) + strength * float(np.sum(((x - self.prior.mean) / self.prior.widths) ** 2))

    def optimum(self, strength: float, start: FloatArray) -> FloatArray:
        """Return the bounded optimum; by Gauss-Newton steps where the energy is not linear (Nocedal & Wright, section 10.3)."""
        if self.problem.is_linear:
            return solve(self.moments("train", start), self.prior, strength, self.constraints).x

        x, value = start, self.penalized(strength, start)
        for _ in range(_MAX_GAUSS_NEWTON):
            step = solve(self.moments("train", x), self.prior, strength, self.constraints).x - x
            length = 1.0
            while length > 1e-6 and not self.penalized(strength, x + length * step) <= value:
                length *= 0.5
            if length <= 1e-6:
                return x
            x = x + length * step
            value = self.penalized(strength, x)
            if np.abs(length * step / self.prior.widths).max() < _GAUSS_NEWTON_TOLERANCE:
                return x
        raise PesfitError(f"the fit without energy zero did not settle in {_MAX_GAUSS_NEWTON} steps; use energy_zero: mean")

    def choose_strength(self, wanted: float | str, x: FloatArray) -> float:
        """Return the prior strength."""
        if not isinstance(wanted, str):
            return wanted
        spectrum = Spectrum.of(self.moments("train", x), self.prior)
        if wanted == "evidence":
            return spectrum.maximize_evidence()
        if self.moments("validation", x).n_rows == 0:
            raise DataError("prior_strength = validation, but the validation set is empty; use evidence or a number")
        return minimize_on_path(lambda strength: self.objective("validation", self.optimum(strength, x)), _grid(spectrum))

    def path(self, x: FloatArray) -> list[PathPoint]:
        """Follow the optimum over prior strengths, but for those at which rounding leaves the optimum unsure (`quadratic.minimize`)."""
        spectrum = Spectrum.of(self.moments("train", x), self.prior)
        points = []
        for strength in _grid(spectrum).tolist():
            try:
                there = self.optimum(strength, x)
            except PesfitError:
                continue
            train, validation = (self.problem.sums_of_squares(split, there) for split in ("train", "validation"))
            points.append(
                PathPoint(strength, spectrum.effective_parameters(strength), spectrum.log_evidence(strength), train, validation)
            )
        return points


def _grid(spectrum: Spectrum) -> FloatArray:
    return np.asarray((spectrum.eigenvalues[-1] or 1.0) * _PATH)


def minimize_on_path(function: Callable[[float], float], grid: FloatArray) -> float:
    """Return where a function of the prior strength is least: the best of the grid, refined between its neighbors to 1 %."""
    values = [function(strength) for strength in grid.tolist()]
    best = int(np.argmin(values))
    if best in (0, len(grid) - 1):
        return float(grid[best])
    found = scipy.optimize.minimize_scalar(
        lambda u: function(float(np.exp(u))),
        bounds=(float(np.log(grid[best - 1])), float(np.log(grid[best + 1]))),
        method="bounded",
        options={"xatol": 0.01},
    )
    return float(np.exp(found.x)) if found.fun < values[best] else float(grid[best])
