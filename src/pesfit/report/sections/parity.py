"""The section on parity: predictions against labels, energies relative to the molecule's mean and components of forces."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.core.arrays import FloatArray
from pesfit.core.files import atomic_write
from pesfit.evaluate.predictions import Predictions, centered
from pesfit.report.page.blocks import Figure, Layout, PageSection
from pesfit.report.page.figures import MUTED, color_of, density_map, label_of, label_rows, panels

Quantity = Literal["energy", "forces"]
UNITS: dict[Quantity, str] = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
COLUMNS: dict[Quantity, str] = {"energy": "label_kcal_per_mol", "forces": "label_kcal_per_mol_per_angstrom"}
"""First column of `write_parity`, the label; the others are named by potential."""

_TITLES: dict[Quantity, str] = {
    "energy": "Relative energies: predicted against label",
    "forces": "Force components: predicted against label",
}
_MANY_POINTS = 1500
"""Above this density is drawn, below it points."""
_MOST_POINTS = 300_000
"""More are thinned evenly before density is drawn, which they no longer change; errors are of all."""
_BINS = 45
_BEYOND = 0.15
"""Room beyond the labels on each axis, as a fraction of their range."""


@dataclass(frozen=True, eq=False)
class Parity:
    """Labels with the predictions of every potential.

    Attributes:
        quantity: energies are relative to the mean over the molecule's test conformers, forces are components.
        source: of each point, length n.
        label: [kcal/mol] or [kcal/mol/Å], shape (n,).
        predicted: by potential, NaN where it has no prediction, shape (n,).
    """

    quantity: Quantity
    source: tuple[str, ...]
    label: FloatArray
    predicted: dict[str, FloatArray]


def parity_section(points: Sequence[Parity]) -> PageSection:
    """Return the section, with a figure for each quantity."""
    return PageSection("parity", "Parity plots", [parity_figure(each) for each in points])


def parity(predictions: Predictions, quantity: Quantity) -> Parity:
    """Gather all points of the test set; conformers alone in their molecule have no relative energy and are left out."""
    rows = predictions.rows
    which = [i for i, row in enumerate(rows) if quantity == "energy" or row.forces is not None]

    def gathered(values: list[FloatArray]) -> list[FloatArray]:
        return centered(rows, values) if quantity == "energy" else [each.reshape(-1) for each in values]

    labels = gathered([np.asarray(rows[i].energy if quantity == "energy" else rows[i].forces) for i in which])
    predicted: dict[str, FloatArray] = {}
    for potential, of_rows in predictions.predicted.items():
        parts = []
        for i, label in zip(which, labels, strict=True):
            one = of_rows[i]
            values = None if one is None else one.energy if quantity == "energy" else one.forces
            parts.append(np.full(label.shape, np.nan) if values is None else values)
        predicted[potential] = np.concatenate([np.zeros(0), *gathered(parts)])
    label = np.concatenate([np.zeros(0), *labels])
    known = np.isfinite(label)
    sources = np.repeat(np.array([rows[i].source for i in which], dtype=object), [len(part) for part in labels])
    return Parity(quantity, tuple(sources[known]), label[known], {name: values[known] for name, values in predicted.items()})


def write_parity(path: Path, points: Parity, n_points: int, seed: int) -> None:
    """Write points for `dvc plots`, at most `n_points` of them, drawn without replacement and kept in order.

    Columns: the label (`COLUMNS`), one for each potential, which is empty where it has no prediction, and `source`.
    """
    chosen = np.arange(len(points.label))
    if len(chosen) > n_points:
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), n_points, replace=False))
    with atomic_write(path) as new, new.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([COLUMNS[points.quantity], *points.predicted, "source"])
        for i in chosen.tolist():
            values = [float(of_potential[i]) for of_potential in points.predicted.values()]
            cells = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([f"{points.label[i]:.6g}", *cells, points.source[i]])


def parity_figure(points: Parity) -> Figure:
    """Return a figure with a panel for each potential, all with the same axes."""
    unit, names = UNITS[points.quantity], list(points.predicted)
    low, high = (float(points.label.min()), float(points.label.max())) if len(points.label) else (0.0, 1.0)
    margin = _BEYOND * (high - low) or 1.0

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, len(names), columns=4 if len(names) == 4 else 3, height=2.5)
        for panel, name in zip(axes, names, strict=True):
            _panel(panel, points, name, (low - margin, high + margin))
            panel.set_xlabel(f"label ({unit})")
        label_rows(axes, "predicted")
        return canvas

    rmse = {name: _rmse(points.label, values) for name, values in points.predicted.items()}
    words = ", ".join(f"{label_of(name)} {value:.3g}" for name, value in rmse.items() if np.isfinite(value))
    note = "Line: prediction = label." + (
        " Color: density of points, on a logarithmic scale." if len(points.label) > _MANY_POINTS else ""
    )
    if points.quantity == "energy":
        note += " Energies are relative to the mean over the molecule's test conformers."
    title = _TITLES[points.quantity]
    return Figure(
        f"parity-{points.quantity}", title, f"{title}, a panel for each potential. RMSE in {unit}: {words}.", draw, note
    )


def _panel(panel: Axes, points: Parity, name: str, limits: tuple[float, float]) -> None:
    known = np.isfinite(points.predicted[name])
    label, predicted = points.label[known], points.predicted[name][known]
    inside = (predicted >= limits[0]) & (predicted <= limits[1])
    x, y = label[inside], predicted[inside]
    if len(x) > _MANY_POINTS:
        each = -(-len(x) // _MOST_POINTS)
        panel.hexbin(
            x[::each], y[::each], gridsize=_BINS, extent=(*limits, *limits), bins="log", mincnt=1, linewidths=0.0,
            cmap=density_map(name), rasterized=True,
        )  # fmt: skip
    else:
        panel.plot(x, y, "o", color=color_of(name), markersize=2.2, alpha=0.55, mew=0.0)
    panel.plot(limits, limits, color=MUTED, linewidth=0.8)
    panel.set_xlim(*limits)
    panel.set_ylim(*limits)
    panel.set_aspect("equal")
    panel.set_title(label_of(name))
    lines = [f"RMSE {_rmse(label, predicted):.3g}" if len(label) else "no predictions"]
    if n_outside := int((~inside).sum()):
        lines.append(f"{n_outside} outside")
    panel.text(0.04, 0.96, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=8.5)


def _rmse(label: FloatArray, predicted: FloatArray) -> float:
    known = np.isfinite(predicted)
    return float(np.sqrt(((predicted - label)[known] ** 2).mean())) if known.any() else float("nan")
