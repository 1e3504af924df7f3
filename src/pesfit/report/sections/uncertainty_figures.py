"""Figures of uncertainty: calibration curves, errors binned by deviation, and AUROC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.evaluate.names import in_order, label_of
from pesfit.evaluate.out_of_distribution import Separation
from pesfit.evaluate.uncertainty import QUANTITIES, Judged, Quantity
from pesfit.report.page.blocks import Figure
from pesfit.report.page.figures import Palette, legend, log_axis, panels
from pesfit.report.page.format_numbers import number
from pesfit.uncertainty.scores import LEVELS, binned

_TITLES: dict[Quantity, str] = {"forces": "force components (kcal/mol/Å)", "relative_energy": "relative energies (kcal/mol)"}


def curve_figure(judged: Sequence[Judged]) -> Figure:
    """Return observed against nominal coverage, a panel for each quantity."""
    quantities = [quantity for quantity in QUANTITIES if any(each.quantity == quantity for each in judged)]

    def draw(palette: Palette) -> Canvas:
        canvas, axes = panels(palette, len(quantities), columns=2, height=3.0)
        for panel, quantity in zip(axes, quantities, strict=True):
            panel.plot([0.0, 1.0], [0.0, 1.0], color=palette.muted, linewidth=0.8)
            for each in judged:
                if each.quantity == quantity:
                    panel.plot(
                        LEVELS, each.judgement.curve, color=palette.color(each.potential), marker=palette.marker(each.potential),
                        markersize=3.5, label=label_of(each.potential),
                    )  # fmt: skip
            panel.set_title(_TITLES[quantity].split(" (")[0])
            panel.set_xlabel("nominal coverage")
            panel.set_xlim(0.0, 1.0)
            panel.set_ylim(0.0, 1.0)
        axes[0].set_ylabel("observed coverage")
        legend(canvas, palette)
        return canvas

    told = ", ".join(
        f"{label_of(each.potential)}, {_TITLES[each.quantity].split(' (')[0]}: {number(each.judgement.ece, 2)}"
        for each in judged
    )
    return Figure(
        "calibration-curve",
        "Do intervals hold what they promise?",
        f"Observed against nominal coverage on the test set; mean distance from the diagonal of {told}.",
        draw,
        note="Above the diagonal deviations are too large, below it too small. All sources together.",
    )


def binned_figure(judged: Sequence[Judged]) -> Figure:
    """Return the error in bins of the deviation, a panel for each quantity."""
    quantities = [quantity for quantity in QUANTITIES if any(each.quantity == quantity for each in judged)]

    def draw(palette: Palette) -> Canvas:
        canvas, axes = panels(palette, len(quantities), columns=2, height=3.0)
        for panel, quantity in zip(axes, quantities, strict=True):
            _binned_panel(panel, [each for each in judged if each.quantity == quantity], palette)
            panel.set_title(_TITLES[quantity])
            panel.set_xlabel("deviation")
        axes[0].set_ylabel("RMSE")
        legend(canvas, palette)
        return canvas

    told = ", ".join(
        f"{label_of(each.potential)}, {_TITLES[each.quantity].split(' (')[0]}: {number(each.judgement.rank_correlation, 2)}"
        for each in judged
        if each.judgement.rank_correlation is not None
    )
    return Figure(
        "error-by-deviation",
        "Are errors larger where deviations are?",
        f"Root mean square error in bins of the deviation, on the test set; rank correlation of {told or 'none'}.",
        draw,
        note="Each point is a bin with as many errors; on the line an error is as large as its deviation says.",
    )


def auroc_figure(separations: Sequence[Separation]) -> Figure:
    """Return AUROC of every set, with its interval."""
    shown = [(each, each.auroc) for each in separations if each.auroc is not None]
    names = list(dict.fromkeys(each.name for each, _ in shown))
    potentials = in_order(each.potential for each, _ in shown)
    offsets = dict(zip(potentials, np.linspace(-0.15, 0.15, len(potentials)) if len(potentials) > 1 else [0.0], strict=True))

    def draw(palette: Palette) -> Canvas:
        canvas, (panel,) = panels(palette, 1, height=1.2 + 0.42 * len(names))
        for potential in potentials:
            mine = [
                (names.index(each.name) + offsets[potential], each, value)
                for each, value in shown
                if each.potential == potential
            ]
            for place, each, value in mine:
                panel.plot(each.auroc_interval or (value, value), [place, place], color=palette.color(potential), linewidth=1.4)
            panel.plot(
                [value for _, _, value in mine], [place for place, _, _ in mine], color=palette.color(potential),
                marker=palette.marker(potential), linestyle="none", label=label_of(potential),
            )  # fmt: skip
        panel.axvline(0.5, color=palette.muted, linewidth=0.8)
        panel.set_yticks(range(len(names)), [name.removeprefix("probe/") for name in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlim(min(0.45, *(value for _, value in shown)), 1.01)
        panel.set_xlabel("AUROC")
        legend(canvas, palette)
        return canvas

    told = "; ".join(f"{label_of(each.potential)}, {each.name}: {number(value, 2)}" for each, value in shown)
    return Figure(
        "out-of-domain",
        "Do deviations tell what is outside of the training domain?",
        f"AUROC of deviations; {told}.",
        draw,
        note="At 1 every conformer from outside has a larger score than any from inside; at 0.5 scores say nothing.",
    )


def _binned_panel(panel: Axes, judged: Sequence[Judged], palette: Palette) -> None:
    values = []
    for each in judged:
        bins = binned(each.sample.errors, each.sample.deviations)
        panel.plot(
            bins.deviation, bins.rmse, color=palette.color(each.potential), marker=palette.marker(each.potential),
            markersize=3.5, label=label_of(each.potential),
        )  # fmt: skip
        values += [*bins.deviation[bins.deviation > 0.0].tolist(), *bins.rmse[bins.rmse > 0.0].tolist()]
    ends = (min(values, default=0.1) / 1.3, max(values, default=1.0) * 1.3)
    panel.plot(ends, ends, color=palette.muted, linewidth=0.8)
    log_axis(panel, "x")
    log_axis(panel, "y")
    panel.set_xlim(*ends)
    panel.set_ylim(*ends)
