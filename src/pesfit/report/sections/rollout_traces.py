"""Quantities along simulations, replica by replica, and their figures: total energy, force error, uncertainty of the forces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.core.arrays import FloatArray
from pesfit.data.rollouts import DYNAMICS
from pesfit.report.page.blocks import Figure, Layout
from pesfit.report.page.figures import (
    MUTED,
    SURFACE,
    color_of,
    in_order,
    label_of,
    label_rows,
    legend,
    log_axis,
    panels,
    series,
)
from pesfit.report.page.tables import number

_MAX_LINES = 5
"""Replicas that are drawn one by one for each potential; the mean is of all."""
_GAP = 3.0
"""Potentials whose energies change this many times as much as those of the next one are left out of the close-up."""


@dataclass(frozen=True, eq=False)
class _Trace:
    """A quantity over time.

    Attributes:
        potential: of the simulation.
        dynamics: `nve` or `nvt`.
        molecule: its name.
    """

    potential: str
    dynamics: str
    molecule: str


@dataclass(frozen=True, eq=False)
class EnergyTrace(_Trace):
    """The total energy of one replica.

    Attributes:
        time_ps: [ps], shape (n,).
        change: [kcal/mol/atom], total energy less its first value, shape (n,).
        stopped: whether it was stopped at the end of the trace.
    """

    time_ps: FloatArray
    change: FloatArray
    stopped: bool

    @classmethod
    def of(cls, row: Mapping[str, Any], n_atoms: int) -> EnergyTrace:
        """Return the trace of a row of `data.rollouts.read_energies`."""
        total = np.array(row["potential_energy"]) + np.array(row["kinetic_energy"])
        time_ps, stopped = np.array(row["time_fs"]) * 1e-3, row["stopped"] is not None
        return cls(row["potential"], row["dynamics"], row["molecule"], time_ps, (total - total[0]) / n_atoms, stopped)


@dataclass(frozen=True, eq=False)
class UncertaintyTrace(_Trace):
    """The uncertainty of a potential's forces along one replica.

    Attributes:
        time_ps: [ps], of the stored frames, shape (n,).
        force_std: [kcal/mol/Å], standard deviation of the force on the atom where it is largest, shape (n,).
        left_ps: [ps], time at which the replica left the domain of training; None where it did not.
    """

    time_ps: FloatArray
    force_std: FloatArray
    left_ps: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> UncertaintyTrace:
        """Return the trace of a row of `data.rollouts.read_energies`."""
        time_ps, force_std = np.array(row["frame_fs"]) * 1e-3, np.array(row["force_std"])
        left_ps = None if row["left_domain_fs"] is None else row["left_domain_fs"] * 1e-3
        return cls(row["potential"], row["dynamics"], row["molecule"], time_ps, force_std, left_ps)


@dataclass(frozen=True, eq=False)
class ErrorTrace(_Trace):
    """Force error over time, mean over the replicas of one molecule.

    Attributes:
        points: time [ps] and mean absolute error of force components [kcal/mol/Å].
    """

    points: Sequence[tuple[float, float]]


_AnyTrace = TypeVar("_AnyTrace", bound=_Trace)


def total_energy_figure(traces: Sequence[EnergyTrace]) -> Figure:
    """Return total energies over time: for each molecule all potentials on one scale, and a close-up of those with small changes."""
    of: dict[str, dict[str, list[EnergyTrace]]] = {trace.molecule: {} for trace in traces}
    for name in in_order(trace.potential for trace in traces):
        for trace in traces:
            if trace.potential == name:
                of[trace.molecule].setdefault(name, []).append(trace)
    reach = {
        molecule: {name: max(float(np.abs(trace.change).max()) for trace in members) for name, members in each.items()}
        for molecule, each in of.items()
    }

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, 2 * len(of), columns=2, height=2.7)
        for (molecule, each), whole, close in zip(of.items(), axes[::2], axes[1::2], strict=True):
            calm = _calm(reach[molecule])
            wild = [name for name in each if name not in calm]
            _energies(whole, each, one_by_one=wild or calm)
            _energies(close, {name: each[name] for name in calm}, one_by_one=calm)
            whole.set_title(molecule)
            close.set_title("without " + " and ".join(label_of(name) for name in wild) if wild else "the same")
        label_rows(axes, "change (kcal/mol/atom)")
        legend(canvas)
        return canvas

    told = "; ".join(
        f"{molecule}: " + ", ".join(f"{label_of(name)} {number(value, 2)}" for name, value in each.items())
        for molecule, each in reach.items()
    )
    return Figure(
        "total-energy",
        "Energy conservation: total energy in NVE simulations",
        f"Change of the total energy over time; the largest, in kcal/mol/atom, of {told}.",
        draw,
        note=f"Thin: up to {_MAX_LINES} replicas; thick: mean of those that were stable; cross: a replica was stopped.",
    )


def force_error_figure(traces: Sequence[ErrorTrace]) -> Figure:
    """Return force errors along simulations, a panel for each molecule and kind of dynamics."""

    def draw_trace(panel: Axes, trace: ErrorTrace) -> None:
        times, errors = zip(*trace.points, strict=True)
        panel.plot(times, errors, **series(trace.potential), markersize=3.5, linewidth=1.3)

    last = [
        f"{label_of(each.potential)} {number(each.points[-1][1], 2)} ({each.molecule}, {each.dynamics.upper()})"
        for each in traces
    ]
    return Figure(
        "force-error-over-time",
        "Force error along simulations",
        f"Mean absolute force error over time, in kcal/mol/Å; at the end: {', '.join(last)}.",
        _grid(traces, draw_trace, "force MAE (kcal/mol/Å)", [error for each in traces for _, error in each.points]),
        note="Against GFN2-xTB at frames of the potential's own trajectories, mean over replicas; stopped replicas end.",
    )


def uncertainty_figure(traces: Sequence[UncertaintyTrace]) -> Figure:
    """Return standard deviations of forces along simulations, a panel for each molecule and kind of dynamics."""

    def draw_trace(panel: Axes, trace: UncertaintyTrace) -> None:
        color = color_of(trace.potential)
        panel.plot(trace.time_ps, trace.force_std, color=color, linewidth=0.9, alpha=0.7, label=label_of(trace.potential))
        if trace.left_ps is not None:
            at = float(np.interp(trace.left_ps, trace.time_ps, trace.force_std))
            panel.plot(trace.left_ps, at, "o", color=color, markerfacecolor=SURFACE, markeredgewidth=1.4)

    left = sum(each.left_ps is not None for each in traces)
    return Figure(
        "force-uncertainty-over-time",
        "Uncertainty of forces along simulations",
        f"Standard deviation of the most uncertain atom's force over time; {left} of {len(traces)} replicas leave the domain of training.",
        _grid(traces, draw_trace, "σ of the force (kcal/mol/Å)", [float(value) for each in traces for value in each.force_std]),
        note="Lines: replicas, σ of the force on their most uncertain atom; circles: out of distribution from here, since hardly any "
        "training conformer has so large a σ.",
    )


def _grid(
    traces: Sequence[_AnyTrace], draw_trace: Callable[[Axes, _AnyTrace], None], label: str, values: Sequence[float]
) -> Callable[[Layout], Canvas]:
    """Draw a panel for each molecule and kind of dynamics, on one scale, which is logarithmic where values are above 0."""
    kinds = [kind for kind in DYNAMICS if any(each.dynamics == kind for each in traces)]
    pairs = [(molecule, kind) for molecule in dict.fromkeys(each.molecule for each in traces) for kind in kinds]
    order = in_order(each.potential for each in traces)

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, len(pairs), columns=len(kinds), height=2.5)
        for panel, (molecule, kind) in zip(axes, pairs, strict=True):
            for trace in sorted(traces, key=lambda each: order.index(each.potential)):
                if (trace.molecule, trace.dynamics) == (molecule, kind):
                    draw_trace(panel, trace)
            panel.set_title(f"{molecule}, {kind.upper()}")
            panel.set_xlabel("time (ps)")
            if min(values) > 0.0:
                log_axis(panel, "y")
                panel.set_ylim(min(values) / 1.5, max(values) * 1.5)
        label_rows(axes, label)
        legend(canvas)
        return canvas

    return draw


def _calm(reach: Mapping[str, float]) -> list[str]:
    """Return the potentials below the largest gap between energy changes; all where there is none."""
    ranked = sorted(reach, key=lambda name: reach[name])
    gaps = [(reach[far] / max(reach[near], 1e-12), cut) for cut, (near, far) in enumerate(pairwise(ranked), start=1)]
    largest, cut = max(gaps, default=(0.0, len(ranked)))
    calm = ranked[:cut] if largest > _GAP else ranked
    return [name for name in reach if name in calm]


def _energies(axes: Axes, of: Mapping[str, Sequence[EnergyTrace]], one_by_one: Sequence[str]) -> None:
    for name, traces in of.items():
        color = color_of(name)
        for trace in traces[: _MAX_LINES if name in one_by_one else 0]:
            axes.plot(trace.time_ps, trace.change, color=color, linewidth=0.6, alpha=0.45)
        for trace in traces:
            if trace.stopped:
                axes.plot(trace.time_ps[-1], trace.change[-1], "x", color=color, markersize=5.0)
        lasting = [trace for trace in traces if not trace.stopped]
        times = lasting[0].time_ps if lasting else np.zeros(0)
        mean = np.mean([trace.change for trace in lasting], axis=0) if lasting else times
        axes.plot(times, mean, color=color, linewidth=1.8, label=label_of(name), zorder=3)
    axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    axes.set_xlabel("time (ps)")
    axes.set_xlim(left=0.0)
