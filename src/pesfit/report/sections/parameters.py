"""What the fit changed in the SMIRNOFF force field, with error bars, and what the data leave open."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.report.page.blocks import Block, Cell, Column, Facts, Figure, Section, Table, Text
from pesfit.report.page.figures import Palette, legend, panels
from pesfit.report.page.format_numbers import number
from pesfit.report.sections.parameter_changes import Change, Fit

_WORDS = {"Bonds": "bonds", "Angles": "angles", "ProperTorsions": "proper torsions", "ImproperTorsions": "improper torsions"}
_N_LARGEST, _N_LEAST = 24, 20


def section(fit: Fit) -> Section:
    """Return the section of the force field's parameters."""
    changes = fit.changes
    determined = sum(change.determined for change in changes)
    blocks: list[Block] = [
        Text(
            f"{len(changes)} parameters were trained; the data determine {determined} of them. Error bars are standard deviations of the "
            "posterior. They say how well the data fix a parameter within this functional form, not how wrong the form is."
        ),
        Facts("fit", _facts(fit)),
        _largest(changes),
        _by_kind(changes),
        _least_determined(changes),
    ]
    bounded = [change for change in changes if change.at_bound]
    if bounded:
        note = "They have no error bar: the bound holds them, not the data."
        blocks.append(_table("parameters-at-bounds", f"Parameters that a bound holds ({len(bounded)})", bounded, note))
    else:
        blocks.append(Text("No parameter lies on a bound."))
    blocks.append(_table("parameters", "All trained parameters", changes, folded=True))
    return Section("parameters", "SMIRNOFF parameters", blocks)


def _facts(fit: Fit) -> list[tuple[str, str]]:
    facts = [
        (_WORDS.get(name, name), _counted(fit.changes, name)) for name in dict.fromkeys(each.handler for each in fit.changes)
    ]
    if fit.n_effective is not None:
        facts.append(("effective number of parameters", f"{fit.n_effective:.1f}"))
    if fit.prior_strength is not None:
        facts.append(("strength of the prior", number(fit.prior_strength, 3)))
    return facts


def _counted(changes: Sequence[Change], handler: str) -> str:
    mine = [change for change in changes if change.handler == handler]
    return f"{len(mine)} trained, {sum(change.determined for change in mine)} determined by the data"


def _largest(changes: Sequence[Change]) -> Figure:
    ranked = sorted(
        (change for change in changes if change.in_prior_deviations is not None),
        key=lambda change: -abs(change.in_prior_deviations or 0.0),
    )[:_N_LARGEST]

    def draw(palette: Palette) -> Canvas:
        half = -(-len(ranked) // 2)
        parts = [part for part in (ranked[:half], ranked[half:]) if part] or [[]]
        canvas, both = panels(palette, len(parts), columns=2, height=0.9 + 0.21 * half)
        colors = dict(zip(_WORDS, palette.cycle, strict=False))
        for axes, part in zip(both, parts, strict=True):
            _forest(axes, part, colors, palette)
        reach = 1.1 * max(
            (abs(change.in_prior_deviations or 0.0) + (change.prior_left or 0.0) for change in ranked), default=1.0
        )
        for axes in both:
            axes.set_xlim(-reach, reach)
        seen = [name for name in _WORDS if any(change.handler == name for change in ranked)]
        for name in seen:
            both[0].plot([], [], "o", color=colors[name], label=_WORDS[name])
        legend(canvas, palette)
        return canvas

    told = ", ".join(f"{change.label} {change.in_prior_deviations or 0.0:+.1f}" for change in ranked[:5])
    return Figure(
        "parameter-changes-largest",
        f"The {len(ranked)} largest changes, in standard deviations of the prior",
        f"Changes of parameters with error bars, largest first: {told}.",
        draw,
        note="0: where the force field started. Bars: standard errors. The smirks behind an id are in the table below.",
    )


def _forest(axes: Axes, part: Sequence[Change], colors: dict[str, str], palette: Palette) -> None:
    for row, change in enumerate(part):
        at, error = change.in_prior_deviations or 0.0, change.prior_left or 0.0
        color = colors.get(change.handler, palette.muted)
        axes.errorbar(at, row, xerr=error, fmt="o", color=color, elinewidth=1.2, markersize=4.5)
    axes.axvline(0.0, color=palette.muted, linewidth=0.8)
    axes.set_yticks(range(len(part)), [change.label for change in part])
    axes.set_ylim(len(part) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("change / prior deviation")


def _by_kind(changes: Sequence[Change]) -> Figure:
    kinds: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        kinds.setdefault((change.handler, "k" if change.name.startswith("k") else change.name), []).append(change)

    def draw(palette: Palette) -> Canvas:
        canvas, all_axes = panels(palette, max(1, len(kinds)), height=2.5)
        for axes, ((handler, name), members) in zip(all_axes, kinds.items(), strict=False):
            color = dict(zip(_WORDS, palette.cycle, strict=False)).get(handler, palette.muted)
            for chosen, shown in ((False, palette.muted), (True, color)):
                picked = [change for change in members if change.determined is chosen]
                errors = [change.standard_error or 0.0 for change in picked] if chosen else None
                x, y = [change.before for change in picked], [change.after - change.before for change in picked]
                axes.errorbar(x, y, errors, fmt="o", color=shown, markersize=3.0, elinewidth=0.8, alpha=1.0 if chosen else 0.55)
            axes.axhline(0.0, color=palette.muted, linewidth=0.8)
            axes.set_title(f"{_WORDS.get(handler, handler).capitalize()}: {name}")
            axes.set_xlabel(f"before ({members[0].unit})")
            axes.set_ylabel("change")
        return canvas

    words = ", ".join(f"{_WORDS.get(handler, handler)} {name} ({len(members)})" for (handler, name), members in kinds.items())
    return Figure(
        "parameter-changes",
        "Change of every trained parameter against its starting value",
        f"One panel for each kind of parameter: {words}.",
        draw,
        note="Grey: not determined by the data. Bars: standard errors.",
    )


def _least_determined(changes: Sequence[Change]) -> Table:
    used = [change for change in changes if change.uses and change.prior_left is not None]
    least = sorted(used, key=lambda change: -(change.prior_left or 0.0))[:_N_LEAST]
    return _table(
        "parameters-least-determined",
        f"The {len(least)} least determined parameters that training molecules use",
        least,
        note="Standard error / prior deviation is 1 where the data say nothing: such a parameter stays where the force field had it.",
    )


def _table(name: str, title: str, changes: Sequence[Change], note: str = "", *, folded: bool = False) -> Table:
    words = list(_WORDS)
    ranked = sorted(changes, key=lambda change: (words.index(change.handler), not change.name.startswith("k"), change.name[:1]))
    columns = (
        Column("parameter", "parameter"),
        Column("smirks", "smirks"),
        Column("before", "before", digits=4),
        Column("after", "after", digits=4, error="standard_error"),
        Column("change_in_prior_deviations", "change / prior dev.", digits=2),
        Column("standard_error_in_prior_deviations", "std. error / prior dev.", digits=2),
        Column("uses", "terms"),
    )
    return Table(name, title, columns, [_row(change) for change in ranked], note=note, folded=folded, group="kind")


def _kind(change: Change) -> str:
    name = "k" if change.name.startswith("k") else change.name
    return f"{_WORDS.get(change.handler, change.handler).capitalize()}: {name} ({change.unit})"


def _row(change: Change) -> dict[str, Cell]:
    return {
        "kind": _kind(change),
        "parameter": change.label,
        "handler": change.handler,
        "smirks": change.smirks,
        "unit": change.unit,
        "before": change.before,
        "after": change.after,
        "standard_error": None if change.at_bound else change.standard_error,
        "change_in_prior_deviations": change.in_prior_deviations,
        "standard_error_in_prior_deviations": None if change.at_bound else change.prior_left,
        "uses": change.uses,
        "determined": change.determined,
        "at_bound": change.at_bound,
    }
