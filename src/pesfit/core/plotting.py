"""Pictures that stages write beside their outputs: one palette, one canvas, and PNG files whose bytes depend on the data alone."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pesfit.core.files import atomic_write

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE = PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colors of Okabe and Ito (jfly.uni-koeln.de/color), which color-blind readers tell apart, in order of use."""


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure that needs no display.

    Args:
        width: in inches, of 120 pixels each.
        height: in inches.
        title: above everything.
    """
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the version of matplotlib, which its metadata would hold otherwise."""
    with atomic_write(path) as new:
        figure.savefig(new, format="png", metadata={"Software": None})
