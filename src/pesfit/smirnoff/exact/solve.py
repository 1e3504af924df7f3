"""The exact fit: strength of the prior, bounded optimum, posterior, and the path over prior strengths.

Errors of a force field are not independent: those of one molecule's conformers and atoms have common causes, so n rows carry less
information than n independent ones would. Taken as independent they make the prior too weak and the error bars too small. The statistical
inefficiency T, the number of rows that are worth one independent row, follows from the training set itself. With
V = (A + λ diag(widths⁻²))⁻¹ and G = Σ g gᵀ over molecules, g the gradient of a molecule's part of the objective, independent rows would
give tr(VG) = σ²γ; T is the ratio of the two. The likelihood is raised to the power 1/T, the magnitude adjustment of composite likelihoods
(Ribatet, Cooley, Davison, Statistica Sinica 22, 813, 2012). T needs many molecules to be known; with a single one it stays 1.

With minima and scans (`landscapes`) only energies, forces and scans are linear. From the starting force field on, each round linearizes
frequencies, displacements and energies of minima at the force field's own minima and solves the linear problem. It takes the step, or that
part of it with which the objective itself falls and no minimum of the training set is lost that was kept before: Gauss-Newton, which ends
near a local optimum. Weights and λ are those of the first linear problem; the posterior is the linear-Gaussian one of the last, about the
x that was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.optimize

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.params.fit_smirnoff import FitSmirnoff, Objective
from pesfit.smirnoff.exact.accumulate import FitEquations
from pesfit.smirnoff.exact.landscapes import LandscapeRows, LandscapeSet, landscape_weights
from pesfit.smirnoff.exact.training_set import LeftOut, Pooling, TrainingSet
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
        step: fraction of the Gauss-Newton step that was taken; 0 at the start.
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
        left_out: errors of each molecule at the optimum without it, in the last linear problem; None where the energy is not linear.
        rounds: Gauss-Newton rounds, the starting force field first; none where the problem is linear.
        start_rows, rows: of minima and scans, at the starting force field and, where there were rounds, at the optimum.
    """

    posterior: Posterior
    weights: Mapping[str, float]
    redundancy: float
    path: tuple[PathPoint, ...]
    equations: FitEquations
    left_out: LeftOut | None
    rounds: tuple[Round, ...] = ()
    start_rows: LandscapeRows | None = None
    rows: LandscapeRows | None = None


def objective_weights(objective: Objective, energy: float) -> dict[str, float]:
    """Return the weight of each kind of rows; that of energies may have been chosen."""
    return {ENERGIES: energy, FORCES: objective.force_weight} | landscape_weights(objective)


def fit_exactly(
    problem: FitEquations, training: TrainingSet, params: FitSmirnoff, landscapes: LandscapeSet | None = None
) -> ExactFit:
    """Choose the weights and the prior strength that are left open, and solve; then go on with Gauss-Newton rounds where there are minima.

    Args:
        problem: energies and forces.
        training: the same, molecule by molecule.
        params: section `fit_smirnoff`.
        landscapes: minima and scans, if there are any.

    Raises:
        DataError: where there is nothing to fit to, or no validation set though `prior_strength` asks for one.
        PesfitError: where the conditions of optimality do not hold.
    """
    prior, constraints = problem.layout.prior(), problem.layout.constraints()
    if params.molecule_strength is not None and not problem.is_linear:
        raise ParamsError(
            f"fit_smirnoff.molecule_strength = {params.molecule_strength:g} beside objective.energy_zero = none: expected null, or an "
            "energy_zero of mean or min, with which energies are linear in the parameters"
        )
    spread = None if params.molecule_strength is None else prior.widths / np.sqrt(params.molecule_strength)
    x, redundancy = np.zeros(len(problem.layout)), 1.0
    pooling = Pooling(_weights(problem, prior, params, x), spread)
    rows = None if landscapes is None else landscapes.linearized(x)
    if rows is not None:
        problem = problem.with_rows(rows.equations())
    for _ in range(_MAX_ROUNDS):
        solver = _Solver(problem, training, prior, constraints, pooling, rows, redundancy)
        strength = solver.choose_strength(params.prior_strength, x)
        x = solver.optimum(strength, x)
        last, redundancy = redundancy, solver.redundancy_at(strength, x)
        if problem.is_linear and abs(redundancy - last) < _REDUNDANCY_TOLERANCE * last:
            break
        if not problem.is_linear:
            pooling = Pooling(_weights(problem, prior, params, x), spread)
    rounds: tuple[Round, ...] = ()
    if landscapes is not None and any(landscape_weights(params.objective).values()):
        solver, x, rounds = _descend(solver, landscapes, strength, params.objective.rounds)
        solver = replace(solver, redundancy=solver.redundancy_at(strength, x))
    posterior = infer(solver.moments("train", x), prior, strength, constraints, at=x if rounds else None)
    return ExactFit(
        posterior,
        pooling.weights,
        solver.redundancy,
        tuple(solver.path(x)),
        solver.problem,
        solver.left_out(strength, x) if problem.is_linear else None,
        rounds,
        rows,
        solver.rows if rounds else None,
    )


def _descend(
    start: _Solver, landscapes: LandscapeSet, strength: float, n_rounds: int
) -> tuple[_Solver, FloatArray, tuple[Round, ...]]:
    """Take Gauss-Newton steps from the starting force field, at which the rows of `start` are linearized."""
    here, x = start, np.zeros(len(start.prior.mean))
    value, lost = here.penalized(strength, x), here.lost
    rounds = [Round(value, 0.0, int(lost.sum()))]
    for _ in range(n_rounds):
        step = here.optimum(strength, x) - x
        for length in _STEP_FACTORS:
            there = here.with_rows(landscapes.linearized(x + length * step))
            reached, lost_there = there.penalized(strength, x + length * step), there.lost
            if reached < value and not (lost_there & ~lost).any():
                break
        else:
            break
        gain = value - reached
        here, x, value, lost = there, x + length * step, reached, lost_there
        rounds.append(Round(value, length, int(lost.sum())))
        if gain < _LEAST_GAIN * value:
            break
    return here, x, tuple(rounds)


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


@dataclass(frozen=True, eq=False)
class _Solver:
    """The problem with its weights fixed.

    Attributes:
        problem: rows by split and kind.
        training: molecules of the training set.
        prior, constraints: on x.
        pooling: weights of kinds, and how alike molecules are.
        rows: of minima and scans, in `problem` too.
        redundancy: T.
    """

    problem: FitEquations
    training: TrainingSet
    prior: GaussianPrior
    constraints: Constraints
    pooling: Pooling
    rows: LandscapeRows | None
    redundancy: float

    def with_rows(self, rows: LandscapeRows) -> _Solver:
        """Return the same with other rows of minima and scans."""
        return replace(self, problem=self.problem.with_rows(rows.equations()), rows=rows)

    @property
    def lost(self) -> BoolArray:
        """Which minima of the training set the force field does not keep."""
        return np.zeros(0, dtype=bool) if self.rows is None else self.rows.lost

    @cached_property
    def pooled(self) -> Moments:
        """What the training set says of x, where the energy is linear."""
        return self.training.moments(self.pooling, self.rows)

    def moments(self, split: str, x: FloatArray) -> Moments:
        """Return the weighted statistics of a split, linearised about x."""
        return self._uncorrelated(split, x).correlated(self.redundancy)

    def _uncorrelated(self, split: str, x: FloatArray) -> Moments:
        if split == "train" and self.problem.is_linear:
            return self.pooled
        return self.problem.linearised(split, x).weighted(self.pooling.weights)

    def redundancy_at(self, strength: float, x: FloatArray) -> float:
        """Return T at the optimum x, between 1 and the number of rows that a molecule has on average."""
        disagreement, n_molecules = self.training.disagreement(self.pooling, self.rows, x)
        moments = self._uncorrelated("train", x)
        spectrum = Spectrum.of(moments, self.prior)
        white = spectrum.vectors.T @ (disagreement * np.outer(self.prior.widths, self.prior.widths)) @ spectrum.vectors
        found = float(np.sum(np.diag(white) / (spectrum.eigenvalues + strength)))
        expected = spectrum.noise_variance(strength) * spectrum.effective_parameters(strength)
        return float(np.clip(found / max(expected, 1e-300), 1.0, max(moments.n_rows / max(n_molecules, 1), 1.0)))

    def left_out(self, strength: float, x: FloatArray) -> LeftOut:
        """Return errors of each molecule at the optimum without it."""
        scale = np.outer(self.prior.widths, self.prior.widths)
        inverse = scale * scipy.linalg.inv(scale * self.pooled.gram + strength * np.eye(len(x)))
        return self.training.left_out(self.pooling, self.rows, inverse, x)

    def objective(self, split: str, x: FloatArray) -> float:
        """Return J of a split, without the prior; of the training set with molecules' own parameters at their best."""
        if split == "train" and self.problem.is_linear:
            return self.pooled.sum_of_squares(x)
        return sum(self.pooling.weights[kind] * part for kind, part in self.problem.sums_of_squares(split, x).items())

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
        if wanted == "molecules":
            return minimize_on_path(
                lambda strength: self.left_out(strength, self.optimum(strength, x)).objective, _grid(spectrum)
            )
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
