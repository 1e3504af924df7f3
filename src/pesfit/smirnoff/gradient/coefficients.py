"""From trained parameters to the coefficients in which energies and forces are linear.

The trained vector z holds each parameter's change from its starting value, in prior widths w, within a box.

    parameter                      coefficients (all 0 at the start)
    k of harmonics and torsions    w z
    q₀ of a harmonic               m = k (q₀ - c) = k w z, c the starting q₀; without energy zero also m²/(2k) = ½ k (w z)²
    ln ε, ln σ of a vdW type t     A_tu/A⁰_tu - 1 = √(f_t f_u) ρ¹² - 1 and B_tu/B⁰_tu - 1 = √(f_t f_u) ρ⁶ - 1, f = exp(w z) of ε,
                                   ρ = (g_t σ_t⁰ + g_u σ_u⁰)/(σ_t⁰ + σ_u⁰), g = exp(w z) of σ
    charge of a class p            d_p = w (z_p - Σ n_r z_r / N), n_r atoms of N in the class r; and products d_p d_p'

`parameters.Layout` derives the first two, and `preparation` the others. The sum of n d is 0, so the total charge stays.

The box in (k, q₀) is that of the exact fit, and for k > 0 every minimum in it is a minimum of the convex problem in (k, m). A spring
that reaches k = 0 has any q₀; `Coefficients.freed` puts it where k would first grow again, without which an optimizer could end there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import ParamsError
from pesfit.data.topology import ForceField, Topology
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.parameters import Layout, bounds_of, matching


class PairIndex:
    """Numbers of the coefficients of pairs of types.

    Args:
        trained: whether ε or σ of a type is trained, shape (n_types,).

    Attributes:
        first, second: types of each pair of which at least one is trained, shape (n_pairs,).
    """

    def __init__(self, trained: FloatArray | LongArray) -> None:
        mask = np.asarray(trained, dtype=bool)
        first, second = np.triu_indices(len(mask))
        kept = mask[first] | mask[second]
        self.first, self.second = first[kept], second[kept]
        self._number = np.full((len(mask), len(mask)), -1, dtype=np.int64)
        self._number[self.first, self.second] = np.arange(len(self.first))

    def __len__(self) -> int:
        return len(self.first)

    def numbers(self, first: LongArray, second: LongArray) -> LongArray:
        """Return the number of each pair of types, in either order; -1 where neither is trained."""
        return np.asarray(self._number[np.minimum(first, second), np.maximum(first, second)])


def equivalence_classes(topology: Topology) -> LongArray:
    """Sort the atoms of a molecule into classes that its bond graph cannot distinguish.

    Color refinement (Weisfeiler, Leman, Nauchno-Tech. Inf. 2(9), 12, 1968) from the atoms' van der Waals types.

    Returns:
        Class of each atom, numbered by first appearance, shape (n_atoms,).
    """
    neighbors: list[list[int]] = [[] for _ in range(topology.n_atoms)]
    for i, j in topology.connectivity.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    colors = _numbered([(int(row),) for row in topology.vdw_parameters])
    for _ in range(topology.n_atoms):
        refined = _numbered([(color, *sorted(colors[n] for n in near)) for color, near in zip(colors, neighbors, strict=True)])
        if max(refined) == max(colors):
            break
        colors = refined
    return np.array(colors, dtype=np.int64)


def _numbered(keys: list[tuple[int, ...]]) -> list[int]:
    seen: dict[tuple[int, ...], int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


class ValenceCoefficients:
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


class VdWCoefficients:
    """ε and σ of the types that are in use and have both above 0.

    Args:
        force_field: the starting force field.
        params: which parameters, priors and bounds.

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


@dataclass(frozen=True)
class TrainedCharges:
    """Charges that are trained, and trained together.

    Attributes:
        classes: classes of equivalent atoms of each topology whose charges are trained, by its number; each of shape (n_atoms,).
        shared: topologies of a molecule that an earlier one is of, too, with that one's number; their classes are the same.
    """

    classes: Mapping[int, LongArray] = field(default_factory=dict)
    shared: Mapping[int, int] = field(default_factory=dict)


class ChargeCoefficients:
    """Changes of charges.

    Args:
        charges: which are trained together.
        params: prior and bounds.

    Attributes:
        width, bound: prior width [e], and largest z.
        first: number of each topology's first z, and of its first coefficient.
    """

    def __init__(self, charges: TrainedCharges, params: Gradient) -> None:
        self.width, self.bound = params.charges.prior_width, params.charges.largest_change / params.charges.prior_width
        self.first: dict[int, tuple[int, int]] = {}
        counts, products, values, starts = [], [], [], []
        n = n_coefficients = 0
        for topology, of_atoms in charges.classes.items():
            if topology in charges.shared:
                self.first[topology] = self.first[charges.shared[topology]]
                continue
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


@dataclass(frozen=True)
class Numbering:
    """Numbers of the coefficients of a molecule.

    Attributes:
        pairs: of types; None where van der Waals parameters are not trained.
        repulsion: number of the first A; those of B follow all of A.
        classes: of atoms, shape (n_atoms,); None where charges are not trained.
        charges: number of the molecule's first d; its products follow all of its d, p ≤ p' in lexical order.
    """

    pairs: PairIndex | None
    repulsion: int
    classes: LongArray | None
    charges: int


@dataclass(frozen=True)
class Point:
    """Coefficients at a z.

    Attributes:
        z: shape (n,).
        values: the coefficients, shape (n_coefficients,).
        slopes: their derivatives by z, but for charges by d; shape (n_coefficients, n).
    """

    z: FloatArray
    values: FloatArray
    slopes: scipy.sparse.csr_array


class Coefficients:
    """The map from z to coefficients.

    Args:
        layout: of the valence parameters.
        force_field: the starting force field.
        params: of van der Waals parameters and charges.
        charges: which of them are trained together.
        with_constants: whether energies have no zero, so that m²/(2k) counts.

    Attributes:
        n_parameters: length of z.
        n_coefficients: number of coefficients.
        lower, upper: the box that z is in, shape (n_parameters,).
        shifts: entries of z that are q₀, shape (n_shifts,).
    """

    def __init__(
        self,
        layout: Layout,
        force_field: ForceField,
        params: Gradient,
        charges: TrainedCharges,
        *,
        with_constants: bool,
    ) -> None:
        self.layout, self._force_field, self._classes = layout, force_field, charges.classes
        self._valence = ValenceCoefficients(layout, with_constants=with_constants)
        self._vdw, self._charges = VdWCoefficients(force_field, params), ChargeCoefficients(charges, params)
        parts = self._parts
        self._z_at = np.cumsum([0, *(part.n_parameters for part in parts)])
        self._c_at = np.cumsum([0, *(part.n_coefficients for part in parts)])
        self.n_parameters, self.n_coefficients = int(self._z_at[-1]), int(self._c_at[-1])
        rows = np.concatenate([part.pattern[0] + at for part, at in zip(parts, self._c_at[:-1], strict=True)])
        entries = np.concatenate([part.pattern[1] + at for part, at in zip(parts, self._z_at[:-1], strict=True)])
        self._order = np.argsort(rows, kind="stable")
        self._indices = entries[self._order].astype(np.int32)
        self._indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.n_coefficients))]).astype(np.int32)
        wide = np.full(self._charges.n_parameters, self._charges.bound)
        self.lower = np.concatenate([self._valence.lower, -self._vdw.upper, -wide])
        self.upper = np.concatenate([self._valence.upper, self._vdw.upper, wide])
        self.shifts = self._valence.shifts

    @property
    def _parts(self) -> tuple[ValenceCoefficients | VdWCoefficients | ChargeCoefficients, ...]:
        return self._valence, self._vdw, self._charges

    @property
    def constants_at(self) -> int | None:
        """Number of the first of the constants m²/(2k), in the order of `shifts`; None where they do not count."""
        return len(self.layout) if self._valence.with_constants else None

    def numbering(self, topology: int) -> Numbering:
        """Return the numbers of the nonbonded coefficients of a topology."""
        first = self._charges.first.get(topology)
        return Numbering(
            pairs=self._vdw.pairs if len(self._vdw.pairs) else None,
            repulsion=int(self._c_at[1]),
            classes=None if first is None else self._classes[topology],
            charges=0 if first is None else int(self._c_at[2]) + first[1],
        )

    def at(self, z: FloatArray) -> Point:
        """Evaluate the coefficients.

        Args:
            z: shape (n_parameters,).
        """
        pieces = np.split(z, self._z_at[1:-1])
        found = [part.evaluate(piece) for part, piece in zip(self._parts, pieces, strict=True)]
        data = np.concatenate([slopes for _, slopes in found])[self._order]
        shape = (self.n_coefficients, self.n_parameters)
        return Point(
            z,
            np.concatenate([values for values, _ in found]),
            scipy.sparse.csr_array((data, self._indices, self._indptr), shape),
        )

    def pulled(self, point: Point, gradient: FloatArray) -> FloatArray:
        """Return the gradient by z from that by the coefficients, shape (n_coefficients,)."""
        result = point.slopes.T @ gradient
        result[self._z_at[2] :] = self._charges.pulled(result[self._z_at[2] :])
        return np.asarray(result)

    def jacobian(self, point: Point) -> scipy.sparse.csr_array:
        """Return the derivatives of the coefficients by z, shape (n_coefficients, n_parameters)."""
        if not self._charges.n_parameters:
            return point.slopes
        plain = scipy.sparse.eye_array(int(self._z_at[2]))
        return scipy.sparse.csr_array(point.slopes @ scipy.sparse.block_diag([plain, self._charges.matrix()], format="csr"))

    def prior(self, point: Point) -> tuple[float, FloatArray]:
        """Return the sum of squares that the prior adds for each unit of its strength, and its gradient by z."""
        n = len(self.layout)
        scaled, others = point.values[:n] / self._valence.prior_width, point.z[n:]
        by_coefficient = np.zeros(self.n_coefficients)
        by_coefficient[:n] = 2.0 * scaled / self._valence.prior_width
        gradient = self.pulled(point, by_coefficient)
        gradient[n:] += 2.0 * others
        return float(scaled @ scaled + others @ others), gradient

    def prior_curvature(self, point: Point) -> FloatArray:
        """Return half the Gauss-Newton Hessian of the prior, shape (n_parameters, n_parameters)."""
        n = len(self.layout)
        scaled = (point.slopes[:n] / self._valence.prior_width[:, None]).toarray()
        curvature = scaled.T @ scaled
        others = np.arange(n, self.n_parameters)
        curvature[others, others] += 1.0
        return np.asarray(curvature)

    def freed(self, z: FloatArray, gradient: FloatArray, pull: FloatArray) -> FloatArray:
        """Move q₀ of springs of no strength to the bound at which k would grow again, if there is one.

        Args:
            z: shape (n_parameters,).
            gradient: of the objective by z, shape (n_parameters,).
            pull: of the objective by m, shape (n_shifts,).
        """
        n = len(self.layout)
        return np.concatenate([self._valence.freed(z[:n], gradient[:n], pull), z[n:]])

    def from_valence(self, x: FloatArray) -> FloatArray:
        """Return the z of a vector of `Layout`, shape (n,)."""
        z = np.zeros(self.n_parameters)
        n = len(self.layout)
        z[:n] = x / self._valence.width
        z[self.shifts] = 0.0
        k, _ = self._valence.springs(z[:n])
        firm = k > 1e-9
        z[self.shifts[firm]] = x[self.shifts[firm]] / (k[firm] * self._valence.width[self.shifts[firm]])
        return np.clip(z, self.lower, self.upper)

    def force_field(self, z: FloatArray) -> ForceField:
        """Return the force field that z stands for, without charges."""
        fitted = self.layout.apply(self._force_field, self.at(z).values[: len(self.layout)])
        table = fitted.tables["vdW"]
        values = table.values * np.stack(self._vdw.factors(z[self._z_at[1] : self._z_at[2]]), axis=1)
        return replace(fitted, tables={**fitted.tables, "vdW": replace(table, values=values)})

    def charge_changes(self, z: FloatArray, topology: int) -> FloatArray:
        """Return the change of each atom's charge, [e], of a topology whose charges are trained, shape (n_atoms,)."""
        first, _ = self._charges.first[topology]
        return np.asarray(self._charges.changes(z[self._z_at[2] :])[first + self._classes[topology]])


def check_trained(params: Gradient, n_parameters: int) -> None:
    """Check that the optimizer can handle the number of parameters.

    Raises:
        ParamsError: where Levenberg-Marquardt has more parameters than a matrix of them may have.
    """
    if params.optimizer == "lm" and n_parameters > 3000:
        raise ParamsError(
            f"fit_smirnoff.gradient.optimizer = lm with {n_parameters} parameters: expected at most 3000; use lbfgs or adam"
        )
