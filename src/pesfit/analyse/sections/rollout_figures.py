"""Figures of simulations: total energy and force error over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.analyse.blocks import Figure
from pesfit.analyse.figures import Palette, panels
from pesfit.analyse.names import in_order, label_of
from pesfit.arrays import FloatArray

_ENSEMBLES = {"constant_energy": "at constant energy", "bath": "in a bath"}
_MAX_LINES = 12
"""Replicas that are drawn one by one for each potential; the mean is of all."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One replica at constant energy.

    Attributes:
        potential: that it ran with.
        time_ps: [ps], shape (n,).
        change: [kcal/mol/atom], total energy less its first value, shape (n,).
        stopped: whether it was stopped at the end of the trace.
    """

    potential: str
    time_ps: FloatArray
    change: FloatArray
    stopped: bool


@dataclass(frozen=True)
class ErrorCurve:
    """Force error over time of one molecule's replicas.

    Attributes:
        potential: that they ran with.
        ensemble: `constant_energy` or `bath`.
        molecule: its name.
        points: time [ps] and mean absolute error of force components [kcal/mol/Å].
    """

    potential: str
    ensemble: str
    molecule: str
    points: Sequence[tuple[float, float]]


def total_energy(traces: Sequence[Trace]) -> Figure:
    """Return the figure of total energies: all potentials on one scale, and again without those that run away from the others."""
    of = {
        name: [trace for trace in traces if trace.potential == name] for name in in_order(trace.potential for trace in traces)
    }
    reach = {name: max(float(np.abs(trace.change).max()) for trace in members) for name, members in of.items()}
    wide, close = max(reach.values()), _close(reach)

    def draw(palette: Palette) -> Canvas:
        canvas, both = panels(palette, 1 if close is None else 2, columns=2, height=3.3)
        for axes in both:
            for name, members in of.items():
                _traces(axes, name, members, palette)
            axes.axhline(0.0, color=palette.muted, linewidth=0.8, zorder=1)
            axes.set_xlabel("time [ps]")
            axes.set_xlim(left=0.0)
        both[0].set_ylabel("change of total energy [kcal/mol/atom]")
        both[0].set_title("All potentials")
        if close is not None:
            both[1].set_ylim(-close, close)
            both[1].set_title(f"The same, {wide / close:.0f} times closer" if wide / close >= 2.0 else "The same, closer")
        canvas.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=1 if palette.narrow else len(of))
        return canvas

    told = ", ".join(f"{label_of(name)} up to {value:.2g}" for name, value in reach.items())
    return Figure(
        "total-energy",
        "Total energy at constant energy: what a direct force costs",
        f"Change of the total energy per atom over time, in kcal/mol/atom: {told}.",
        draw,
        note="Thin: replicas; thick: their mean; a cross where a replica was stopped.",
    )


def force_errors(curves: Sequence[ErrorCurve]) -> Figure:
    """Return the figure of force errors along simulations, a panel for each ensemble; the mean over molecules."""
    kinds = [kind for kind in _ENSEMBLES if any(curve.ensemble == kind for curve in curves)]
    names = in_order(curve.potential for curve in curves)

    def draw(palette: Palette) -> Canvas:
        canvas, all_axes = panels(palette, len(kinds), columns=2, height=2.9)
        for axes, kind in zip(all_axes, kinds, strict=True):
            for name in names:
                mean = _mean(curve for curve in curves if (curve.potential, curve.ensemble) == (name, kind))
                if mean:
                    (line,) = axes.plot(list(mean), list(mean.values()), label=label_of(name), color=palette.color(name))
                    line.set(marker=palette.marker(name), markersize=3.5)
            axes.set_ylim(bottom=0.0)
            axes.set_title(_ENSEMBLES[kind].capitalize())
            axes.set_xlabel("time [ps]")
        all_axes[0].set_ylabel("force MAE [kcal/mol/Å]")
        canvas.legend(
            *all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=1 if palette.narrow else len(names)
        )
        return canvas

    return Figure(
        "force-error-over-time",
        "Force error along the simulations",
        f"Mean absolute force error against the labels' method over time for {', '.join(label_of(name) for name in names)}.",
        draw,
        note="Against GFN2-xTB, at frames of the potential's own trajectory; mean over replicas and molecules.",
    )


def _close(reach: Mapping[str, float]) -> float | None:
    """Return the scale on which the calmer half of the potentials can be seen; None where the first scale shows them."""
    calm = sorted(reach.values())[: max(1, len(reach) - 1)]
    close = 1.15 * calm[-1]
    return close if 0.0 < close < 0.5 * max(reach.values()) else None


def _traces(axes: Axes, name: str, traces: Sequence[Trace], palette: Palette) -> None:
    color = palette.color(name)
    for trace in traces[:_MAX_LINES]:
        axes.plot(trace.time_ps, trace.change, color=color, linewidth=0.6, alpha=0.45)
    for trace in traces:
        if trace.stopped:
            axes.plot(trace.time_ps[-1], trace.change[-1], "x", color=color, markersize=5.0)
    longest = max(traces, key=lambda trace: len(trace.time_ps))
    whole = [trace.change for trace in traces if len(trace.change) == len(longest.change)]
    axes.plot(longest.time_ps, np.mean(whole, axis=0), color=color, linewidth=2.0, label=label_of(name), zorder=3)


def _mean(curves: Iterable[ErrorCurve]) -> dict[float, float]:
    found: dict[float, list[float]] = {}
    for curve in curves:
        for time, error in curve.points:
            found.setdefault(time, []).append(error)
    return {time: float(np.mean(errors)) for time, errors in sorted(found.items())}
