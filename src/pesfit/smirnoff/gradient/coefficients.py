"""From trained parameters to the coefficients in which energies and forces are linear.

What is trained is the vector z: each parameter's change from its starting value, in prior widths w, within a box.

    parameter                      coefficients (all 0 at the start)
    k of harmonics and torsions    w z
    q₀ of a harmonic               m = k (q₀ - c) = k w z, c the starting q₀; without energy zero also m²/(2k) = ½ k (w z)²
    ln ε, ln σ of a vdW type t     A_tu/A⁰_tu - 1 = √(f_t f_u) ρ¹² - 1 and B_tu/B⁰_tu - 1 = √(f_t f_u) ρ⁶ - 1, f = exp(w z) of ε,
                                   ρ = (g_t σ_t⁰ + g_u σ_u⁰)/(σ_t⁰ + σ_u⁰), g = exp(w z) of σ
    charge of a class p            d_p = w (z_p - Σ n_r z_r / N), n_r atoms of N in the class r; and products d_p d_p'

`parameters.Layout` says why the first two are so, and `nonbonded` the others; `coefficient_parts` has the formulas. The sum of n d is
0, so the total charge stays.

The box in (k, q₀) is that of the exact fit, and for k > 0 every minimum in it is a minimum of the convex problem in (k, m). A spring
that reaches k = 0 has any q₀; `Coefficients.freed` puts it where k would first grow again, without which descent could end there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import ParamsError
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.coefficient_parts import Charges, Valence, VdW
from pesfit.smirnoff.gradient.nonbonded import Numbering
from pesfit.smirnoff.parameters import Layout


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
        params: what else is trained.
        classes: classes of equivalent atoms of each topology whose charges are trained, by its number.
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
        classes: Mapping[int, LongArray],
        *,
        with_constants: bool,
    ) -> None:
        self.layout, self._force_field, self._classes = layout, force_field, classes
        self._valence = Valence(layout, with_constants=with_constants)
        self._vdw, self._charges = VdW(force_field, params), Charges(classes, params)
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
    def _parts(self) -> tuple[Valence | VdW | Charges, ...]:
        return self._valence, self._vdw, self._charges

    @property
    def constants_at(self) -> int | None:
        """Number of the first of the constants m²/(2k), in the order of `shifts`; None where they do not count."""
        return len(self.layout) if self._valence.with_constants else None

    def numbering(self, topology: int) -> Numbering:
        """Say where the nonbonded coefficients of a topology are."""
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
        scaled, rest = point.values[:n] / self._valence.prior_width, point.z[n:]
        by_coefficient = np.zeros(self.n_coefficients)
        by_coefficient[:n] = 2.0 * scaled / self._valence.prior_width
        gradient = self.pulled(point, by_coefficient)
        gradient[n:] += 2.0 * rest
        return float(scaled @ scaled + rest @ rest), gradient

    def prior_curvature(self, point: Point) -> FloatArray:
        """Return half the Gauss-Newton Hessian of the prior, shape (n_parameters, n_parameters)."""
        n = len(self.layout)
        scaled = (point.slopes[:n] / self._valence.prior_width[:, None]).toarray()
        curvature = scaled.T @ scaled
        rest = np.arange(n, self.n_parameters)
        curvature[rest, rest] += 1.0
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

    def charge_changes(self, z: FloatArray, topology: int) -> FloatArray | None:
        """Return the change of each atom's charge, [e], shape (n_atoms,); None where charges of the topology are not trained."""
        found = self._charges.first.get(topology)
        if found is None:
            return None
        return np.asarray(self._charges.changes(z[self._z_at[2] :])[found[0] + self._classes[topology]])


def check_trained(params: Gradient, n_parameters: int) -> None:
    """Refuse what an optimizer cannot do.

    Raises:
        ParamsError: where Levenberg-Marquardt has more parameters than a matrix of them may have.
    """
    if params.optimizer == "lm" and n_parameters > 3000:
        raise ParamsError(
            f"fit_smirnoff.gradient.optimizer = lm with {n_parameters} parameters: expected at most 3000; use lbfgs or adam"
        )
