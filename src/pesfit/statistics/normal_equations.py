"""Sufficient statistics of linear least squares: what a pass over the data leaves behind.

The model is y = Φx with rows φ, targets y and row weights w. All that a quadratic objective needs to know of the data is

    A = Σ w φφᵀ        gram
    b = Σ w φ y        moment
    c = Σ w y²         square

because Σ w (y - φᵀx)² = c - 2bᵀx + xᵀAx for every x. Statistics of disjoint rows add, so workers build theirs apart. Kinds of
rows (energies, forces, ...) are kept apart, so that their relative weights can still be chosen afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.linalg

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import DataError

ENERGIES, FORCES = "energies", "forces"
"""Kinds of rows that every fit has; fits of force fields add more."""
_FORMAT_VERSION = 2


@dataclass(frozen=True)
class Moments:
    """Statistics of rows of one kind.

    Attributes:
        gram: A, shape (n_parameters, n_parameters), symmetric.
        moment: b, shape (n_parameters,).
        square: c.
        n_rows: number of independent rows: centering n energies leaves n - 1, and correlated rows count less than one each.
        log_weight: Σ log w over the rows; only the evidence needs it.
    """

    gram: FloatArray
    moment: FloatArray
    square: float
    n_rows: float
    log_weight: float = 0.0

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return len(self.moment)

    @classmethod
    def zeros(cls, n_parameters: int) -> Moments:
        """Statistics of no rows."""
        return cls(np.zeros((n_parameters, n_parameters)), np.zeros(n_parameters), 0.0, 0.0)

    @classmethod
    def from_rows(cls, features: FloatArray, targets: FloatArray, weights: FloatArray | None = None) -> Moments:
        """Accumulate rows.

        Args:
            features: Φ, shape (n_rows, n_parameters).
            targets: y, shape (n_rows,).
            weights: w, positive, shape (n_rows,); 1 where None.
        """
        log_weight = 0.0
        if weights is not None:
            root = np.sqrt(weights)
            features, targets = features * root[:, None], targets * root
            log_weight = float(np.log(weights).sum())
        return cls(features.T @ features, features.T @ targets, float(targets @ targets), len(targets), log_weight)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram,
            self.moment + other.moment,
            self.square + other.square,
            self.n_rows + other.n_rows,
            self.log_weight + other.log_weight,
        )

    def scaled(self, weight: float) -> Moments:
        """Return the statistics of the same rows with every weight times `weight` (rows of weight 0 do not count)."""
        if weight == 0.0:
            return Moments.zeros(self.n_parameters)
        return Moments(
            weight * self.gram,
            weight * self.moment,
            weight * self.square,
            self.n_rows,
            self.log_weight + self.n_rows * math.log(weight),
        )

    def correlated(self, rows_per_independent_row: float) -> Moments:
        """Return the same sums, but as of fewer independent rows: only noise variance and evidence notice.

        Args:
            rows_per_independent_row: how many rows count as one independent row, at least 1.
        """
        return replace(
            self, n_rows=self.n_rows / rows_per_independent_row, log_weight=self.log_weight / rows_per_independent_row
        )

    def with_random_effects(self, widths: FloatArray) -> Moments:
        """Return the statistics of rows whose parameters are not x but x + δ, with δ ~ N(0, diag(widths²) σ²) integrated out.

        Rows of one group (a molecule) then inform x no better than the spread of groups allows (Laird & Ware, Biometrics 38, 963, 1982):
        with T = diag(widths²) the Gram matrix A becomes (A⁻¹ + T)⁻¹. The logarithm of the determinant that goes with it is in `log_weight`.

        Args:
            widths: standard deviations of δ at σ² = 1, shape (n_parameters,).
        """
        scaled = widths[:, None] * self.gram
        factor = scipy.linalg.cho_factor(np.eye(len(widths)) + scaled * widths, lower=True)
        pulled = widths * self.moment
        gram = self.gram - scaled.T @ scipy.linalg.cho_solve(factor, scaled)
        return replace(
            self,
            gram=0.5 * (gram + gram.T),
            moment=self.moment - scaled.T @ scipy.linalg.cho_solve(factor, pulled),
            square=self.square - float(pulled @ scipy.linalg.cho_solve(factor, pulled)),
            log_weight=self.log_weight - 2.0 * float(np.log(np.diag(factor[0])).sum()),
        )

    def add_at(self, columns: LongArray, part: Moments) -> Moments:
        """Add, in place in this one's arrays, statistics over some of the parameters.

        Args:
            columns: which parameters of this one those of `part` are, without repetition, shape (part.n_parameters,).
            part: what to add.

        Returns:
            The sum; it shares the arrays of this one, which must not be used any more.
        """
        self.gram[np.ix_(columns, columns)] += part.gram
        self.moment[columns] += part.moment
        return replace(
            self,
            square=self.square + part.square,
            n_rows=self.n_rows + part.n_rows,
            log_weight=self.log_weight + part.log_weight,
        )

    def transformed(self, matrix: FloatArray, origin: FloatArray) -> Moments:
        """Return the statistics over u where x = origin + matrix u.

        Args:
            matrix: shape (n_parameters, n_new).
            origin: shape (n_parameters,).
        """
        pull = self.gram @ origin
        return replace(
            self,
            gram=matrix.T @ self.gram @ matrix,
            moment=matrix.T @ (self.moment - pull),
            square=self.square - 2.0 * float(self.moment @ origin) + float(origin @ pull),
        )

    def sum_of_squares(self, x: FloatArray) -> float:
        """Return Σ w (y - φᵀx)², never below zero.

        Rounding leaves an error of about 1e-16 times `square`: take targets relative to the starting point, so that this is small.

        Args:
            x: shape (n_parameters,).
        """
        return max(0.0, self.square + float(x @ (self.gram @ x - 2.0 * self.moment)))


class NormalEquations(Mapping[str, Moments]):
    """Statistics of rows by kind, all over the same parameters.

    Args:
        kinds: at least one; their order is that in which they are summed.
    """

    def __init__(self, kinds: Mapping[str, Moments]) -> None:
        self._kinds = dict(kinds)

    def __getitem__(self, kind: str) -> Moments:
        return self._kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return next(iter(self.values())).n_parameters

    @property
    def n_rows(self) -> float:
        """Number of independent rows of all kinds."""
        return sum(moments.n_rows for moments in self.values())

    @classmethod
    def zeros(cls, n_parameters: int, kinds: Iterable[str] = (ENERGIES, FORCES)) -> NormalEquations:
        """Statistics of no rows."""
        return cls({kind: Moments.zeros(n_parameters) for kind in kinds})

    def __add__(self, other: Mapping[str, Moments]) -> NormalEquations:
        return NormalEquations(
            {**self} | {kind: self[kind] + moments if kind in self else moments for kind, moments in other.items()}
        )

    def weighted(self, weights: Mapping[str, float]) -> Moments:
        """Return the statistics of the objective Σ weight * (sum of squares of a kind); each kind needs a weight."""
        result = Moments.zeros(self.n_parameters)
        for kind, moments in self.items():
            result = result + moments.scaled(weights[kind])
        return result

    def transformed(self, matrix: FloatArray, origin: FloatArray) -> NormalEquations:
        """Return the statistics over u where x = origin + matrix u (`Moments.transformed`)."""
        return NormalEquations({kind: moments.transformed(matrix, origin) for kind, moments in self.items()})

    def sums_of_squares(self, x: FloatArray) -> dict[str, float]:
        """Return Σ w (y - φᵀx)² of each kind."""
        return {kind: moments.sum_of_squares(x) for kind, moments in self.items()}


def total(parts: Iterable[NormalEquations], n_parameters: int) -> NormalEquations:
    """Sum in the order given, which fixes the last bit of the result."""
    result = NormalEquations.zeros(n_parameters)
    for part in parts:
        result = result + part
    return result


def save(path: Path, equations: Mapping[str, NormalEquations]) -> None:
    """Write named normal equations to one uncompressed npz; the same equations give the same bytes."""
    arrays: dict[str, np.ndarray] = {
        "format_version": np.array(_FORMAT_VERSION),
        "names": np.array(list(equations), dtype=np.str_),
    }
    for i, parts in enumerate(equations.values()):
        arrays[f"{i}.kinds"] = np.array(list(parts), dtype=np.str_)
        for kind, moments in parts.items():
            arrays[f"{i}.{kind}.gram"] = moments.gram
            arrays[f"{i}.{kind}.moment"] = moments.moment
            arrays[f"{i}.{kind}.scalars"] = np.array([moments.square, moments.n_rows, moments.log_weight])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> dict[str, NormalEquations]:
    """Read what `save` wrote.

    Raises:
        DataError: where the file is not one of these, or of another format version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            version = int(file["format_version"])
            if version != _FORMAT_VERSION:
                raise DataError(f"{path} has format version {version}; this version reads {_FORMAT_VERSION}")
            return {str(name): _read(file, i) for i, name in enumerate(file["names"])}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read as normal equations: {error}") from error


def _read(file: Mapping[str, np.ndarray], i: int) -> NormalEquations:
    def moments(kind: str) -> Moments:
        square, n_rows, log_weight = file[f"{i}.{kind}.scalars"].tolist()
        return Moments(file[f"{i}.{kind}.gram"], file[f"{i}.{kind}.moment"], square, n_rows, log_weight)

    return NormalEquations({kind: moments(kind) for kind in file[f"{i}.kinds"].tolist()})
