"""Global optimum of a convex quadratic under linear inequalities.

    minimize  ½ xᵀHx - fᵀx   subject to   Cx ≥ d                       (Nocedal & Wright, Numerical Optimization, 2nd ed., ch. 16)

| symbol | variable |
| --- | --- |
| H | `hessian`, positive semidefinite |
| f | `linear` |
| C, d | `constraints.matrix`, `constraints.lower` |
| s | slacks Cx - d, s ≥ 0 |
| y | multipliers of the constraints, y ≥ 0 |

A primal-dual interior-point method with Mehrotra's predictor and corrector (section 16.6) finds which constraints are active; a solve
on their face makes the answer exact to rounding. Where H is singular, steps are regularized but residuals are not, so that an optimum
is reached all the same, near the start in the directions that the objective does not see.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.core.exceptions import PesfitError

_RIDGE = 1e-12
"""Added to the diagonal of H, which is scaled to 1, in the matrix of a step."""
_MAX_STEPS = 200
_MAX_POLISH = 5
_CONVERGED = 1e-12
_DIVERGED = 1e20
"""Multipliers as large as this, relative to f: no point is feasible."""
_ROUNDING = 1e-17
"""A gap as small as this, relative to f, is rounding."""
_REFINEMENTS = 2
_DEPENDENT = 1e-10
"""Singular values of unit rows up to this belong to rows that depend on others."""
_KKT_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Constraints:
    """Cx ≥ d.

    Attributes:
        matrix: C, shape (n_constraints, n).
        lower: d, shape (n_constraints,).
    """

    matrix: FloatArray
    lower: FloatArray

    @classmethod
    def box(cls, lower: FloatArray, upper: FloatArray) -> Constraints:
        """Bounds lower ≤ x ≤ upper, infinite where there is none; shapes (n,)."""
        unit = np.eye(len(lower))
        below, above = np.isfinite(lower), np.isfinite(upper)
        return cls(np.vstack([unit[below], -unit[above]]), np.concatenate([lower[below], -upper[above]]))

    @classmethod
    def none(cls, n: int) -> Constraints:
        """No constraint at all."""
        return cls(np.zeros((0, n)), np.zeros(0))


@dataclass(frozen=True)
class KKT:
    """How well the conditions of optimality hold (Nocedal & Wright, theorem 16.4); all are 0 at an exact optimum.

    Attributes:
        stationarity: largest |Hx - f - Cᵀy|, after scaling H to a unit diagonal, relative to the largest term in it.
        infeasibility: largest violation of a constraint, after scaling, relative to 1 + |d|.
        complementarity: largest |y (Cx - d)|, relative to the scale of the objective.
        negativity: -y of the most negative multiplier, 0 if there is none; relative to the largest.
    """

    stationarity: float
    infeasibility: float
    complementarity: float
    negativity: float

    @property
    def worst(self) -> float:
        """The largest of the four."""
        return max(self.stationarity, self.infeasibility, self.complementarity, self.negativity)


@dataclass(frozen=True)
class Optimum:
    """Where the minimum is.

    Attributes:
        x: shape (n,).
        multipliers: y, shape (n_constraints,).
        active: the constraints that hold with equality and push, shape (n_constraints,).
        kkt: the check of optimality.
    """

    x: FloatArray
    multipliers: FloatArray
    active: BoolArray
    kkt: KKT


def minimize(hessian: FloatArray, linear: FloatArray, constraints: Constraints, start: FloatArray | None = None) -> Optimum:
    """Find the global optimum and check that it is one.

    Args:
        hessian: H, shape (n, n).
        linear: f, shape (n,).
        constraints: C and d; they must leave a point that meets all of them with room to spare.
        start: shape (n,); zeros where None.

    Raises:
        PesfitError: where the conditions of optimality do not hold to 1e-7, as when no point is feasible.
    """
    diagonal = np.diag(hessian)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    rows = constraints.matrix * scale
    norms = np.linalg.norm(rows, axis=1)
    norms[norms == 0.0] = 1.0
    problem = _Scaled(hessian * np.outer(scale, scale), linear * scale, rows / norms[:, None], constraints.lower / norms)
    x, y, active = _interior_point(problem, np.zeros(len(linear)) if start is None else start / scale)
    kkt = _check(problem, x, y)
    for _ in range(_MAX_POLISH):
        polished = _on_face(problem, x, active)
        checked = _check(problem, *polished)
        if checked.worst > 0.5 * kkt.worst:
            break
        (x, y), kkt = polished, checked
    if kkt.worst > _KKT_TOLERANCE:
        raise PesfitError(
            f"the bounded solve did not reach an optimum: its conditions hold to {kkt.worst:.1e}, {_KKT_TOLERANCE:g} is needed; "
            "look for bounds that exclude each other, or for parameters of absurd size"
        )
    return Optimum(x * scale, y / norms, active, kkt)


@dataclass(frozen=True)
class _Scaled:
    """The problem with a unit diagonal of H and rows of C of unit length."""

    h: FloatArray
    f: FloatArray
    c: FloatArray
    d: FloatArray


def _interior_point(problem: _Scaled, x: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return x, y, and which constraints are active."""
    h, f, d = problem.h, problem.f, problem.d
    c, ct = scipy.sparse.csr_array(problem.c), scipy.sparse.csr_array(problem.c.T)
    size = max(1.0, float(np.abs(f).max(initial=0.0)))
    s, y = np.maximum(c @ x - d, 1.0), np.full(len(d), size)
    best = (np.inf, x, s, y)
    for _ in range(_MAX_STEPS):
        dual, primal, gap = h @ x - f - ct @ y, c @ x - s - d, float(s @ y) / max(len(d), 1)
        largest = y.max(initial=0.0) / size
        residual = max(np.abs(dual).max(initial=0.0), np.abs(primal).max(initial=0.0)) / size
        error = max(residual, gap / size)
        best = min(best, (error, x, s, y), key=operator.itemgetter(0))
        # Where the gap is below rounding, steps do not converge further; the polish does.
        if error < _CONVERGED or gap / size < _ROUNDING or largest > _DIVERGED:
            break
        solved_by = _factorised(h + (ct @ scipy.sparse.diags_array(y / s) @ c).toarray())

        def step(complement: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
            dx = solved_by(ct @ ((-complement - y * primal) / s) - dual)  # noqa: B023
            ds = c @ dx + primal  # noqa: B023
            return dx, ds, (-complement - y * ds) / s  # noqa: B023

        _, ds, dy = step(s * y)
        alpha = min(_longest(s, ds), _longest(y, dy))
        centering = (float((s + alpha * ds) @ (y + alpha * dy)) / max(len(d), 1) / gap) ** 3 if gap > 0.0 else 0.0
        dx, ds, dy = step(s * y + ds * dy - centering * gap)
        alpha = min(1.0, 0.995 * min(_longest(s, ds), _longest(y, dy)))
        x, s, y = x + alpha * dx, s + alpha * ds, y + alpha * dy
    _, x, s, y = best
    active = y > s
    return x, np.where(active, y, 0.0), active


def _factorised(matrix: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return a solver of linear systems with a positive semidefinite matrix, such as one whose barrier terms dominate near the optimum."""
    diagonal = np.diag(matrix)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    scaled = matrix * np.outer(scale, scale)
    ridge = _RIDGE
    while True:
        try:
            factor = scipy.linalg.cho_factor(scaled + ridge * np.eye(len(scale)))
            break
        except scipy.linalg.LinAlgError:
            ridge *= 100.0  # a step that is less exact; refinement and the polish at the end are what count
            if ridge > 1.0:
                raise

    def solve(vector: FloatArray) -> FloatArray:
        right = scale * vector
        solution = scipy.linalg.cho_solve(factor, right)
        for _ in range(_REFINEMENTS):
            solution = solution + scipy.linalg.cho_solve(factor, right - scaled @ solution)
        return np.asarray(scale * solution)

    return solve


def _longest(value: FloatArray, change: FloatArray) -> float:
    """Return the longest step, at most 1/0.995, that keeps all values at or above zero."""
    falling = change < 0.0
    return min(1.0 / 0.995, float(np.min(-value[falling] / change[falling], initial=np.inf)))


def _on_face(problem: _Scaled, x: FloatArray, active: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Take a Newton step to the minimum on the face of the active constraints, by the null-space method (section 16.2)."""
    rows = problem.c[active]
    y = np.zeros(len(problem.d))
    # At a corner where k = 0, its bounds and those of q₀ coincide: rows may be linearly dependent.
    _, singular, right = scipy.linalg.svd(rows) if len(rows) else (None, np.zeros(0), np.eye(len(x)))
    null_space = right[np.count_nonzero(singular > _DEPENDENT) :].T
    if len(rows):
        x = x + np.linalg.lstsq(rows, problem.d[active] - rows @ x)[0]
    if null_space.shape[1]:
        solve = _factorised(null_space.T @ problem.h @ null_space)
        x = x + null_space @ solve(null_space.T @ (problem.f - problem.h @ x))
    if len(rows):
        y[active] = scipy.optimize.nnls(rows.T, problem.h @ x - problem.f)[0]
    return x, y


def _check(problem: _Scaled, x: FloatArray, y: FloatArray) -> KKT:
    h, f, c, d = problem.h, problem.f, problem.c, problem.d
    gradient, pull = h @ x, c.T @ y
    terms = (np.abs(gradient).max(initial=0.0), np.abs(f).max(initial=0.0), np.abs(pull).max(initial=0.0), 1e-300)
    slack = c @ x - d
    objective = max(abs(float(x @ gradient)), abs(float(f @ x)), 1e-300)
    return KKT(
        stationarity=float(np.abs(gradient - f - pull).max(initial=0.0) / max(terms)),
        infeasibility=float(np.max(-slack / (1.0 + np.abs(d)), initial=0.0)),
        complementarity=float(np.abs(y * slack).max(initial=0.0) / objective),
        negativity=float(max(0.0, -y.min(initial=0.0)) / max(np.abs(y).max(initial=0.0), 1e-300)),
    )
