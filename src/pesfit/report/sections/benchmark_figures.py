"""Figures of the benchmark: what fails and what is worse than at the start, cumulative curves, frequencies, torsion profiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.benchmark import summary as keys
from pesfit.core.arrays import FloatArray
from pesfit.report.page.blocks import Figure, Layout
from pesfit.report.page.figures import INK, MUTED, color_of, label_of, label_rows, legend, log_axis, name_rows, panels, series
from pesfit.report.page.tables import number
from pesfit.report.sections.benchmark import ERRORS, FIT, START, SUBSETS, BenchmarkResults, Row, cell, range_name

_FAULTS = {
    "does not end": (keys.NOT_CONVERGED, keys.MINIMA),
    "bonds break": (keys.BROKEN, keys.MINIMA),
    "basin lost": (keys.LOST, keys.MINIMA),
    "scan point fails": (keys.POINTS_FAILED, keys.SCAN_POINTS),
}
_N_PROFILES = 6
_SHOWN_FRACTION = 0.97
"""Of all values, up to which cumulative curves are drawn."""


def headline_figure(results: BenchmarkResults) -> Figure | None:
    """Return the first figure of the page: shares of failures, and errors relative to the initial force field, worst first."""
    subsets = [subset for subset in results.subsets if any(results.ratio(FIT, subset, m.key) for m in ERRORS)]
    if not subsets:
        return None
    first = subsets[0]
    shown = [m for m in ERRORS if any(results.ratio(FIT, subset, m.key) for subset in subsets)]
    shown.sort(key=lambda m: -(results.ratio(FIT, first, m.key) or 0.0))
    others = [name for name in results.potentials if name != START]
    faults = {
        label: {name: share for name in results.potentials if (share := _share(results, name, *of)) is not None}
        for label, of in _FAULTS.items()
    }

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, 1 + len(subsets), columns=3, height=0.9 + 0.29 * max(len(shown), 5))
        for row, of_label in enumerate(faults.values()):
            for place, name in enumerate(results.potentials):
                if name in of_label:
                    axes[0].plot(
                        of_label[name],
                        row + 0.17 * (place - 1.5),
                        **series(name),
                        linestyle="none",
                        markersize=6.0,
                        clip_on=False,
                    )
        axes[0].set_xlim(left=0.0)
        name_rows(axes[0], list(faults))
        axes[0].set_title("what fails")
        axes[0].set_xlabel("share of all, %")
        for position, (panel, subset) in enumerate(zip(axes[1:], subsets, strict=True)):
            log_axis(panel, "x")
            panel.axvline(1.0, color=color_of(START), linewidth=1.2)
            for row, measure in enumerate(shown):
                for name in others:
                    if (ratio := results.ratio(name, subset, measure.key)) is not None:
                        panel.plot(ratio, row, **series(name), linestyle="none", markersize=6.5)
            name_rows(panel, [m.label for m in shown] if position == 0 or layout == "narrow" else [""] * len(shown))
            panel.set_title(results.named(subset))
            panel.set_xlabel("error relative to initial")
        legend(canvas)
        return canvas

    told = [
        f"{label_of(FIT)}, {results.named(subset)}: "
        + ", ".join(
            f"{m.label} × {number(ratio, 3)}" for m in shown if (ratio := results.ratio(FIT, subset, m.key)) is not None
        )
        for subset in subsets
    ]
    return Figure(
        "summary",
        "What fails, and errors relative to the initial force field",
        "; ".join(told) + ".",
        draw,
        note="Right of the line: worse than the initial force field. On top is what is worst of the fitted one on held-out molecules.",
    )


def _share(results: BenchmarkResults, potential: str, key: str, of: str) -> float | None:
    whole, part = (results.value(potential, keys.ALL_MOLECULES, each) for each in (of, key))
    return None if not whole or part is None else 100.0 * part / whole


def figures(results: BenchmarkResults) -> list[Figure]:
    """Return the figures of the section."""
    return [
        cumulative_figure(results),
        frequency_figure(results),
        profile_error_figure(results),
        *_some(profile_figure(results)),
    ]


def _some(figure: Figure | None) -> list[Figure]:
    return [] if figure is None else [figure]


def cumulative_figure(results: BenchmarkResults) -> Figure:
    """Return the fraction of minima whose RMSD, TFD and |ddE| are below x."""
    quantities: dict[str, tuple[str, Callable[[Row], float | None], Callable[[Row], bool]]] = {
        "RMSD, Å": ("RMSD", lambda row: cell(row["rmsd_angstrom"]), lambda _: True),
        "TFD": ("TFD", lambda row: cell(row["tfd"]), lambda row: bool(row["tfd"])),
        "|ddE|, kcal/mol": ("|ddE|", _dde, lambda row: row["minimum"] != "0"),
    }

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, 3 * len(results.subsets), columns=3, height=2.5)
        places = [(subset, label) for subset in results.subsets for label in quantities]
        for panel, (subset, label) in zip(axes, places, strict=True):
            title, value, counts = quantities[label]
            rows = [row for row in results.minima if row["subset"] == subset and counts(row)]
            curves = {
                name: np.array(
                    [value(row) if row["intact"] == "1" else None for row in rows if row["potential"] == name], dtype=np.float64
                )
                for name in results.potentials
            }
            _cumulative(panel, curves)
            panel.set_title(f"{title}, {SUBSETS[subset]}")
            panel.set_xlabel(label)
        label_rows(axes, "fraction of minima")
        legend(canvas)
        return canvas

    return Figure(
        "benchmark-cumulative",
        "Fraction of minima with a deviation below x",
        "Cumulative distributions of RMSD, TFD and |ddE| of every potential; the mean values are in the tables.",
        draw,
        note="Curves further up are better; minimizations that do not end or break bonds are never reached.",
    )


def _dde(row: Row) -> float | None:
    mine, label = cell(row["relative_energy_kcal_per_mol"]), cell(row["label_kcal_per_mol"])
    return None if mine is None or label is None else abs(mine - label)


def _cumulative(axes: Axes, curves: Mapping[str, FloatArray]) -> None:
    """Draw cumulative distributions; what is not finite counts in the whole alone."""
    finite = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in curves.values())])
    right = float(np.quantile(finite, _SHOWN_FRACTION)) if len(finite) else 1.0
    for name, values in curves.items():
        if len(values):
            reached = np.sort(values[np.isfinite(values)])
            x = np.concatenate([[0.0], reached, [max(right, reached[-1] if len(reached) else 0.0)]])
            y = np.concatenate([np.arange(len(reached) + 1), [len(reached)]]) / len(values)
            axes.step(x, y, where="post", **(series(name, dashes=True) | {"marker": None}))
    axes.set_xlim(0.0, right or 1.0)
    axes.set_ylim(0.0, 1.03)


def frequency_figure(results: BenchmarkResults) -> Figure:
    """Return bias and mean absolute error of frequencies by range."""
    names = [range_name(*ends) for ends in keys.RANGES]

    def draw(layout: Layout) -> Canvas:
        places = [(subset, key) for subset in results.subsets for key in (keys.FREQUENCY_MAE, keys.FREQUENCY_BIAS)]
        canvas, axes = panels(layout, len(places), columns=2, height=2.6)
        for panel, (subset, key) in zip(axes, places, strict=True):
            panel.axvline(0.0, color=MUTED, linewidth=0.8)
            for place, name in enumerate(results.potentials):
                for row, ends in enumerate(keys.RANGES):
                    if (value := results.value(name, subset, keys.in_range(key, *ends))) is not None:
                        panel.plot(value, row + 0.15 * (place - 1.5), **series(name), linestyle="none", markersize=5.5)
            name_rows(panel, names)
            panel.set_title(f"{'mean absolute error' if key == keys.FREQUENCY_MAE else 'bias'}, {SUBSETS[subset]}")
            panel.set_xlabel("cm⁻¹")
        legend(canvas)
        return canvas

    return Figure(
        "benchmark-frequencies",
        "Errors of harmonic frequencies by range of wavenumbers, cm⁻¹",
        "Mean absolute errors and biases of every potential in each range; the numbers are in the table of frequencies.",
        draw,
        note="Bias: predicted minus reference. Molecules count alike.",
    )


def profile_error_figure(results: BenchmarkResults) -> Figure:
    """Return the fraction of scans whose profile has an error below x."""

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, len(results.subsets), columns=2, height=2.6)
        for panel, subset in zip(axes, results.subsets, strict=True):
            of_subset = [row for row in results.scans if row["subset"] == subset]
            _cumulative(panel, {name: _profile_errors(of_subset, name) for name in results.potentials})
            panel.set_title(SUBSETS[subset])
            panel.set_xlabel("RMSE of a torsion profile, kcal/mol")
        label_rows(axes, "fraction of scans")
        legend(canvas)
        return canvas

    return Figure(
        "benchmark-profiles",
        "Fraction of torsion profiles with an error below x",
        "Cumulative distributions of the errors of torsion profiles of every potential.",
        draw,
        note="Curves further up are better.",
    )


def _scans_of(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Group points by scan and potential."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[f"{row['molecule']} {row['scan']}"][row["potential"]].append(row)
    return found


def _profile_errors(rows: Sequence[Row], potential: str) -> FloatArray:
    return np.array([_error(of[potential]) for of in _scans_of(rows).values() if potential in of])


def _error(points: Sequence[Row]) -> float:
    """Return the root mean square error of a profile [kcal/mol]; both columns are relative to their means."""
    pairs = [(cell(row["predicted_kcal_per_mol"]), cell(row["label_kcal_per_mol"])) for row in points]
    errors = [mine - label for mine, label in pairs if mine is not None and label is not None]
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) >= 3 else np.nan


def profile_figure(results: BenchmarkResults) -> Figure | None:
    """Return torsion profiles that the fit has made worst, compared with the start; None without scans of one dihedral."""
    scans = {name: of for name, of in _scans_of(results.scans).items() if all(_is_curve(rows) for rows in of.values())}
    change = {name: _error(of[FIT]) - _error(of[START]) for name, of in scans.items() if FIT in of and START in of}
    worst = sorted((name for name in change if np.isfinite(change[name])), key=lambda name: -change[name])[:_N_PROFILES]
    if not worst:
        return None

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, len(worst), columns=3, height=2.3)
        for panel, name in zip(axes, worst, strict=True):
            label = scans[name][START]
            panel.plot(*_curve(label, "label_kcal_per_mol"), color=INK, linewidth=1.8, label="labels")
            for potential in results.potentials:
                if potential in scans[name]:
                    style = series(potential, dashes=True)
                    panel.plot(
                        *_curve(scans[name][potential], "predicted_kcal_per_mol"), **(style | {"marker": None}), linewidth=1.2
                    )
            molecule, _, dihedral = label[0]["scan"].rpartition("/")
            panel.set_title(f"{molecule.rpartition('/')[2]}, {dihedral}")
            panel.set_xlabel("dihedral angle, °")
            panel.set_xticks([-180, -90, 0, 90, 180])
        label_rows(axes, "energy, kcal/mol")
        legend(canvas)
        return canvas

    told = ", ".join(f"{name.rpartition(' ')[0]} by {number(change[name], 2)} kcal/mol" for name in worst)
    return Figure(
        "benchmark-worst-profiles",
        "Torsion profiles whose error the fit raises most, or lowers least",
        f"Change of the error of each: {told}.",
        draw,
        note="Relaxed scans, energies relative to their mean. Atoms are numbered from 0.",
    )


def _is_curve(rows: Sequence[Row]) -> bool:
    """Tell whether a scan is of one dihedral: with two, angles of the first come again."""
    return len({row["angle_degree"] for row in rows}) == len(rows)


def _curve(rows: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    points = [(float(row["angle_degree"]), cell(row[key])) for row in rows]
    return [x for x, _ in points], [np.nan if y is None else y for _, y in points]
