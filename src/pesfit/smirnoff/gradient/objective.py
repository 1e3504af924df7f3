"""Residuals of energies and forces as sparse linear functions of the coefficients, and the losses over them.

    e = target - M c                  loss = Σ w_E ρ_E(|e_E - offset|) + Σ w_F ρ_F(|e_F|)         ∂loss/∂c = -2 Mᵀ (w ω e)

c are the coefficients (`coefficients.Coefficients`), and the force on an atom counts as one residual, whose length does not depend on how
a molecule is turned. M has a number only where a coefficient acts on an atom: a twentieth of it.

With e the length of a residual, and δ where squares end (Huber, Ann. Math. Stat. 35, 73, 1964),

    ρ(e) = f e²                e ≤ δ
         = f (2 δ e - δ²)      e > δ

    loss      δ               f
    l2        infinite        1
    huber     params.yaml     1
    l1        0.001           1/(2 δ), so that ρ(e) = e - δ/2 but for the smallest e

ρ is minimized as weighted squares (iteratively reweighted least squares): ρ'(e) = 2 e ω(e), ω = f min(1, δ/e).

Energies of a molecule have no zero. The offset that suits a loss is the one that minimizes it: the mean for squares, about the median
for l1. It does not enter the gradient, which at a minimum does not depend on the offset to first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.params.fit_smirnoff import Loss
from pesfit.smirnoff.exact.molecule_statistics import EnergyZero

_L1_DELTA = 1e-3
_MAX_STEPS = 200


@dataclass(frozen=True)
class LossFunction:
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


def losses(params: Loss) -> tuple[LossFunction, LossFunction]:
    """Return the losses of energies and of forces."""
    if params.kind == "huber":
        return LossFunction(params.energy_delta, 1.0), LossFunction(params.force_delta, 1.0)
    if params.kind == "l1":
        return LossFunction(_L1_DELTA, 0.5 / _L1_DELTA), LossFunction(_L1_DELTA, 0.5 / _L1_DELTA)
    return LossFunction(math.inf, 1.0), LossFunction(math.inf, 1.0)


def centers(rho: LossFunction, errors: FloatArray, weights: FloatArray, starts: LongArray, sizes: LongArray) -> FloatArray:
    """Return for each molecule the offset c that minimizes Σ w ρ(|e - c|).

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
    low, high, center = np.where(total > 0.0, low, 0.0), np.where(total > 0.0, high, 0.0), mean
    for _ in range(_MAX_STEPS):
        away = errors - np.repeat(center, sizes)
        pull = np.add.reduceat(weights * np.clip(away, -rho.delta, rho.delta), starts)
        slope = np.add.reduceat(weights * (np.abs(away) <= rho.delta), starts)
        low, high = np.where(pull >= 0.0, center, low), np.where(pull <= 0.0, center, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = center + pull / slope
        inside = (slope > 0.0) & (newton >= low) & (newton <= high)
        new = np.where(pull == 0.0, center, np.where(inside, newton, 0.5 * (low + high)))
        settled = np.abs(new - center) <= 1e-14 * (np.abs(center) + 1.0)
        center = new
        if settled.all():
            break
    return center


@dataclass(frozen=True)
class MoleculeResiduals:
    """The conformers of one molecule that are in one split.

    Attributes:
        molecule, source, split: names.
        columns: the coefficients it has, ascending, shape (n_local,).
        energy: features of energies, shape (n_conformers, n_local).
        energy_target: [kcal/mol], shape (n_conformers,).
        energy_weights: w_E of the loss, shape (n_conformers,).
        labels: [kcal/mol], shape (n_conformers,); the lowest of weight above 0 may be the zero.
        forces: features of forces, atom by atom of some conformers, shape (3 n_vectors, n_local).
        force_target: [kcal/mol/Å], shape (3 n_vectors,).
        force_weights: w_F of the loss, shape (n_vectors,).
    """

    molecule: str
    source: str
    split: str
    columns: LongArray
    energy: scipy.sparse.csr_array
    energy_target: FloatArray
    energy_weights: FloatArray
    labels: FloatArray
    forces: scipy.sparse.csr_array
    force_target: FloatArray
    force_weights: FloatArray

    @property
    def n_bytes(self) -> int:
        """Memory taken, about."""
        return int(12 * (self.energy.nnz + self.forces.nnz) + 28 * len(self.force_target))


@dataclass(frozen=True)
class LossTerms:
    """Losses of errors, and the zero of energies.

    Attributes:
        energy, forces: losses.
        zero: of energies.
    """

    energy: LossFunction
    forces: LossFunction
    zero: EnergyZero


class ResidualBlock:
    """Some molecules, evaluated at once.

    Args:
        parts: at least one.

    Attributes:
        n_bytes: memory taken, about.
        n_energies, n_components: errors of weight above 0 of energies, and of components of forces.
    """

    def __init__(self, parts: Sequence[MoleculeResiduals]) -> None:
        self._names = [part.molecule for part in parts]
        self.columns = np.unique(np.concatenate([part.columns for part in parts]))
        matrices = [part.energy for part in parts] + [part.forces for part in parts]
        columns = [np.searchsorted(self.columns, part.columns).astype(np.int32) for part in parts] * 2
        indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(matrix.indptr) for matrix in matrices]))])
        indices = [local[matrix.indices] for local, matrix in zip(columns, matrices, strict=True)]
        self._matrix = scipy.sparse.csr_array(
            (np.concatenate([m.data for m in matrices]), np.concatenate(indices), indptr.astype(np.int32)),
            shape=(len(indptr) - 1, len(self.columns)),
        )
        self._transposed = self._matrix.T
        self._target = np.concatenate([*(part.energy_target for part in parts), *(part.force_target for part in parts)])
        self._energy_weights = np.concatenate([part.energy_weights for part in parts])
        self._force_weights = np.concatenate([part.force_weights for part in parts])
        self._sizes = np.array([len(part.labels) for part in parts], dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._vectors = np.array([len(part.force_weights) for part in parts], dtype=np.int64)
        lowest = [int(np.argmin(np.where(part.energy_weights > 0.0, part.labels, np.inf))) for part in parts]
        self._lowest = self._starts + np.array(lowest, dtype=np.int64)
        self._counting_energies = (self._energy_weights > 0.0).astype(np.float64)
        self._counting_forces = (self._force_weights > 0.0).astype(np.float64)
        self.n_energies, self.n_components = int(self._counting_energies.sum()), 3 * int(self._counting_forces.sum())
        self.n_bytes = 12 * self._matrix.nnz + 60 * len(self._target)

    def evaluate(self, values: FloatArray, terms: LossTerms) -> tuple[FloatArray, FloatArray]:
        """Evaluate the loss and its gradient.

        Args:
            values: of all coefficients, shape (n_coefficients,).
            terms: losses of errors.

        Returns:
            Loss of energies, loss of forces, Σ (ΔE)² and Σ |ΔF|², the squares over errors of weight above 0, shape (4,); and the
            gradient of the loss by the block's own `columns`, shape (n_local,).

        Raises:
            DataError: where the loss is not finite; names molecule and conformer.
        """
        numbers, weighted = self._weighted(values, terms)
        return numbers, -2.0 * (self._transposed @ weighted)

    def numbers(self, values: FloatArray, terms: LossTerms) -> FloatArray:
        """Return the first part of the result of `evaluate`."""
        return self._weighted(values, terms)[0]

    def _errors(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        errors = self._target - self._matrix @ values[self.columns]
        n = len(self._energy_weights)
        return errors[:n], errors[n:].reshape(-1, 3)

    def _centered(self, energy: FloatArray, terms: LossTerms) -> FloatArray:
        if terms.zero == "none":
            return energy
        if terms.zero == "min":
            return np.asarray(energy - np.repeat(energy[self._lowest], self._sizes))
        offsets = centers(terms.energy, energy, self._energy_weights, self._starts, self._sizes)
        return energy - np.repeat(offsets, self._sizes)

    def _weighted(self, values: FloatArray, terms: LossTerms) -> tuple[FloatArray, FloatArray]:
        """Return the numbers of `evaluate`, and w ω e of all errors."""
        energy, forces = self._errors(values)
        energy = self._centered(energy, terms)
        squares = np.einsum("ij,ij->i", forces, forces)
        if terms.energy.is_square and terms.forces.is_square:
            energy_loss, force_loss = self._energy_weights @ (energy * energy), self._force_weights @ squares
            of_energy, of_forces = self._energy_weights, self._force_weights
        else:
            lengths, norms = np.abs(energy), np.sqrt(squares)
            energy_loss = self._energy_weights @ terms.energy.values(lengths)
            force_loss = self._force_weights @ terms.forces.values(norms)
            of_energy = self._energy_weights * terms.energy.weights(lengths)
            of_forces = self._force_weights * terms.forces.weights(norms)
        numbers = np.array(
            [
                energy_loss,
                force_loss,
                self._counting_energies @ (energy * energy),
                self._counting_forces @ squares,
            ]
        )
        if not np.isfinite(numbers).all():
            self._blame(energy, squares)
        pull = of_energy * energy
        if terms.zero == "min":
            pull[self._lowest] -= np.add.reduceat(pull, self._starts)
        return numbers, np.concatenate([pull, (of_forces[:, None] * forces).ravel()])

    def _blame(self, energy: FloatArray, squares: FloatArray) -> None:
        ends = np.cumsum(self._sizes)
        bad = np.flatnonzero(~np.isfinite(energy))
        if len(bad):
            molecule = int(np.searchsorted(ends, bad[0], side="right"))
            raise DataError(
                f"{self._names[molecule]}: the energy error of conformer {bad[0] - self._starts[molecule]} is not finite"
            )
        vector = int(np.flatnonzero(~np.isfinite(squares))[0]) if not np.isfinite(squares).all() else 0
        molecule = int(np.searchsorted(np.cumsum(self._vectors), vector, side="right"))
        raise DataError(f"{self._names[molecule]}: an error of its forces is not finite")

    def normal_matrix(self, values: FloatArray, slopes: scipy.sparse.csr_array, terms: LossTerms) -> FloatArray:
        """Return Σ w ω JᵀJ, J the derivatives of the errors by the parameters: half the Gauss-Newton Hessian of the loss.

        Args:
            values: of all coefficients, shape (n_coefficients,).
            slopes: ∂(coefficients)/∂(parameters), shape (n_coefficients, n_parameters).
            terms: losses of errors.

        Returns:
            Shape (n_parameters, n_parameters).
        """
        energy, forces = self._errors(values)
        energy = self._centered(energy, terms)
        w_energy = self._energy_weights * terms.energy.weights(np.abs(energy))
        w_forces = self._force_weights * terms.forces.weights(np.sqrt(np.einsum("ij,ij->i", forces, forces)))
        local = scipy.sparse.csr_array(slopes[self.columns])
        used = np.unique(local.indices)
        local = local[:, used]
        n = len(energy)
        pulls = scipy.sparse.csr_array(self._matrix[n:] @ local)
        inner = (pulls.T @ (scipy.sparse.diags_array(np.repeat(w_forces, 3)) @ pulls)).toarray()
        rows = (self._matrix[:n] @ local).toarray()
        if terms.zero == "min":
            rows = rows - np.repeat(rows[self._lowest], self._sizes, axis=0)
        elif terms.zero == "mean":
            total = np.add.reduceat(w_energy, self._starts)
            mean = np.add.reduceat(w_energy[:, None] * rows, self._starts) / np.where(total > 0.0, total, 1.0)[:, None]
            rows = rows - np.repeat(mean, self._sizes, axis=0)
        inner += rows.T @ (w_energy[:, None] * rows)
        result = np.zeros((slopes.shape[1], slopes.shape[1]))
        result[np.ix_(used, used)] = inner
        return result

    def error_sums(self, values: FloatArray) -> FloatArray:
        """Return mean of ΔE, Σ (ΔE - mean)² and Σ |ΔF|² of each molecule, all conformers alike, shape (n_molecules, 3)."""
        energy, forces = self._errors(values)
        mean = np.add.reduceat(energy, self._starts) / self._sizes
        of_energy = np.add.reduceat((energy - np.repeat(mean, self._sizes)) ** 2, self._starts)
        squares, result = np.einsum("ij,ij->i", forces, forces), np.zeros((len(self._sizes), 3))
        result[:, 0], result[:, 1] = mean, of_energy
        ends = np.cumsum(self._vectors)
        for molecule, (start, end) in enumerate(zip(ends - self._vectors, ends, strict=True)):
            result[molecule, 2] = squares[start:end].sum()
        return result
