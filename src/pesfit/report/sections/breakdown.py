"""Table and figure of errors told apart by element, energy or size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator

from pesfit.evaluate.breakdown import Kind, Part
from pesfit.evaluate.names import label_of
from pesfit.report.page.blocks import Cell, Column, Figure, Table
from pesfit.report.page.figures import Palette, log_axis, panels
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT

_MAX_PANELS, _MANY_CATEGORIES = 6, 6
_DECADE = 10.0
_AXIS = {
    "element": "element",
    "energy_above_lowest_kcal_per_mol": "energy above the lowest label (kcal/mol)",
    "n_atoms": "atoms",
}


def breakdown_table(
    parts: Sequence[Part], kind: Kind, name: str, title: str, trained: Mapping[int, int] | None = None
) -> Table:
    """Return a row for each source and category, with a column of force MAE for each potential.

    Args:
        parts: from `breakdown.breakdown`.
        kind: of their categories.
        name: of the files.
        title: of the table.
        trained: number of training conformers of each category; None where they are not counted.
    """
    rows: dict[tuple[str, int], dict[str, Cell]] = {}
    for part in parts:
        row = rows.setdefault((part.source, part.category), {"source": part.source, kind.name: part.label, "conformers": 0})
        row["conformers"] = max(part.n_conformers, int(row["conformers"] or 0))
        row["force_components"] = max(part.n_components, int(row.get("force_components") or 0))
        if trained is not None:
            row["training_conformers"] = trained.get(part.category, 0)
        row |= {
            f"{part.potential}_force_mae_{FORCE_UNIT}": part.force_mae,
            f"{part.potential}_force_rmse_{FORCE_UNIT}": part.force_rmse,
        }
        if not kind.of_atoms:
            row |= {
                f"{part.potential}_energy_mae_{ENERGY_UNIT}": part.energy_mae,
                f"{part.potential}_energy_rmse_{ENERGY_UNIT}": part.energy_rmse,
            }
    columns = [Column("source", "source"), Column(kind.name, _AXIS[kind.name]), Column("conformers", "conformers")]
    if trained is not None:
        columns.append(Column("training_conformers", "training conformers, all sources"))
    columns += [
        Column(f"{potential}_force_mae_{FORCE_UNIT}", label_of(potential), "kcal/mol/Å")
        for potential in dict.fromkeys(part.potential for part in parts)
    ]
    note = (
        "Mean absolute errors of forces. The file has RMSE too, and errors of relative energies where they can be told apart."
    )
    if trained is not None:
        note += " A size without training conformers shows how far a potential carries over to larger or smaller molecules."
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    complete = [
        {key: row.get(key) for key in keys} for row in rows.values()
    ]  # where a potential can say nothing, its cells are empty
    return Table(name, title, columns, complete, note=note, folded=True)


def breakdown_figure(parts: Sequence[Part], kind: Kind, name: str, title: str) -> Figure:
    """Draw the force MAE over the categories, a panel for each of the sources with most conformers."""
    parts = [part for part in parts if part.force_mae is not None]
    potentials = list(dict.fromkeys(part.potential for part in parts))
    sizes: dict[str, int] = {}
    for part in parts:
        if part.source != ALL:
            sizes[part.source] = sizes.get(part.source, 0) + part.n_conformers
    chosen = sorted(sorted(sizes, key=lambda source: (-sizes[source], source))[:_MAX_PANELS])
    left_out = len(sizes) - len(chosen)
    note = "The lower numbers under each axis are test conformers."
    if left_out:
        note += f" These are the {_MAX_PANELS} sources with most of them; the table has all {len(sizes)}."
    return Figure(
        name=name,
        title=title,
        alt=f"Mean absolute error of forces in kcal/mol/Å, {_AXIS[kind.name]}, every potential: {', '.join(chosen) or 'no labels'}.",
        draw=_drawing(parts, chosen, potentials, _AXIS[kind.name], connected=not kind.of_atoms),
        note=note,
    )


def _drawing(
    parts: Sequence[Part], sources: Sequence[str], potentials: Sequence[str], axis: str, *, connected: bool
) -> Callable[[Palette], Canvas]:
    def draw(palette: Palette) -> Canvas:
        canvas, axes = panels(palette, max(1, len(sources)), columns=3 if len(sources) > 2 else 2, height=2.8)
        values = [part.force_mae for part in parts if part.source in sources and part.force_mae]
        n_columns = 1 if palette.narrow else min(len(sources), 3)
        for number, (panel, source) in enumerate(zip(axes, sources, strict=False)):
            _panel(panel, [part for part in parts if part.source == source], potentials, palette, connected=connected)
            panel.set_title(source)
            panel.set_xlabel(axis)
            if number % n_columns == 0:
                panel.set_ylabel("force MAE (kcal/mol/Å)")
            _same_height(panel, values)
        if sources:
            handles, labels = axes[0].get_legend_handles_labels()
            canvas.legend(handles, labels, loc="outside upper left", ncols=2 if palette.narrow else len(potentials))
        else:
            axes[0].text(0.5, 0.5, "no force labels", ha="center", va="center", transform=axes[0].transAxes)
        return canvas

    return draw


def _same_height(panel: Axes, values: Sequence[float]) -> None:
    """Give all panels one axis, logarithmic where errors differ by much, so that sources can be compared too."""
    if not values:
        return
    if max(values) > _DECADE * min(values):
        log_axis(panel, "y")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.set_ylim(min(values) / 1.3, max(values) * 1.3)
    else:
        panel.set_ylim(0.0, max(values) * 1.1)


def _panel(panel: Axes, parts: Sequence[Part], potentials: Sequence[str], palette: Palette, *, connected: bool) -> None:
    categories = sorted({part.category for part in parts})
    place = {category: float(i) for i, category in enumerate(categories)}
    names = {part.category: part.label for part in parts}
    counts = {category: max(part.n_conformers for part in parts if part.category == category) for category in categories}
    offsets = np.linspace(-0.18, 0.18, len(potentials)) if not connected and len(potentials) > 1 else np.zeros(len(potentials))
    for potential, offset in zip(potentials, offsets, strict=True):
        mine = [part for part in parts if part.potential == potential]
        panel.plot(
            [place[part.category] + offset for part in mine], [part.force_mae or 0.0 for part in mine],
            color=palette.color(potential), marker=palette.marker(potential), label=label_of(potential),
            linestyle=palette.line(potential) if connected else "none",
        )  # fmt: skip
    is_crowded = len(categories) > _MANY_CATEGORIES
    gap = " · " if is_crowded else "\n"
    panel.set_xticks(range(len(categories)), [f"{names[category]}{gap}{counts[category]:,}" for category in categories])
    panel.set_xlim(-0.5, len(categories) - 0.5)
    if is_crowded:
        panel.tick_params(axis="x", labelrotation=60, labelsize=7.5)
