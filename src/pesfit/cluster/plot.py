"""A picture of how many conformers the clusters hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pesfit.core.arrays import LongArray
from pesfit.core.plotting import PALETTE, new_figure, save_png

_COLUMNS = 3
_FEWEST_BINS = 4
"""Room for this many bars, so that one alone is not a wall."""


def plot_cluster_sizes(path: Path, sizes: Mapping[str, Sequence[int]], cutoff_angstrom: float) -> None:
    """Draw, for each source, how many clusters there are of each size.

    The file's bytes depend on the arguments alone.

    Args:
        path: PNG to write.
        sizes: for each clustered source, the number of conformers in each of its clusters.
        cutoff_angstrom: [Å], for the title.
    """
    shown = {source: np.asarray(values, dtype=np.int64) for source, values in sizes.items() if len(values)}
    n_columns = max(1, min(_COLUMNS, len(shown)))
    n_rows = max(1, -(-len(shown) // n_columns))
    title = f"Clusters of like conformers (RMSD at most {cutoff_angstrom:g} Å from the centroid)"
    figure = new_figure(max(6.4, 4.2 * n_columns), 1.0 + 3.2 * n_rows, title)
    if not shown:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No source was clustered: see `cluster.sources` in params.yaml", ha="center", va="center")
    edges = _bin_edges(max((int(values.max()) for values in shown.values()), default=1))
    for i, (source, values) in enumerate(shown.items()):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        _histogram(axes, values, edges, PALETTE[i % len(PALETTE)])
        axes.set_title(f"{source}\n{values.sum():,} conformers → {len(values):,} clusters", fontsize=10)
        if i % n_columns == 0:
            axes.set_ylabel("clusters")
        if i + n_columns >= len(shown):
            axes.set_xlabel("conformers in the cluster")
    save_png(figure, path)


def _bin_edges(largest: int) -> npt.NDArray[np.float64]:
    """Return edges that double: 1, 2-3, 4-7, ... conformers."""
    n_bins = int(largest).bit_length()
    return np.exp2(np.arange(n_bins + 1))


def _histogram(axes: Axes, values: LongArray, edges: npt.NDArray[np.float64], color: str) -> None:
    counts, _ = np.histogram(values, edges)
    positions = np.arange(len(counts))
    bars = axes.bar(positions, counts, width=0.92, color=color)
    axes.bar_label(bars, labels=[_short(int(count)) for count in counts], fontsize=8 if len(counts) <= 9 else 7, padding=2)
    axes.set_xlim(-0.6, max(len(counts), _FEWEST_BINS) - 0.4)
    axes.set_xticks(positions, [_bin_name(int(edges[i]), int(edges[i + 1]) - 1) for i in positions])
    axes.tick_params(axis="x", rotation=0 if len(counts) <= 6 else 45, labelsize=8)
    if counts.max() >= 100:
        axes.set_yscale("log")
        axes.set_ylim(0.7, counts.max() * 3.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0.0, counts.max() * 1.15)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _short(count: int) -> str:
    """Write a count as 312, 7.5k or 12M, and nothing for none, so that labels of neighboring bars do not touch."""
    for factor, suffix in ((1_000_000, "M"), (1000, "k")):
        if count >= factor:
            return f"{count / factor:.{1 if count < 9.95 * factor else 0}f}{suffix}"
    return str(count) if count else ""


def _bin_name(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
