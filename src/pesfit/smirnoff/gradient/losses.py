"""Losses of errors, and the centre of errors that belongs to each.

With e the length of an error (of one energy, or of the force on one atom), and δ where squares end (Huber, Ann. Math. Stat. 35, 73, 1964),

    ρ(e) = f e²                e ≤ δ
         = f (2 δ e - δ²)      e > δ

    loss      δ               f
    l2        infinite        1
    huber     params.yaml     1
    l1        0.001           1/(2 δ), so that ρ(e) = e - δ/2 but for the smallest e

ρ is minimised as weighted squares (iteratively reweighted least squares): ρ'(e) = 2 e ω(e), ω = f min(1, δ/e).

Energies of a molecule have no zero. The offset that suits a loss is the one that minimises it: the mean for squares, about the median
for l1. It costs nothing in the gradient, which at a minimum does not depend on the offset to first order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.params.fit_smirnoff import Loss

_L1_DELTA = 1e-3
_MAX_STEPS = 200


@dataclass(frozen=True)
class Rho:
    """A loss.

    Attributes:
        delta: δ, in the unit of the error.
        factor: f.
    """

    delta: float
    factor: float

    @property
    def is_square(self) -> bool:
        """Whether it is the plain square."""
        return math.isinf(self.delta)

    def values(self, lengths: FloatArray) -> FloatArray:
        """Return ρ(e).

        Args:
            lengths: e, at least 0.
        """
        inner = np.minimum(lengths, self.delta)
        return np.asarray(self.factor * inner * (2.0 * lengths - inner))

    def weights(self, lengths: FloatArray) -> FloatArray:
        """Return ω(e), of the shape of `lengths`."""
        if self.is_square:
            return np.full_like(lengths, self.factor)
        return np.asarray(self.factor * (self.delta / np.maximum(lengths, self.delta)))


def losses(params: Loss) -> tuple[Rho, Rho]:
    """Return the losses of energies and of forces."""
    if params.kind == "huber":
        return Rho(params.energy_delta, 1.0), Rho(params.force_delta, 1.0)
    if params.kind == "l1":
        return Rho(_L1_DELTA, 0.5 / _L1_DELTA), Rho(_L1_DELTA, 0.5 / _L1_DELTA)
    return Rho(math.inf, 1.0), Rho(math.inf, 1.0)


def centres(rho: Rho, errors: FloatArray, weights: FloatArray, starts: LongArray, sizes: LongArray) -> FloatArray:
    """Return for each molecule the offset c that minimises Σ w ρ(|e - c|).

    Newton's method on the derivative, which rises piecewise linearly, with bisection where a step would leave the bracket.

    Args:
        rho: the loss.
        errors: of all molecules' conformers, shape (n,).
        weights: w, at least 0, shape (n,).
        starts: where each molecule begins, shape (n_molecules,).
        sizes: how many conformers it has, at least 1, shape (n_molecules,).

    Returns:
        Shape (n_molecules,); 0 where all weights are 0.
    """
    total = np.add.reduceat(weights, starts)
    safe = np.where(total > 0.0, total, 1.0)
    mean = np.asarray(np.add.reduceat(weights * errors, starts) / safe)
    if rho.is_square or not np.isfinite(errors).all():
        return mean
    counting = weights > 0.0
    low = np.minimum.reduceat(np.where(counting, errors, np.inf), starts)
    high = np.maximum.reduceat(np.where(counting, errors, -np.inf), starts)
    low, high, centre = np.where(total > 0.0, low, 0.0), np.where(total > 0.0, high, 0.0), mean
    for _ in range(_MAX_STEPS):
        away = errors - np.repeat(centre, sizes)
        pull = np.add.reduceat(weights * np.clip(away, -rho.delta, rho.delta), starts)
        slope = np.add.reduceat(weights * (np.abs(away) <= rho.delta), starts)
        low, high = np.where(pull >= 0.0, centre, low), np.where(pull <= 0.0, centre, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = centre + pull / slope
        inside = (slope > 0.0) & (newton >= low) & (newton <= high)
        new = np.where(pull == 0.0, centre, np.where(inside, newton, 0.5 * (low + high)))
        settled = np.abs(new - centre) <= 1e-14 * (np.abs(centre) + 1.0)
        centre = new
        if settled.all():
            break
    return centre
