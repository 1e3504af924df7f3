"""Optimizers with bounds: Adam, L-BFGS and Levenberg-Marquardt, each of which can continue from a stored state.

Adam is Kingma, Ba (ICLR 2015, algorithm 1) with steps cut at the box; L-BFGS is scipy's L-BFGS-B (Zhu, Byrd, Lu, Nocedal, ACM Trans.
Math. Softw. 23, 550, 1997), whose evaluations are kept, so that it resumes by repeating its steps without evaluating anything; and
Levenberg-Marquardt solves each damped step within the box, with the damping that Nielsen proposed (IMM-REP-1999-05).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.linalg
import scipy.optimize

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import PesfitError
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.coefficients import Coefficients
from pesfit.smirnoff.gradient.shards import N_NUMBERS, Team

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-12
_MEMORY = 30
"""Pairs of steps and gradient changes that L-BFGS keeps."""
_MAX_RESTARTS = 10
_LARGEST_DAMPING = 1e12
_MAX_BOX_STEPS = 200
_NEAR_BOUND = 0.1
"""Distance from a bound, in units of a step along the gradient."""
_RIDGE = 1e-13
"""Added to the unit diagonal of a matrix that rounding may have made singular."""
State: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LossValue:
    """The objective at a z.

    Attributes:
        total: loss and prior; of a batch, as if all batches were like it.
        prior: the part of the prior in `total`.
        numbers: loss of energies, loss of forces, Σ (ΔE)², Σ |ΔF|² of the batch, shape (4,).
        gradient: of `total`, shape (n,).
        pull: its derivative by m of the harmonics, shape (n_shifts,); right where k = 0.
    """

    total: float
    prior: float
    numbers: FloatArray
    gradient: FloatArray
    pull: FloatArray


@dataclass(frozen=True)
class PenalizedLoss:
    """The objective.

    Attributes:
        team: evaluates the data.
        coefficients: of z.
        strength: of the prior.
        n_batches: pieces of an epoch.
    """

    team: Team
    coefficients: Coefficients
    strength: float
    n_batches: int

    def __call__(self, z: FloatArray, batch: int = 0) -> LossValue:
        """Evaluate a batch and the prior.

        Raises:
            PesfitError: where z is not finite.
            DataError: where an error is not finite; names molecule and conformer.
        """
        if not np.isfinite(z).all():
            raise PesfitError("the fit diverged: a parameter is not finite; lower fit_smirnoff.gradient.learning_rate.initial")
        sums = in_order(self.team.run("train", z, batch))
        n = len(z)
        loss = self.n_batches * float(sums[0] + sums[1])
        prior, gradient = self.coefficients.prior(self.coefficients.at(z))
        return LossValue(
            loss + self.strength * prior,
            self.strength * prior,
            sums[:N_NUMBERS],
            self.n_batches * sums[N_NUMBERS : N_NUMBERS + n] + self.strength * gradient,
            self.n_batches * sums[N_NUMBERS + n :],
        )

    def curvature(self, z: FloatArray) -> FloatArray:
        """Return half the Gauss-Newton Hessian, shape (n, n)."""
        half = in_order(self.team.run("curvature", z)).reshape(len(z), len(z))
        return np.asarray(half + self.strength * self.coefficients.prior_curvature(self.coefficients.at(z)))

    def within(self, z: FloatArray) -> FloatArray:
        """Return the nearest z in the box."""
        return np.clip(z, self.coefficients.lower, self.coefficients.upper)


def in_order(rows: FloatArray) -> FloatArray:
    """Add rows one after the other: numpy's own sum may pair them, which rounds otherwise."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total


@dataclass(frozen=True)
class EpochStep:
    """State of an optimizer after an epoch.

    Attributes:
        epoch: how many are done.
        z: the parameters, shape (n,).
        numbers: sums of `LossValue.numbers` over the epoch's batches, shape (4,); of Adam at the parameters before each step.
        prior: mean of `LossValue.prior` over them.
        gradient_norm: of the last batch.
        learning_rate: of Adam; 0 for others.
        state: of the optimizer.
    """

    epoch: int
    z: FloatArray
    numbers: FloatArray
    prior: float
    gradient_norm: float
    learning_rate: float
    state: State


EpochReport: TypeAlias = Callable[[EpochStep], bool]
"""Called after every epoch; returns whether to stop."""


def adam(problem: PenalizedLoss, z: FloatArray, params: Gradient, state: State | None, report: EpochReport) -> FloatArray:
    """Minimize by Adam.

    Args:
        problem: the objective.
        z: where to start, shape (n,).
        params: step length, epochs.
        state: of a run that was ended, or None.
        report: called after every epoch.

    Returns:
        The last z.
    """
    first, second, done, steps = np.zeros(len(z)), np.zeros(len(z)), 0, 0
    if state is not None:
        z, first, second = state["z"], state["first"], state["second"]
        done, steps = int(state["epoch"]), int(state["steps"])
    ratio = params.learning_rate.final / params.learning_rate.initial
    for epoch in range(done, params.epochs):
        rate = params.learning_rate.initial * ratio ** (epoch / max(params.epochs - 1, 1))
        numbers, prior = np.zeros(N_NUMBERS), 0.0
        for batch in np.random.default_rng((params.seed, epoch)).permutation(problem.n_batches).tolist():
            value = problem(z, batch)
            steps += 1
            first = _BETA_1 * first + (1.0 - _BETA_1) * value.gradient
            second = _BETA_2 * second + (1.0 - _BETA_2) * value.gradient**2
            length = np.sqrt(second / (1.0 - _BETA_2**steps)) + _EPSILON
            z = problem.within(z - rate * (first / (1.0 - _BETA_1**steps)) / length)
            z = problem.coefficients.freed(z, value.gradient, value.pull)
            numbers, prior = numbers + value.numbers, prior + value.prior / problem.n_batches
        state = {"z": z, "first": first, "second": second, "epoch": np.array(epoch + 1), "steps": np.array(steps)}
        if report(EpochStep(epoch + 1, z, numbers, prior, float(np.linalg.norm(value.gradient)), rate, state)):
            break
    return z


def lbfgs(problem: PenalizedLoss, z: FloatArray, params: Gradient, state: State | None, report: EpochReport) -> FloatArray:
    """Minimize by L-BFGS-B; an epoch is an evaluation. Arguments as of `adam`."""
    known = _Known(problem, state)
    bounds = scipy.optimize.Bounds(problem.coefficients.lower, problem.coefficients.upper)
    stopped = False

    def after_iteration(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        nonlocal stopped
        value = known.at(intermediate_result.x)
        norm = float(np.linalg.norm(value.gradient))
        stopped = report(
            EpochStep(known.n_used, intermediate_result.x.copy(), value.numbers, value.prior, norm, 0.0, known.state())
        )
        if stopped:
            raise StopIteration

    for _ in range(_MAX_RESTARTS):
        scale = 1.0 / max(known.at(z).total, 1e-300)
        z = scipy.optimize.minimize(
            lambda z: ((value := known.at(z)).total * scale, value.gradient * scale),  # noqa: B023 - called in this round
            z,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            callback=after_iteration,
            options={
                "maxcor": _MEMORY,
                "maxfun": max(params.epochs - known.n_used, 1),
                "maxiter": params.epochs,
                "ftol": params.tolerance,
                "gtol": 0.0,
            },
        ).x
        value = known.at(z)
        freed = problem.coefficients.freed(z, value.gradient, value.pull)
        if stopped or known.n_used >= params.epochs or np.array_equal(freed, z):
            break
        z = freed
    return z


class _Known:
    """Evaluations in the order of the first requests; those of an earlier run come first."""

    def __init__(self, problem: PenalizedLoss, state: State | None) -> None:
        self._problem = problem
        self._values: dict[bytes, LossValue] = {}
        self._stored: dict[bytes, LossValue] = {}
        for z, total, prior, numbers, gradient, pull in zip(*(state[name] for name in _KNOWN), strict=True) if state else ():
            self._stored[z.tobytes()] = LossValue(float(total), float(prior), numbers, gradient, pull)

    @property
    def n_used(self) -> int:
        """Number of evaluations requested in this run."""
        return len(self._values)

    def at(self, z: FloatArray) -> LossValue:
        """Return the objective at z, evaluating it if it is not known."""
        key = z.tobytes()
        if key not in self._values:
            self._values[key] = self._stored.get(key) or self._problem(z.copy())
        return self._values[key]

    def state(self) -> State:
        """Return all that are known."""
        everything = {**self._stored, **self._values}
        zs = np.array([np.frombuffer(key) for key in everything])
        columns = [[getattr(value, name) for value in everything.values()] for name in _KNOWN[1:]]
        return dict(zip(_KNOWN, [zs, *(np.array(column) for column in columns)], strict=True))


_KNOWN = ("z", "total", "prior", "numbers", "gradient", "pull")


def levenberg_marquardt(
    problem: PenalizedLoss, z: FloatArray, params: Gradient, state: State | None, report: EpochReport
) -> FloatArray:
    """Minimize by damped Gauss-Newton steps; an epoch is a step that is tried. Arguments as of `adam`."""
    damping, growth, done = 1e-3, 2.0, 0
    if state is not None:
        z, damping, growth, done = state["z"], float(state["damping"]), float(state["growth"]), int(state["epoch"])
        if bool(state["settled"]):
            return z
    value, curvature = problem(z), problem.curvature(z)
    for epoch in range(done, params.epochs):
        change = _step(problem, z, value, curvature, damping)
        new = problem.within(z + change)
        there = problem(new)
        predicted = -float(value.gradient @ change + change @ curvature @ change)
        gain = (value.total - there.total) / predicted if predicted > 0.0 else 0.0
        settled = predicted <= params.tolerance * value.total
        if gain > 0.0:
            settled = settled or value.total - there.total <= params.tolerance * value.total
            freed = problem.coefficients.freed(new, there.gradient, there.pull)
            settled = settled and np.array_equal(freed, new)
            z, value, growth = freed, (there if np.array_equal(freed, new) else problem(freed)), 2.0
            curvature = problem.curvature(z)
            damping *= max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
        else:
            damping, growth = damping * growth, 2.0 * growth
        settled = settled or damping > _LARGEST_DAMPING
        now = {"z": z, "damping": damping, "growth": growth, "epoch": epoch + 1, "settled": settled}
        norm = float(np.linalg.norm(value.gradient))
        if (
            report(
                EpochStep(
                    epoch + 1, z, value.numbers, value.prior, norm, 0.0, {name: np.array(part) for name, part in now.items()}
                )
            )
            or settled
        ):
            break
    return z


def _step(problem: PenalizedLoss, z: FloatArray, value: LossValue, curvature: FloatArray, damping: float) -> FloatArray:
    """Minimize gᵀd + dᵀ(C + damping diag C)d within the box."""
    diagonal = np.diag(curvature)
    # The length of a spring of no strength has no curvature; nor has it a gradient, so any number will do.
    floor = np.maximum(diagonal, 1e-12 * diagonal.max(initial=0.0))
    damped = 2.0 * (curvature + np.diag(floor - diagonal + damping * floor))
    return minimize_in_box(damped, value.gradient, problem.coefficients.lower - z, problem.coefficients.upper - z)


def minimize_in_box(hessian: FloatArray, gradient: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Minimize gᵀd + ½ dᵀHd in a box that holds 0, by projected Newton steps (Bertsekas, SIAM J. Control Optim. 20, 221, 1982).

    Variables that the gradient pushes towards a bound nearby take steps along it, the others Newton steps: with all but those at their
    bound among the latter, steps can become arbitrarily short before the optimum.

    Args:
        hessian: H, positive semidefinite with a diagonal above 0, shape (n, n).
        gradient: g, shape (n,).
        lower: of d, shape (n,).
        upper: of d, shape (n,).

    Returns:
        d, shape (n,); where rounding ends the iteration before the optimum, a point below the start all the same.
    """
    scale = 1.0 / np.sqrt(np.diag(hessian))
    h, g = hessian * np.outer(scale, scale) + _RIDGE * np.eye(len(gradient)), gradient * scale
    low, high = lower / scale, upper / scale
    d, slope = np.zeros(len(g)), g

    def value(d: FloatArray) -> float:
        return float(d @ (g + 0.5 * (h @ d)))

    best = 0.0
    for _ in range(_MAX_BOX_STEPS):
        near = min(_NEAR_BOUND, float(np.linalg.norm(d - np.clip(d - slope, low, high))))
        free = np.flatnonzero(~(((d <= low + near) & (slope > 0.0)) | ((d >= high - near) & (slope < 0.0))))
        step = -slope
        step[free] = -scipy.linalg.cho_solve(scipy.linalg.cho_factor(h[np.ix_(free, free)]), slope[free])
        length = 1.0
        while length > 1e-10 and not value(np.clip(d + length * step, low, high)) < best:
            length *= 0.5
        if length <= 1e-10:
            break
        d = np.clip(d + length * step, low, high)
        drop, best = best - value(d), value(d)
        slope = g + h @ d
        if drop <= 1e-12 * abs(best):
            break
    return np.clip(d * scale, lower, upper)


OPTIMIZERS = {"adam": adam, "lbfgs": lbfgs, "lm": levenberg_marquardt}
