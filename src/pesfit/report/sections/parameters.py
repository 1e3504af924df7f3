"""The section on the SMIRNOFF fit: parameters before and after, with standard errors, and those that the data leave undetermined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.report.page.blocks import Block, Cell, Facts, Figure, Layout, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import CYCLE, MUTED, legend, name_rows, panels
from pesfit.report.page.tables import number
from pesfit.report.reading import read_json, read_rows
from pesfit.smirnoff.fit_report import relative_errors
from pesfit.smirnoff.parameters import FILE_COLUMNS

_HANDLERS = {
    "Bonds": "bonds",
    "Angles": "angles",
    "ProperTorsions": "proper torsions",
    "ImproperTorsions": "improper torsions",
    "vdW": "van der Waals",
}
_COLORS = dict(zip(_HANDLERS, CYCLE, strict=False))
_UNITS = {"angstrom": "Å", "radian": "rad", "kcal/mol/angstrom**2": "kcal/mol/Å²", "kcal/mol/radian**2": "kcal/mol/rad²"}
_N_LARGEST, _N_LEAST = 24, 20


@dataclass(frozen=True)
class ParameterChange:
    """One trained parameter.

    Attributes:
        handler: such as `Bonds`.
        id: of the force field's parameter.
        smirks: its pattern.
        name: its column: `k`, `length`, `angle`, `k2`.
        unit: of the values.
        before: at the start.
        after: at the optimum.
        standard_error: of the posterior; None where there is none.
        prior_width: standard deviation of the prior, at the strength that was chosen; None without a prior of its own.
        uses: number of terms of the training molecules that have it.
        determined: whether the data constrain it more than the prior.
        at_bound: whether the optimum lies on a bound that params.yaml sets.
    """

    handler: str
    id: str
    smirks: str
    name: str
    unit: str
    before: float
    after: float
    standard_error: float | None
    prior_width: float | None
    uses: int
    determined: bool
    at_bound: bool

    @property
    def label(self) -> str:
        """The parameter in short: `b1 length`."""
        return f"{self.id} {self.name}"

    @property
    def kind(self) -> tuple[str, str]:
        """Handler and name, in which the force constants of all periodicities are one kind."""
        return self.handler, "k" if self.name.startswith("k") else self.name

    @property
    def in_prior_widths(self) -> float | None:
        """The change in standard deviations of the prior."""
        return None if self.prior_width is None else (self.after - self.before) / self.prior_width

    @property
    def prior_left(self) -> float | None:
        """The standard error in standard deviations of the prior: 1 where the data carry no information."""
        return None if self.standard_error is None or self.prior_width is None else self.standard_error / self.prior_width


@dataclass(frozen=True)
class SmirnoffFit:
    """The fit of SMIRNOFF parameters.

    Attributes:
        changes: of every trained parameter.
        n_effective: number of parameters that the data determine (MacKay's γ); None for methods without it.
        prior_strength: chosen for the optimum; None for methods without it.
        left_out: by kind of rows, error of the fit and of each training molecule left out of it, in that of the initial force field.
    """

    changes: Sequence[ParameterChange]
    n_effective: float | None
    prior_strength: float | None
    left_out: Mapping[str, tuple[float, float]]

    @classmethod
    def read(cls, folder: Path, metrics: Path) -> SmirnoffFit:
        """Read the output of stage 06.

        Args:
            folder: such as `outputs/smirnoff`.
            metrics: such as `outputs/metrics/fit_smirnoff.json`.

        Raises:
            DataError: if a file is missing or lacks a column.
        """
        values = read_json(metrics)
        changes = [
            ParameterChange(
                handler=row["handler"],
                id=row["id"],
                smirks=row["smirks"],
                name=f"{row['column']}{row['periodicity']}",
                unit=_UNITS.get(row["unit"], row["unit"]),
                before=float(row["before"]),
                after=float(row["after"]),
                standard_error=_optional(row["standard_error"]),
                prior_width=_optional(row["prior_width"]),
                uses=int(row["uses"]),
                determined=row["determined"] == "yes",
                at_bound=row["at_bound"] == "yes",
            )
            for row in read_rows(folder / "parameters.csv", FILE_COLUMNS)
        ]
        effective, strength = values.get("parameters", {}).get("effective"), values.get("prior_strength")
        return cls(changes, effective, strength, relative_errors(values.get("left_out")))


def section(fit: SmirnoffFit) -> PageSection:
    """Return the section of the force field's parameters."""
    changes = fit.changes
    blocks: list[Block] = [
        Text(
            f"{len(changes)} parameters were trained; the data determine {sum(each.determined for each in changes)} of them. Error bars "
            "are standard deviations of the posterior: the uncertainty of a parameter within this functional form, without the error of "
            "the form itself."
        ),
        Facts("fit", _facts(fit)),
        *([_left_out(fit.left_out)] if fit.left_out else []),
        _largest(changes),
        _by_kind(changes),
        _least_determined(changes),
    ]
    if bounded := [change for change in changes if change.at_bound]:
        note = "They have no standard error: the bound holds them, not the data."
        blocks.append(_table("parameters-at-bounds", f"Parameters at a bound ({len(bounded)})", bounded, note))
    else:
        blocks.append(Text("No parameter lies on a bound."))
    blocks.append(_table("parameters", "All trained parameters", changes, folded=True))
    return PageSection("parameters", "SMIRNOFF parameters", blocks)


def _left_out(errors: Mapping[str, tuple[float, float]]) -> Table:
    columns = (
        TableColumn("rows", "rows"),
        TableColumn("fitted", "fitted", digits=2),
        TableColumn("left_out", "each molecule left out", digits=2),
    )
    rows: list[dict[str, Cell]] = [
        {"rows": kind, "fitted": fitted, "left_out": left_out} for kind, (fitted, left_out) in errors.items()
    ]
    return Table(
        "fit-left-out",
        "Errors of training molecules, in those of the initial force field",
        columns,
        rows,
        note="Left out: each molecule with the force field that is fitted to all others (last linear problem). Above 1: worse than before.",
    )


def _title(handler: str) -> str:
    words = _HANDLERS.get(handler, handler)
    return words[:1].upper() + words[1:]


def _optional(text: str) -> float | None:
    return float(text) if text else None


def _facts(fit: SmirnoffFit) -> list[tuple[str, str]]:
    facts = []
    for handler in dict.fromkeys(change.handler for change in fit.changes):
        mine = [change for change in fit.changes if change.handler == handler]
        determined = sum(change.determined for change in mine)
        facts.append((_HANDLERS.get(handler, handler), f"{len(mine)} trained, {determined} determined by the data"))
    if fit.n_effective is not None:
        facts.append(("effective number of parameters", f"{fit.n_effective:.1f}"))
    if fit.prior_strength is not None:
        facts.append(("prior strength", number(fit.prior_strength, 3)))
    return facts


def _largest(changes: Sequence[ParameterChange]) -> Figure:
    known = [(change, at) for change in changes if (at := change.in_prior_widths) is not None]
    ranked = sorted(known, key=lambda pair: -abs(pair[1]))[:_N_LARGEST]
    reach = 1.1 * max((abs(at) + (change.prior_left or 0.0) for change, at in ranked), default=1.0)

    def draw(layout: Layout) -> Canvas:
        half = -(-len(ranked) // 2)
        parts = [part for part in (ranked[:half], ranked[half:]) if part] or [[]]
        canvas, both = panels(layout, len(parts), columns=2, height=0.9 + 0.21 * half)
        for axes, part in zip(both, parts, strict=True):
            for row, (change, at) in enumerate(part):
                color = _COLORS.get(change.handler, MUTED)
                axes.errorbar(at, row, xerr=change.prior_left or 0.0, fmt="o", color=color, elinewidth=1.2, markersize=4.5)
            axes.axvline(0.0, color=MUTED, linewidth=0.8)
            name_rows(axes, [change.label for change, _ in part])
            axes.set_xlim(-reach, reach)
            axes.set_xlabel("change / prior σ")
        for handler, label in _HANDLERS.items():
            if any(change.handler == handler for change, _ in ranked):
                both[0].plot([], [], "o", color=_COLORS[handler], label=label)
        legend(canvas)
        return canvas

    told = ", ".join(f"{change.label} {at:+.1f}" for change, at in ranked[:5])
    return Figure(
        "parameter-changes-largest",
        f"The {len(ranked)} largest parameter changes, in standard deviations of the prior",
        f"Changes of parameters with error bars, largest first: {told}.",
        draw,
        note="0: initial force field. Bars: standard errors. The SMIRKS of each id are in the table below.",
    )


def _by_kind(changes: Sequence[ParameterChange]) -> Figure:
    kinds: dict[tuple[str, str], list[ParameterChange]] = {}
    for change in changes:
        kinds.setdefault(change.kind, []).append(change)

    def draw(layout: Layout) -> Canvas:
        canvas, all_axes = panels(layout, max(1, len(kinds)), height=2.5)
        for axes, ((handler, name), members) in zip(all_axes, kinds.items(), strict=False):
            _scatter(axes, [change for change in members if not change.determined], MUTED, alpha=0.55)
            _scatter(axes, [change for change in members if change.determined], _COLORS.get(handler, MUTED), bars=True)
            axes.axhline(0.0, color=MUTED, linewidth=0.8)
            axes.set_title(f"{_title(handler)}: {name}")
            axes.set_xlabel(f"before ({members[0].unit})")
            axes.set_ylabel("change")
        return canvas

    words = ", ".join(f"{_HANDLERS.get(handler, handler)} {name} ({len(each)})" for (handler, name), each in kinds.items())
    return Figure(
        "parameter-changes",
        "Parameter changes against initial values",
        f"One panel for each kind of parameter: {words}.",
        draw,
        note="Gray: not determined by the data. Bars: standard errors.",
    )


def _scatter(axes: Axes, changes: Sequence[ParameterChange], color: str, *, bars: bool = False, alpha: float = 1.0) -> None:
    x, y = [change.before for change in changes], [change.after - change.before for change in changes]
    errors = [change.standard_error or 0.0 for change in changes] if bars else None
    axes.errorbar(x, y, errors, fmt="o", color=color, markersize=3.0, elinewidth=0.8, alpha=alpha)


def _least_determined(changes: Sequence[ParameterChange]) -> Table:
    used = [change for change in changes if change.uses and change.prior_left is not None]
    least = sorted(used, key=lambda change: -(change.prior_left or 0.0))[:_N_LEAST]
    return _table(
        "parameters-least-determined",
        f"The {len(least)} least determined parameters that training molecules use",
        least,
        note="Standard error / prior σ is 1 where the data carry no information: such a parameter stays at its initial value.",
    )


def _table(name: str, title: str, changes: Sequence[ParameterChange], note: str = "", *, folded: bool = False) -> Table:
    handlers = list(_HANDLERS)
    ranked = sorted(changes, key=lambda change: (handlers.index(change.handler), change.kind[1] != "k", change.name[:1]))
    columns = (
        TableColumn("parameter", "parameter"),
        TableColumn("smirks", "SMIRKS"),
        TableColumn("before", "before", digits=4),
        TableColumn("after", "after", digits=4, error="standard_error"),
        TableColumn("change_in_prior_widths", "change / prior σ", digits=2),
        TableColumn("standard_error_in_prior_widths", "std. error / prior σ", digits=2),
        TableColumn("uses", "terms"),
    )
    return Table(name, title, columns, [_row(change) for change in ranked], note=note, folded=folded, group="kind")


def _row(change: ParameterChange) -> dict[str, Cell]:
    handler, name = change.kind
    return {
        "kind": f"{_title(handler)}: {name} ({change.unit})",
        "parameter": change.label,
        "handler": change.handler,
        "smirks": change.smirks,
        "unit": change.unit,
        "before": change.before,
        "after": change.after,
        "standard_error": None if change.at_bound else change.standard_error,
        "change_in_prior_widths": change.in_prior_widths,
        "standard_error_in_prior_widths": None if change.at_bound else change.prior_left,
        "uses": change.uses,
        "determined": change.determined,
        "at_bound": change.at_bound,
    }
