"""Predictions against labels: energies relative to the molecule's mean, and components of forces."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.core.arrays import FloatArray
from pesfit.core.files import atomic_write
from pesfit.evaluate.errors import centered
from pesfit.evaluate.names import label_of
from pesfit.evaluate.predictions import Predictions
from pesfit.report.page.blocks import Figure
from pesfit.report.page.figures import Palette, panels

Quantity = Literal["energy", "forces"]
UNITS: dict[Quantity, str] = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
COLUMNS: dict[Quantity, str] = {"energy": "label_kcal_per_mol", "forces": "label_kcal_per_mol_per_angstrom"}
"""First column of `write_parity`, the label; the others are named by potential."""

_MANY_POINTS = 1500
"""Above this density is drawn, below it points."""
_MOST_POINTS = 300_000
"""More are thinned evenly before density is drawn, which they no longer change; errors are of all."""
_BINS = 45
_BEYOND = 0.15
"""How far beyond the labels an axis goes, as a fraction of their range."""


@dataclass(frozen=True, eq=False)
class Parity:
    """Labels with what potentials say of them.

    Attributes:
        quantity: what it is; energies are relative to the mean over the molecule's test conformers.
        source: of each point, length n.
        label: [kcal/mol] or [kcal/mol/Å], shape (n,).
        predicted: by potential, NaN where it says nothing, shape (n,).
    """

    quantity: Quantity
    source: tuple[str, ...]
    label: FloatArray
    predicted: dict[str, FloatArray]


def parity(predictions: Predictions, quantity: Quantity) -> Parity:
    """Gather all points of the test set; conformers alone in their molecule have no relative energy and are left out."""
    rows = predictions.rows
    if quantity == "forces":
        which = [i for i, row in enumerate(rows) if row.forces is not None]
        labels = [np.asarray(rows[i].forces).reshape(-1) for i in which]
    else:
        which = list(range(len(rows)))
        labels = centered(rows, [row.energy for row in rows])
    predicted: dict[str, FloatArray] = {}
    for potential, of_rows in predictions.predicted.items():
        said = [of_rows[i] for i in which]
        if quantity == "forces":
            parts = [
                np.full(label.shape, np.nan) if one is None else one.forces.reshape(-1)
                for one, label in zip(said, labels, strict=True)
            ]
        else:
            energies = [
                np.full(label.shape, np.nan) if one is None else one.energy for one, label in zip(said, labels, strict=True)
            ]
            parts = centered(rows, energies)
        predicted[potential] = np.concatenate([np.zeros(0), *parts])
    label = np.concatenate([np.zeros(0), *labels])
    known = np.isfinite(label)
    sources = np.repeat(np.array([rows[i].source for i in which], dtype=object), [len(part) for part in labels])
    return Parity(quantity, tuple(sources[known]), label[known], {name: values[known] for name, values in predicted.items()})


def write_parity(path: Path, points: Parity, n_points: int, seed: int) -> None:
    """Write points for `dvc plots`, at most `n_points` of them, drawn without replacement and kept in order.

    Columns: the label (`COLUMNS`), one for each potential, which is empty where it says nothing, and `source`.
    """
    chosen = np.arange(len(points.label))
    if len(chosen) > n_points:
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), n_points, replace=False))
    with atomic_write(path) as new, new.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([COLUMNS[points.quantity], *points.predicted, "source"])
        for i in chosen.tolist():
            values = [points.predicted[name][i] for name in points.predicted]
            said = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([f"{points.label[i]:.6g}", *said, points.source[i]])


def parity_figure(points: Parity) -> Figure:
    """Draw a panel for each potential, all with the same axes."""
    title = {
        "energy": "Energies relative to the mean of the molecule's test conformers",
        "forces": "Components of the forces on all atoms",
    }[points.quantity]
    rmse = {name: _rmse(points.label, values) for name, values in points.predicted.items()}
    words = ", ".join(f"{label_of(name)} {value:.3g}" for name, value in rmse.items() if np.isfinite(value))
    return Figure(
        name=f"parity-{points.quantity}",
        title=title,
        alt=f"{title}, predicted against label, a panel for each potential. RMSE in {UNITS[points.quantity]}: {words}.",
        draw=_drawing(points),
        note="The line is where prediction and label agree. Darker is denser, on a logarithmic scale."
        if len(points.label) > _MANY_POINTS
        else "The line is where prediction and label agree.",
    )


def _drawing(points: Parity) -> Callable[[Palette], Canvas]:
    def draw(palette: Palette) -> Canvas:
        names = list(points.predicted)
        canvas, axes = panels(palette, len(names), columns=4 if len(names) == 4 else 3, height=2.5)
        low, high = (float(points.label.min()), float(points.label.max())) if len(points.label) else (0.0, 1.0)
        margin = _BEYOND * (high - low) or 1.0
        for number, (panel, name) in enumerate(zip(axes, names, strict=True)):
            _panel(panel, points, name, (low - margin, high + margin), palette)
            panel.set_xlabel(f"label ({UNITS[points.quantity]})")
            if number == 0 or palette.narrow:
                panel.set_ylabel("predicted")
        return canvas

    return draw


def _panel(panel: Axes, points: Parity, name: str, limits: tuple[float, float], palette: Palette) -> None:
    label, predicted = points.label, points.predicted[name]
    known = np.isfinite(predicted)
    label, predicted = label[known], predicted[known]
    inside = (predicted >= limits[0]) & (predicted <= limits[1])
    if (n_inside := int(inside.sum())) > _MANY_POINTS:
        each = -(-n_inside // _MOST_POINTS)
        x, y = label[inside][::each], predicted[inside][::each]
        panel.hexbin(
            x, y, gridsize=_BINS, extent=(*limits, *limits), bins="log", mincnt=1, linewidths=0.0, cmap=palette.density(name),
            rasterized=True,
        )  # fmt: skip
    else:
        panel.plot(label[inside], predicted[inside], "o", color=palette.color(name), markersize=2.2, alpha=0.55, mew=0.0)
    panel.plot(limits, limits, color=palette.muted, linewidth=0.8)
    panel.set_xlim(*limits)
    panel.set_ylim(*limits)
    panel.set_aspect("equal")
    panel.set_title(label_of(name))
    lines = [f"RMSE {_rmse(label, predicted):.3g}" if len(label) else "nothing predicted"]
    if (n_outside := int((~inside).sum())) > 0:
        lines.append(f"{n_outside} outside")
    panel.text(0.04, 0.96, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=8.5)


def _rmse(label: FloatArray, predicted: FloatArray) -> float:
    known = np.isfinite(predicted)
    return float(np.sqrt(((predicted - label)[known] ** 2).mean())) if known.any() else float("nan")
