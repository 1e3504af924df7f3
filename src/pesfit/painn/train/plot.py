"""A picture of how errors fell over a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from pesfit.core.plotting import GREEN, SKY_BLUE, VERMILION, new_figure, save_png

_COLORS = {"training, each step's own weights": SKY_BLUE, "validation, mean weights": VERMILION}
_PANELS = (
    ("force_mae_kcal_per_mol_per_angstrom", "MAE of forces (kcal/mol/Å)"),
    ("total_energy_mae_kcal_per_mol", "MAE of energy (kcal/mol)"),
    ("loss", "loss"),
)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read `history.csv` of a run."""
    with path.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def plot_learning_curve(path: Path, history: Sequence[Mapping[str, float]], title: str) -> None:
    """Draw errors of training and validation set, and the learning rate, by epoch.

    The file's bytes depend on the arguments alone.

    Args:
        path: PNG to write.
        history: of `loop.Trained`, or from `read_history`.
        title: of the picture.
    """
    figure = new_figure(10.5, 6.4, title)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for panel, (name, label) in zip(axes, _PANELS, strict=False):
        panel.set_ylabel(label)
        for (legend, color), split in zip(_COLORS.items(), ("train", "validation"), strict=True):
            points = [(row["epoch"], row[f"{split}_{name}"]) for row in history if row.get(f"{split}_{name}", 0.0) > 0.0]
            if points:
                panel.plot(
                    *zip(*points, strict=True), color=color, label=legend, linewidth=1.4, marker="o" if len(points) == 1 else ""
                )
        if panel.lines:
            _logarithmic(panel)
        else:
            panel.text(0.5, 0.5, "no labels", ha="center", va="center", transform=panel.transAxes)
    axes[2].legend(frameon=False, fontsize=9)
    axes[3].plot([row["epoch"] for row in history], [row["learning_rate"] for row in history], color=GREEN, linewidth=1.4)
    axes[3].set_ylabel("learning rate")
    for panel in axes:
        panel.grid(color="0.9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[2:]:
        panel.set_xlabel("epoch")
    save_png(figure, path)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    if high < 20.0 * low:  # less than about a decade: the powers of ten alone would leave the axis bare
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="y", which="minor", labelsize=7)
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())
