"""The trained parameters, as one vector in which the energy is linear.

A harmonic ½ k (q - q₀)² is linear in k and m = k (q₀ - c), where c is the starting value of q₀:

    ½ k (q - q₀)² = k ½ (q - c)² - m (q - c) + m²/(2k)

and the last term is the same for all conformers, so it drops out of forces and of energies relative to one another. The bounds
lower ≤ q₀ ≤ upper and k ≥ lower are linear in (k, m) too: m - k (lower - c) ≥ 0 and k (upper - c) - m ≥ 0; they are the two springs at
fixed ends `lower` and `upper`, with force constants that must not be negative. The trained vector x holds k - (starting k) and m, so
that x = 0 is the starting force field, and its prior is diagonal: widths σ(k), and k σ(q₀).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray, IntArray, LongArray
from pesfit.core.exceptions import ParamsError
from pesfit.data.topology import BONDED_HANDLERS, ForceField, ParameterTable, Topology
from pesfit.params.fit_smirnoff import Train, TrainedColumn, TrainedHandler
from pesfit.potentials.internal_coordinates import STRAIGHT
from pesfit.statistics.linear_gaussian import GaussianPrior
from pesfit.statistics.quadratic import Constraints

SECTIONS = {
    "Bonds": "bonds",
    "Angles": "angles",
    "ProperTorsions": "proper_torsions",
    "ImproperTorsions": "improper_torsions",
}
MINIMUM = {"Bonds": "length", "Angles": "angle"}
"""Name of the column that holds q₀."""
FILE_COLUMNS = (
    "handler",
    "id",
    "smirks",
    "periodicity",
    "column",
    "unit",
    "before",
    "after",
    "standard_error",
    "prior_width",
    "uses",
    "determined",
    "at_bound",
)
"""Columns of `parameters.csv`."""
_STARTING_VALUE_TOLERANCE = 1e-9
_BOUND_TOLERANCE = 1e-8
_PERIODICITY, _IDIVF = 1, 3


@dataclass(frozen=True)
class Layout:
    """Meaning of the trained vector x.

    Attributes:
        handler: index in `BONDED_HANDLERS`, shape (n,).
        row: row of the handler's table, shape (n,).
        is_shift: whether the entry is m rather than the change of k, shape (n,).
        k: [unit of the table] starting k of the row, shape (n,).
        minimum: [unit of the table] starting q₀ of the row, 0 for torsions; shape (n,).
        train: the parameters it was made from.
    """

    handler: LongArray
    row: LongArray
    is_shift: BoolArray
    k: FloatArray
    minimum: FloatArray
    train: Train

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, force_field: ForceField, train: Train) -> Layout:
        """List the chosen parameters that at least one molecule uses, handler by handler in the table's order.

        Raises:
            ParamsError: where nothing is chosen, a pattern fits no parameter, or a starting value is out of its bounds.
        """
        layout = cls._listed(force_field, train, used=True)
        if not len(layout):
            raise ParamsError(
                "fit_smirnoff.train: nothing is trained; set `train: true` for a column of parameters that molecules use"
            )
        for i in range(len(layout)):
            table = force_field.tables[BONDED_HANDLERS[layout.handler[i]]]
            _check_start(table, int(layout.row[i]), table.columns[int(layout.is_shift[i])], layout.column(i))
        return layout

    @classmethod
    def unused(cls, force_field: ForceField, train: Train) -> Layout:
        """List the chosen parameters that no molecule uses; their bounds are not checked, since nothing is fitted."""
        return cls._listed(force_field, train, used=False)

    @classmethod
    def _listed(cls, force_field: ForceField, train: Train, *, used: bool) -> Layout:
        entries: list[tuple[int, int, bool, float, float]] = []
        for index, handler in enumerate(BONDED_HANDLERS):
            table, section = force_field.tables[handler], getattr(train, SECTIONS[handler])
            shifts = handler in MINIMUM and getattr(section, MINIMUM[handler]).train
            for row in np.flatnonzero(chosen(table, section) & ((table.uses > 0) == used)).tolist():
                k = float(table.values[row, 0])
                minimum = float(table.values[row, 1]) if handler in MINIMUM else 0.0
                moves = shifts and (section.k.train or k > 0.0) and not (handler == "Angles" and minimum > STRAIGHT)
                kinds = [False] * section.k.train + [True] * moves
                entries += [(index, row, is_shift, k, minimum) for is_shift in kinds]
        columns = [[entry[i] for entry in entries] for i in range(5)]
        return cls(
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=np.int64),
            np.array(columns[2], dtype=bool),
            np.array(columns[3], dtype=np.float64),
            np.array(columns[4], dtype=np.float64),
            train,
        )

    def column(self, entry: int) -> TrainedColumn:
        """Return the parameters (bounds, width) of an entry of x."""
        handler = BONDED_HANDLERS[self.handler[entry]]
        section = getattr(self.train, SECTIONS[handler])
        column: TrainedColumn = getattr(section, MINIMUM[handler] if self.is_shift[entry] else "k")
        return column

    def index(self, table: ParameterTable, *, shift: bool) -> LongArray:
        """Return where the k, or the m, of each row of a table is in x, -1 where it is not trained; shape (n_parameters,)."""
        found = np.full(len(table.smirks), -1, dtype=np.int64)
        mine = (self.handler == BONDED_HANDLERS.index(table.handler)) & (self.is_shift == shift)
        found[self.row[mine]] = np.flatnonzero(mine)
        return found

    def names(self, force_field: ForceField, which: BoolArray) -> list[str]:
        """Name some entries of x for people, such as `Bonds b3 length`; `which` has shape (n,)."""
        names = []
        for i in np.flatnonzero(which):
            table = force_field.tables[BONDED_HANDLERS[self.handler[i]]]
            row = self.row[i]
            fold = f"{int(table.mult[row]) + 1}" if "periodicity" in table.columns else ""
            column = table.columns[1] if self.is_shift[i] else table.columns[0]
            names.append(f"{table.handler} {table.ids[row] or table.smirks[row]} {column}{fold}")
        return names

    def partners(self) -> LongArray:
        """Return for each m the entry of the same row's k, -1 where k is not trained, and for k; shape (n,)."""
        of_k = {
            (int(h), int(r)): i for i, (h, r, s) in enumerate(zip(self.handler, self.row, self.is_shift, strict=True)) if not s
        }
        return np.array(
            [
                of_k.get((int(h), int(r)), -1) if s else -1
                for h, r, s in zip(self.handler, self.row, self.is_shift, strict=True)
            ],
            dtype=np.int64,
        )

    def prior(self) -> GaussianPrior:
        """Return the prior: mean 0, and the widths that params.yaml gives."""
        widths = np.array([self.column(i).prior_width for i in range(len(self))])
        k_widths = np.array([getattr(self.train, SECTIONS[BONDED_HANDLERS[h]]).k.prior_width for h in self.handler])
        return GaussianPrior(np.zeros(len(self)), np.where(self.is_shift, np.maximum(self.k, 0.01 * k_widths) * widths, widths))

    def value_widths(self, fitted: ForceField) -> FloatArray:
        """Return prior widths of the values rather than of x, [unit of the table], shape (n,).

        The prior of a shift is one of m = k (q₀ - c), so a spring that became weaker leaves q₀ more room.
        """
        widths = self.prior().widths
        for i in np.flatnonzero(self.is_shift).tolist():
            k = float(fitted.tables[BONDED_HANDLERS[self.handler[i]]].values[self.row[i], 0])
            widths[i] = widths[i] / k if k > 0.0 else self.column(i).prior_width
        return widths

    def at_bounds(self, fitted: ForceField) -> BoolArray:
        """Return whether each value lies on one of its bounds, shape (n,)."""
        found = np.zeros(len(self), dtype=bool)
        for i in range(len(self)):
            value = fitted.tables[BONDED_HANDLERS[self.handler[i]]].values[self.row[i], int(self.is_shift[i])]
            bounds = np.array(bounds_of(self.column(i), float(self.minimum[i] if self.is_shift[i] else self.k[i])))
            found[i] = np.isclose(value, bounds[np.isfinite(bounds)], rtol=_BOUND_TOLERANCE, atol=_BOUND_TOLERANCE).any()
        return found

    def constraints(self) -> Constraints:
        """Return the bounds as inequalities in x."""
        rows: list[dict[int, float]] = []
        lower: list[float] = []
        for i, partner in enumerate(self.partners().tolist()):
            column, k, minimum = self.column(i), float(self.k[i]), float(self.minimum[i])
            for bound, sign in zip(bounds_of(column, minimum if self.is_shift[i] else k), (1.0, -1.0), strict=True):
                if np.isinf(bound):
                    continue
                if not self.is_shift[i]:  # ± (k + x) ≥ ± bound
                    rows.append({i: sign})
                    lower.append(sign * (bound - k))
                else:  # ± (m - (k + x) (bound - c)) ≥ 0
                    rows.append({i: sign} if partner < 0 else {i: sign, partner: -sign * (bound - minimum)})
                    lower.append(sign * k * (bound - minimum))
        matrix = np.zeros((len(rows), len(self)))
        for number, row in enumerate(rows):
            matrix[number, list(row)] = list(row.values())
        return Constraints(matrix, np.array(lower))

    def apply(self, force_field: ForceField, x: FloatArray) -> ForceField:
        """Return the force field with the parameters that x stands for; values that rounding left out of bounds are put on them."""
        tables = {name: replace(table, values=table.values.copy()) for name, table in force_field.tables.items()}
        for i in np.flatnonzero(~self.is_shift).tolist():
            tables[BONDED_HANDLERS[self.handler[i]]].values[self.row[i], 0] = _clipped(x[i], self.k[i], self.column(i))
        for i in np.flatnonzero(self.is_shift).tolist():
            values = tables[BONDED_HANDLERS[self.handler[i]]].values[self.row[i]]
            if values[0] > 1e-9 * max(1.0, self.k[i]):  # a spring of no strength has no length; it keeps its old one
                values[1] = _clipped(x[i] / values[0], self.minimum[i], self.column(i))
        return replace(force_field, tables=tables)

    def standard_errors(self, force_field: ForceField, x: FloatArray, covariance: FloatArray) -> dict[str, FloatArray]:
        """Return standard errors of the tables' values, by first-order propagation; NaN where a value is not trained.

        Args:
            force_field: of which the tables' shapes are taken.
            x: shape (n,).
            covariance: of x, shape (n, n).

        Returns:
            For each handler of `BONDED_HANDLERS` an array of the shape of its table's values.
        """
        errors = {name: np.full(force_field.tables[name].values.shape, np.nan) for name in BONDED_HANDLERS}
        for i, partner in enumerate(self.partners().tolist()):
            gradient = np.zeros(len(self))
            gradient[i] = 1.0
            if self.is_shift[i]:  # q₀ = c + m/k
                k = self.k[i] + (x[partner] if partner >= 0 else 0.0)
                if k <= 1e-9 * max(1.0, self.k[i]):
                    continue
                gradient[i] = 1.0 / k
                if partner >= 0:
                    gradient[partner] = -x[i] / k**2
            used = np.flatnonzero(gradient)
            variance = gradient[used] @ covariance[np.ix_(used, used)] @ gradient[used]
            column = 1 if self.is_shift[i] else 0
            errors[BONDED_HANDLERS[self.handler[i]]][self.row[i], column] = np.sqrt(max(float(variance), 0.0))
        return errors


def chosen(table: ParameterTable, section: TrainedHandler) -> BoolArray:
    """Return whether `include` and `exclude` choose each row of a table, shape (n_parameters,).

    Raises:
        ParamsError: where a pattern other than `*` fits no parameter.
    """
    return matching(table, section.include, section.exclude, f"fit_smirnoff.train.{SECTIONS[table.handler]}")


def matching(table: ParameterTable, include: tuple[str, ...], exclude: tuple[str, ...], section: str) -> BoolArray:
    """Return whether some patterns include, and others do not exclude, each row of a table, shape (n_parameters,).

    Raises:
        ParamsError: where a pattern other than `*` fits no parameter; names it and the section.
    """

    def fitting(patterns: tuple[str, ...], name: str) -> BoolArray:
        result = np.zeros(len(table.smirks), dtype=bool)
        for pattern in patterns:
            hits = np.array(
                [fnmatch.fnmatchcase(i, pattern) or s == pattern for i, s in zip(table.ids, table.smirks, strict=True)],
                dtype=bool,
            )
            if pattern != "*" and not hits.any():
                raise ParamsError(
                    f"{section}.{name}: {pattern!r} is neither id nor SMIRKS of a parameter of {table.handler}; ids look like "
                    f"{', '.join(table.ids[:3]) or '(none)'}"
                )
            result |= hits
        return result

    return np.asarray(fitting(include, "include") & ~fitting(exclude, "exclude"))


def bounds_of(column: TrainedColumn, start: float) -> tuple[float, float]:
    """Return the least and the largest value allowed to a parameter that starts at `start`, ∓inf where there is none."""
    low = -math.inf if column.lower is None else column.lower
    high = math.inf if column.upper is None else column.upper
    change = math.inf if column.largest_change is None else column.largest_change
    return max(low, start - change), min(high, start + change)


def with_uses(force_field: ForceField, topologies: Iterable[Topology]) -> ForceField:
    """Return the force field with counts of use over some topologies, such as those of the training set, alone."""
    tables = {
        handler: replace(table, uses=np.zeros(len(table.smirks), dtype=np.int64))
        for handler, table in force_field.tables.items()
    }
    for topology in topologies:
        for handler, table in tables.items():
            np.add.at(table.uses, topology.parameters(handler), 1)
    return replace(force_field, tables=tables)


def without_linear_torsions(train: Train, force_field: ForceField, topologies: Iterable[Topology]) -> Train:
    """Exclude proper torsions about straight angles from training: their dihedral is undefined, and an amplitude makes forces singular.

    A torsion is left as it is where its SMIRKS has a triple bond, or where one of its terms has an inner angle that the force field assigns
    an equilibrium angle above 165°.

    Args:
        train: what is trained.
        force_field: as assigned.
        topologies: all of them, also those that are not trained on.
    """
    torsions, angles = force_field.tables["ProperTorsions"], force_field.tables["Angles"]
    straight = angles.values[:, angles.columns.index(MINIMUM["Angles"])] > STRAIGHT
    linear = np.array([_has_triple_bond(smirks) for smirks in torsions.smirks], dtype=bool)
    for topology in topologies:
        bends = topology.angles[straight[topology.angle_parameters]]
        if len(bends):
            known = {tuple(bend) for bend in np.concatenate([bends, bends[:, ::-1]]).tolist()}
            hits = [(a, b, c) in known or (b, c, d) in known for a, b, c, d in topology.propers.tolist()]
            linear[topology.proper_parameters[np.array(hits, dtype=bool)]] = True
    smirks = sorted({torsions.smirks[row] for row in np.flatnonzero(linear)})
    section = train.proper_torsions
    return train.model_copy(update={"proper_torsions": section.model_copy(update={"exclude": (*section.exclude, *smirks)})})


def _has_triple_bond(smirks: str) -> bool:
    """Tell whether a SMIRKS has `#` as a bond, not as part of an atomic number."""
    depth = 0
    for character in smirks:
        depth += (character == "[") - (character == "]")
        if character == "#" and depth == 0:
            return True
    return False


def _check_start(table: ParameterTable, row: int, name: str, column: TrainedColumn) -> None:
    value = float(table.values[row, table.columns.index(name)])
    low, high = bounds_of(column, value)
    slack = _STARTING_VALUE_TOLERANCE * max(1.0, abs(value))
    if not low - slack <= value <= high + slack:
        raise ParamsError(
            f"fit_smirnoff.train.{SECTIONS[table.handler]}.{name}: bounds {low:g} to {high:g} leave out the starting value {value:g} of "
            f"{table.ids[row] or table.smirks[row]}; widen them or exclude the parameter"
        )


def _clipped(change: float, start: float, column: TrainedColumn) -> float:
    low, high = bounds_of(column, start)
    return float(min(max(start + change, low), high))


@dataclass(frozen=True)
class AddedPeriodicities:
    """A force field with more periodicities, and how topologies follow.

    Attributes:
        force_field: new rows are at the end of the table, so that rows keep their numbers.
        added: new rows of the torsion whose first row is the key.
    """

    force_field: ForceField
    added: Mapping[int, Sequence[int]]

    def extend(self, topology: Topology) -> Topology:
        """Return the topology with a term for each new periodicity of each of its torsions."""
        if not self.added:
            return topology
        atoms, parameters = [topology.propers], [topology.proper_parameters]
        for first, rows in self.added.items():
            mine = topology.propers[topology.proper_parameters == first]
            for row in rows:
                atoms.append(mine)
                parameters.append(np.full(len(mine), row, dtype=parameters[0].dtype))
        return replace(topology, propers=np.concatenate(atoms), proper_parameters=np.concatenate(parameters))


def add_periodicities(force_field: ForceField, chosen: BoolArray, periodicities: Sequence[int]) -> AddedPeriodicities:
    """Give proper torsions the periodicities they lack, at k = 0, phase 0 and the torsion's own idivf.

    Args:
        force_field: as assigned.
        chosen: which rows of its table of proper torsions may be trained, shape (n_parameters,).
        periodicities: the wanted ones.
    """
    table = force_field.tables["ProperTorsions"]
    torsions: dict[str, list[int]] = {}
    for row in np.flatnonzero(chosen):
        torsions.setdefault(table.smirks[row], []).append(int(row))
    new: list[tuple[int, int, float]] = []  # first row, mult, periodicity
    added: dict[int, list[int]] = {}
    for rows in torsions.values():
        first = min(rows, key=lambda row: int(table.mult[row]))
        has = {round(table.values[row, _PERIODICITY]) for row in rows}
        for n_more, periodicity in enumerate(sorted(set(periodicities) - has)):
            added.setdefault(first, []).append(len(table.smirks) + len(new))
            new.append((first, len(rows) + n_more, float(periodicity)))
    if not new:
        return AddedPeriodicities(force_field, {})
    longer = _lengthened(table, new)
    return AddedPeriodicities(replace(force_field, tables={**force_field.tables, "ProperTorsions": longer}), added)


def _lengthened(table: ParameterTable, new: Sequence[tuple[int, int, float]]) -> ParameterTable:
    firsts = [first for first, _, _ in new]
    values = np.array([[0.0, periodicity, 0.0, table.values[first, _IDIVF]] for first, _, periodicity in new])
    mult: IntArray = np.array([number for _, number, _ in new], dtype=table.mult.dtype)
    return ParameterTable(
        handler=table.handler,
        ids=table.ids + tuple(table.ids[first] for first in firsts),
        smirks=table.smirks + tuple(table.smirks[first] for first in firsts),
        mult=np.concatenate([table.mult, mult]),
        values=np.vstack([table.values, values]),
        uses=np.concatenate([table.uses, table.uses[firsts]]),
    )
