"""Groups of trained parameters: valence terms, van der Waals parameters, charges. `coefficients` says what they mean.

Each has a `pattern`, the coefficient and the parameter of every derivative, and `evaluate`, which returns the coefficients and those
derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.nonbonded import PairIndex
from pesfit.smirnoff.parameters import Layout, bounds_of, matching


class Valence:
    """k, q₀ and torsions.

    Args:
        layout: which they are.
        with_constants: whether m²/(2k) are coefficients too.

    Attributes:
        width, lower, upper: prior widths in the columns' units, and bounds of z; shape (n,).
        prior_width: prior widths of the vector x of `Layout`, shape (n,).
        shifts: which entries are q₀, shape (n_shifts,).
    """

    def __init__(self, layout: Layout, *, with_constants: bool) -> None:
        n = len(layout)
        columns = [layout.column(i) for i in range(n)]
        self.width = np.array([column.prior_width for column in columns])
        self.prior_width = layout.prior().widths
        start = np.where(layout.is_shift, layout.minimum, layout.k)
        low, high = (
            np.array([bounds_of(column, value) for column, value in zip(columns, start, strict=True)]).reshape(n, 2).T.copy()
        )
        self.shifts, partners = np.flatnonzero(layout.is_shift), layout.partners()
        partner = partners[self.shifts]
        self._moving = partner >= 0  # springs whose k is trained too
        self._partner = partner[self._moving]
        low[self._partner] = np.maximum(low[self._partner], 0.0)
        self.lower, self.upper = np.minimum((low - start) / self.width, 0.0), np.maximum((high - start) / self.width, 0.0)
        self.with_constants = with_constants
        self._k = layout.k
        plain, moved = np.flatnonzero(~layout.is_shift), self.shifts[self._moving]
        rows, entries = [plain, self.shifts, moved], [plain, self.shifts, self._partner]
        if with_constants:
            constants = n + np.arange(len(self.shifts))
            rows, entries = [*rows, constants, constants[self._moving]], [*entries, self.shifts, self._partner]
        self.pattern = np.concatenate(rows), np.concatenate(entries)
        self.n_parameters, self.n_coefficients = n, n + with_constants * len(self.shifts)

    def springs(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return k and q₀ - c of the harmonics whose q₀ is trained."""
        k = self._k[self.shifts].copy()
        k[self._moving] += (z * self.width)[self._partner]
        return k, (z * self.width)[self.shifts]

    def evaluate(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients, and their derivatives in the order of `pattern`."""
        k, q = self.springs(z)
        x = z * self.width
        x[self.shifts] = k * q
        width, of_k = self.width[self.shifts], self.width[self._partner]
        plain = np.delete(self.width, self.shifts)
        slopes = [plain, k * width, of_k * q[self._moving]]
        if not self.with_constants:
            return x, np.concatenate(slopes)
        return np.append(x, 0.5 * k * q**2), np.concatenate([*slopes, k * q * width, 0.5 * of_k * q[self._moving] ** 2])

    def freed(self, z: FloatArray, slope: FloatArray, pull: FloatArray) -> FloatArray:
        """See `Coefficients.freed`."""
        of_k = np.full(len(self.shifts), -1)
        of_k[self._moving] = self._partner
        k, _ = self.springs(z)
        idle = np.flatnonzero((of_k >= 0) & (k <= 1e-12) & (pull != 0.0))
        entry = self.shifts[idle]
        end = np.where(pull[idle] > 0.0, self.lower[entry], self.upper[entry])
        better = slope[of_k[idle]] / self.width[of_k[idle]] + pull[idle] * self.width[entry] * (end - z[entry]) < 0.0
        moved = z.copy()
        moved[entry[better & np.isfinite(end)]] = end[better & np.isfinite(end)]
        return moved


class VdW:
    """ε and σ of the types that are in use and have both above 0.

    Args:
        force_field: the starting force field.
        params: what is trained.

    Attributes:
        rows: of the table, those whose ε and those whose σ is trained.
        width, upper: prior widths of the logarithms, and largest z; shape (n,).
        pairs: numbers of pairs of types.
    """

    def __init__(self, force_field: ForceField, params: Gradient) -> None:
        table = force_field.tables["vdW"]
        wanted = matching(table, params.vdw.include, params.vdw.exclude, "fit_smirnoff.gradient.vdw") & (table.uses > 0)
        wanted &= (table.values > 0.0).all(axis=1)
        self.rows: list[LongArray] = []
        n_types = len(table.smirks)
        widths: list[float] = []
        bounds: list[float] = []
        self._entry = np.full((2, n_types), -1, dtype=np.int64)
        for number, column in enumerate((params.vdw.epsilon, params.vdw.sigma)):
            rows = np.flatnonzero(wanted) if column.train else np.zeros(0, dtype=np.int64)
            self._entry[number, rows] = len(widths) + np.arange(len(rows))
            self.rows.append(rows)
            widths += [column.prior_width] * len(rows)
            bounds += [np.log(column.largest_factor) / column.prior_width] * len(rows)
        self.width, self.upper = np.array(widths, dtype=np.float64), np.array(bounds, dtype=np.float64)
        self.pairs = PairIndex(np.asarray((self._entry >= 0).any(axis=0), dtype=np.int64))
        self._sigma = table.values[:, 1]
        ends = (self.pairs.first, self.pairs.second)
        self._sums = self._sigma[ends[0]] + self._sigma[ends[1]]
        self._sums = np.where(self._sums > 0.0, self._sums, 1.0)
        self._slots = []  # for ε and σ, first and second type: which pairs, and the entry of z
        for number in range(2):
            for types in ends:
                used = np.flatnonzero(self._entry[number, types] >= 0)
                self._slots.append((used, types[used], self._entry[number, types[used]]))
        n = len(self.pairs)
        entries = np.concatenate([entry for _, _, entry in self._slots])
        rows = np.concatenate([used for used, _, _ in self._slots])
        self.pattern = np.concatenate([rows, rows + n]), np.tile(entries, 2)
        self.n_parameters, self.n_coefficients = len(self.width), 2 * n

    def factors(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return by how much ε and σ of each type are multiplied, shapes (n_types,)."""
        found = np.ones((2, self._entry.shape[1]))
        used = self._entry >= 0
        found[used] = np.exp((z * self.width)[self._entry[used]])
        return found[0], found[1]

    def evaluate(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients, and their derivatives in the order of `pattern`."""
        of_epsilon, of_sigma = self.factors(z)
        first, second = self.pairs.first, self.pairs.second
        depth = np.sqrt(of_epsilon[first] * of_epsilon[second])
        sigma = of_sigma * self._sigma
        growth = (sigma[first] + sigma[second]) / self._sums
        values, slopes = [], []
        for power in (12, 6):
            value = depth * growth**power
            values.append(value - 1.0)
            for number, (used, types, entry) in enumerate(self._slots):
                share = 0.5 if number < 2 else power * sigma[types] / (self._sums[used] * growth[used])
                slopes.append(value[used] * share * self.width[entry])
        return np.concatenate(values), np.concatenate(slopes)


class Charges:
    """Changes of charges.

    Args:
        classes: of the atoms of each topology, by its number.
        params: what is trained.

    Attributes:
        width, bound: prior width [e], and largest z.
        first: number of each topology's first z, and of its first coefficient.
    """

    def __init__(self, classes: Mapping[int, LongArray], params: Gradient) -> None:
        self.width, self.bound = params.charges.prior_width, params.charges.largest_change / params.charges.prior_width
        self.first: dict[int, tuple[int, int]] = {}
        counts, products, values, starts = [], [], [], []
        n = n_coefficients = 0
        for topology, of_atoms in classes.items():
            count = np.bincount(of_atoms)
            self.first[topology] = (n, n_coefficients)
            pairs = np.stack(np.triu_indices(len(count))) + n
            starts.append(n)
            values.append(n_coefficients + np.arange(len(count)))
            products.append(np.vstack([n_coefficients + len(count) + np.arange(pairs.shape[1]), pairs]))
            counts.append(count)
            n, n_coefficients = n + len(count), n_coefficients + len(count) + pairs.shape[1]
        nothing = np.zeros(0, dtype=np.int64)
        self._starts, self._sizes = np.array(starts, dtype=np.int64), np.array([len(c) for c in counts], dtype=np.int64)
        self._counts = np.concatenate(counts or [nothing]).astype(np.float64)
        self._values = np.concatenate(values or [nothing])
        numbered: LongArray = np.concatenate(products, axis=1) if products else np.zeros((3, 0), dtype=np.int64)
        self._products, self._first, self._second = numbered
        each = np.arange(n)
        self.pattern = (
            np.concatenate([self._values, self._products, self._products]),
            np.concatenate([each, self._first, self._second]),
        )
        self.n_parameters, self.n_coefficients = n, n_coefficients

    def changes(self, z: FloatArray) -> FloatArray:
        """Return d."""
        if not len(z):
            return z
        totals = np.add.reduceat(self._counts, self._starts)
        excess = np.add.reduceat(self._counts * z, self._starts) / totals
        return self.width * (z - np.repeat(excess, self._sizes))

    def pulled(self, gradient: FloatArray) -> FloatArray:
        """Return the gradient by z from that by d."""
        if not len(gradient):
            return gradient
        totals = np.add.reduceat(self._counts, self._starts)
        shared = np.add.reduceat(gradient, self._starts) / totals
        return self.width * (gradient - self._counts * np.repeat(shared, self._sizes))

    def matrix(self) -> scipy.sparse.csr_array:
        """Return ∂d/∂z."""
        blocks = []
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            counts = self._counts[start : start + size]
            blocks.append(self.width * (np.eye(size) - counts / counts.sum()))
        if not blocks:
            return scipy.sparse.csr_array((0, 0))
        return scipy.sparse.csr_array(scipy.sparse.block_diag(blocks))

    def evaluate(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients, and their derivatives in the order of `pattern`."""
        d = self.changes(z)
        values = np.zeros(self.n_coefficients)
        values[self._values], values[self._products] = d, d[self._first] * d[self._second]
        return values, np.concatenate([np.ones(len(d)), d[self._second], d[self._first]])
