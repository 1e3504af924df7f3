"""Figures of simulations: total energy and force error over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.evaluate.names import in_order, label_of
from pesfit.report.page.blocks import Figure
from pesfit.report.page.figures import Palette, legend, log_axis, panels
from pesfit.report.page.format_numbers import number
from pesfit.report.sections.rollout_measures import NVE, NVT, Certainty, Trace

_LABELS: dict[str, str] = {NVE: "NVE", NVT: "NVT"}
_MAX_LINES = 5
"""Replicas that are drawn one by one for each potential; the mean is of all."""
_GAP = 3.0
"""Potentials whose energies go this many times as far as those of the next one are left out where one looks closer."""


@dataclass(frozen=True)
class ErrorCurve:
    """Force error over time of one molecule's replicas.

    Attributes:
        potential: that they ran with.
        dynamics: `nve` or `nvt`.
        molecule: its name.
        points: time [ps] and mean absolute error of force components [kcal/mol/Å].
    """

    potential: str
    dynamics: str
    molecule: str
    points: Sequence[tuple[float, float]]


def total_energy(traces: Sequence[Trace]) -> Figure:
    """Return the figure of total energies: for each molecule all potentials on one scale, and those that keep theirs from closer."""
    molecules = list(dict.fromkeys(trace.molecule for trace in traces))
    names = in_order(trace.potential for trace in traces)
    of = {
        molecule: {
            name: members
            for name in names
            if (members := [trace for trace in traces if (trace.molecule, trace.potential) == (molecule, name)])
        }
        for molecule in molecules
    }
    reach = {molecule: {name: _reach(members) for name, members in each.items()} for molecule, each in of.items()}

    def draw(palette: Palette) -> Canvas:
        canvas, axes = panels(palette, 2 * len(molecules), columns=2, height=2.7)
        for row, molecule in enumerate(molecules):
            calm = _calm(reach[molecule])
            wild = [name for name in of[molecule] if name not in calm]
            _panel(axes[2 * row], of[molecule], palette, one_by_one=wild or calm)
            _panel(axes[2 * row + 1], {name: of[molecule][name] for name in calm}, palette, one_by_one=calm)
            axes[2 * row].set_title(molecule)
            axes[2 * row + 1].set_title("without " + " and ".join(label_of(name) for name in wild) if wild else "the same")
        for panel in axes[:: 1 if palette.narrow else 2]:
            panel.set_ylabel("change (kcal/mol/atom)")
        legend(canvas, palette)
        return canvas

    told = "; ".join(
        f"{molecule}: " + ", ".join(f"{label_of(name)} {number(value, 2)}" for name, value in each.items())
        for molecule, each in reach.items()
    )
    return Figure(
        "total-energy",
        "Total energy at constant energy: what a direct force costs",
        f"Change of the total energy over time; the largest, in kcal/mol/atom, of {told}.",
        draw,
        note=f"Thin: up to {_MAX_LINES} replicas; thick: the mean of those that lasted; a cross where a replica was stopped.",
    )


def force_errors(curves: Sequence[ErrorCurve]) -> Figure:
    """Return the figure of force errors along simulations, a panel for each molecule and dynamics."""
    molecules = list(dict.fromkeys(curve.molecule for curve in curves))
    kinds = [kind for kind in _LABELS if any(curve.dynamics == kind for curve in curves)]
    names = in_order(curve.potential for curve in curves)
    errors = [error for curve in curves for _, error in curve.points]

    def draw(palette: Palette) -> Canvas:
        def draw_panel(panel: Axes, molecule: str, kind: str) -> None:
            for name in names:
                for curve in curves:
                    if (curve.molecule, curve.dynamics, curve.potential) == (molecule, kind, name):
                        _curve(panel, curve, palette)

        return _grid(
            palette,
            [(molecule, kind) for molecule in molecules for kind in kinds],
            draw_panel,
            "force MAE (kcal/mol/Å)",
            errors,
        )

    last = [
        f"{label_of(each.potential)} {number(each.points[-1][1], 2)} ({each.molecule}, {_LABELS[each.dynamics]})"
        for each in curves
    ]
    return Figure(
        "force-error-over-time",
        "Force error along the simulations",
        f"Mean absolute force error over time, in kcal/mol/Å; at the end: {', '.join(last)}.",
        draw,
        note="Against GFN2-xTB at frames of the potential's own trajectories, mean over replicas; stopped replicas end.",
    )


def certainty(replicas: Sequence[Certainty]) -> Figure:
    """Return the figure of standard deviations of forces along simulations, a panel for each molecule and dynamics."""
    molecules = list(dict.fromkeys(each.molecule for each in replicas))
    kinds = [kind for kind in _LABELS if any(each.dynamics == kind for each in replicas)]
    values = [float(value) for each in replicas for value in each.deviation]

    def draw(palette: Palette) -> Canvas:
        def draw_panel(panel: Axes, molecule: str, kind: str) -> None:
            for each in replicas:
                if (each.molecule, each.dynamics) == (molecule, kind):
                    _certainty(panel, each, palette)

        return _grid(
            palette,
            [(molecule, kind) for molecule in molecules for kind in kinds],
            draw_panel,
            "deviation (kcal/mol/Å)",
            values,
        )

    left = sum(each.left_ps is not None for each in replicas)
    return Figure(
        "certainty",
        "How sure the potential is along its own simulations",
        f"Standard deviation of the least certain atom's force over time; {left} of {len(replicas)} replicas leave the domain of training.",
        draw,
        note="Lines: replicas; circles: where one leaves the domain, since hardly any training conformer has so large a deviation.",
    )


def _grid(
    palette: Palette,
    pairs: Sequence[tuple[str, str]],
    draw_panel: Callable[[Axes, str, str], None],
    label: str,
    values: Sequence[float],
) -> Canvas:
    """Draw a panel for each molecule and kind of dynamics, on one scale, which is logarithmic where values are above 0."""
    columns = len({kind for _, kind in pairs})
    canvas, axes = panels(palette, len(pairs), columns=columns, height=2.5)
    for panel, (molecule, kind) in zip(axes, pairs, strict=True):
        draw_panel(panel, molecule, kind)
        panel.set_title(f"{molecule}, {_LABELS[kind]}")
        panel.set_xlabel("time (ps)")
        if min(values) > 0.0:
            log_axis(panel, "y")
            panel.set_ylim(min(values) / 1.5, max(values) * 1.5)
    for panel in axes[:: 1 if palette.narrow else columns]:
        panel.set_ylabel(label)
    legend(canvas, palette)
    return canvas


def _reach(traces: Sequence[Trace]) -> float:
    return max(float(np.abs(trace.change).max()) for trace in traces)


def _calm(reach: Mapping[str, float]) -> list[str]:
    """Return the potentials before the largest gap between the distances that energies go; all where there is none."""
    ranked = sorted(reach, key=lambda name: reach[name])
    gaps = [(reach[far] / max(reach[near], 1e-12), cut) for cut, (near, far) in enumerate(pairwise(ranked), start=1)]
    largest, cut = max(gaps, default=(0.0, len(ranked)))
    calm = ranked[:cut] if largest > _GAP else ranked
    return [name for name in reach if name in calm]


def _panel(axes: Axes, of: Mapping[str, Sequence[Trace]], palette: Palette, one_by_one: Sequence[str]) -> None:
    for name, members in of.items():
        _traces(axes, name, members, palette, _MAX_LINES if name in one_by_one else 0)
    axes.axhline(0.0, color=palette.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel("time (ps)")
    axes.set_xlim(left=0.0)


def _traces(axes: Axes, name: str, traces: Sequence[Trace], palette: Palette, n_lines: int) -> None:
    color = palette.color(name)
    for trace in traces[:n_lines]:
        axes.plot(trace.time_ps, trace.change, color=color, linewidth=0.6, alpha=0.45)
    for trace in traces:
        if trace.stopped:
            axes.plot(trace.time_ps[-1], trace.change[-1], "x", color=color, markersize=5.0)
    lasting = [trace for trace in traces if not trace.stopped]
    if lasting:
        mean = np.mean([trace.change for trace in lasting], axis=0)
        axes.plot(lasting[0].time_ps, mean, color=color, linewidth=1.8, label=label_of(name), zorder=3)
    else:
        axes.plot([], [], color=color, linewidth=1.8, label=label_of(name))


def _curve(axes: Axes, curve: ErrorCurve, palette: Palette) -> None:
    times, errors = zip(*curve.points, strict=True)
    (line,) = axes.plot(times, errors, color=palette.color(curve.potential), label=label_of(curve.potential))
    line.set(marker=palette.marker(curve.potential), markersize=3.5, linewidth=1.3)


def _certainty(axes: Axes, replica: Certainty, palette: Palette) -> None:
    color = palette.color(replica.potential)
    axes.plot(replica.time_ps, replica.deviation, color=color, linewidth=0.9, alpha=0.7, label=label_of(replica.potential))
    if replica.left_ps is not None:
        at = float(np.interp(replica.left_ps, replica.time_ps, replica.deviation))
        axes.plot(replica.left_ps, at, "o", color=color, markerfacecolor=palette.surface, markeredgewidth=1.4)
