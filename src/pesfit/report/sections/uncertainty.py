"""The section on uncertainty: calibration of predicted standard deviations (σ), and detection of conformers out of distribution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pesfit.evaluate.out_of_distribution import INSIDE, OTHER_MOLECULES, Separation
from pesfit.evaluate.uncertainty_scores import QUANTITIES, Judged, Quantity, UncertaintyScores
from pesfit.report.page.blocks import Block, Cell, Figure, Layout, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import MUTED, color_of, in_order, label_of, legend, log_axis, name_rows, panels, series
from pesfit.report.page.tables import number
from pesfit.statistics.errors import ALL
from pesfit.statistics.resampling import Interval
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.scores import LEVELS, binned

_LABELS: dict[Quantity, str] = {"forces": "force components", "relative_energy": "relative energies"}
_UNITS: dict[Quantity, tuple[str, str]] = {
    "forces": ("kcal/mol/Å", "kcal_per_mol_per_angstrom"),
    "relative_energy": ("kcal/mol", "kcal_per_mol"),
}
_NONE = (
    "No potential of this run has a posterior, so there are no predicted uncertainties: a SMIRNOFF fit with `method: exact` and the "
    "conservative network have one."
)
_ABOUT = (
    "The posterior of the SMIRNOFF parameters, and that of the network's last layer, give a standard deviation σ for every energy and "
    "force component. It covers the uncertainty of the parameters alone, so it is scaled by one factor, fitted on the validation set. NLL "
    "is the mean negative log-likelihood of the test errors (nats; lower is better): with the scaled σ, with the posterior plus "
    "homoscedastic noise instead, and with one constant σ for all. A σ that distinguishes large errors from small ones has a lower NLL "
    "than the constant."
)
_DOMAIN = (
    "The score of a conformer is σ of the force on its most uncertain atom. AUROC is the probability that a conformer out of distribution "
    "has a higher score than a test conformer of a molecule that was trained on (0.5: chance). Flagged: score above the 99.9 % quantile of "
    "the molecule's own training conformers where it has at least a hundred, and of all training conformers where it has fewer; that is "
    "high where some molecules of the training set are poorly covered. Probes are of molecules that were trained on, labeled with "
    "GFN2-xTB. Intervals are over resamples of molecules, or of blocks of the frames of a single one, where both sets have at least ten."
)
_NOTES: dict[Quantity, str] = {
    "forces": "",
    "relative_energy": " Energies are relative to the first test conformer of the row, as is their σ.",
}


def sentences(scores: UncertaintyScores) -> Iterator[str]:
    """Yield the sentences for the first screen."""
    covered = [
        f"{100.0 * each.judgment.coverage_95:.0f} % ({label_of(each.potential)})"
        for each in scores.judged
        if each.source == ALL and each.quantity == "forces"
    ]
    apart = [
        f"{each.auroc:.2f} ({label_of(each.potential)})"
        for each in scores.separations
        if each.name == OTHER_MOLECULES and each.auroc is not None
    ]
    if covered:
        yield f"Predicted 95 % intervals cover {' and '.join(covered)} of the force errors of the test set."
    if apart:
        yield f"Molecules that were not trained on have larger predicted standard deviations: AUROC {' and '.join(apart)}."


def section(scores: UncertaintyScores) -> PageSection:
    """Return the section on uncertainty."""
    judged, separations, calibrations = scores.judged, scores.separations, scores.calibrations
    blocks: list[Block] = [Text(_ABOUT if judged else _NONE)]
    if judged:
        for quantity in QUANTITIES:
            of_quantity = [each for each in judged if each.quantity == quantity]
            blocks += [_scores(of_quantity, quantity)] if of_quantity else []
        pooled = [each for each in judged if each.source == ALL]
        blocks += [_calibration_curves(pooled), _binned_errors(pooled)]
    if any(calibration is not None for calibration in calibrations.values()):
        blocks.append(_factors(calibrations))
    if separations:
        blocks.append(_separations(separations))
    if any(each.auroc is not None for each in separations):
        blocks.append(_auroc(separations))
    return PageSection("uncertainty", "Uncertainty: calibration and out-of-distribution detection", blocks)


def _scores(judged: Sequence[Judged], quantity: Quantity) -> Table:
    unit, key = _UNITS[quantity]
    several = len({each.source for each in judged}) > 2
    shown = [each for each in judged if several or each.source != ALL]
    sources = list(dict.fromkeys(each.source for each in shown))
    rows: list[dict[str, Cell]] = []
    for each in sorted(shown, key=lambda one: sources.index(one.source)):
        found = each.judgment
        row: dict[str, Cell] = {"source": each.source, "potential": each.potential, "label": label_of(each.potential)}
        row |= {"n_values": found.n_values, f"rmse_{key}": found.rmse}
        for name in ("nll", "nll_with_noise", "nll_constant"):
            row |= {name: getattr(found, name), **_ends(name, getattr(found, f"{name}_interval"))}
        for ending in ("", "_with_noise", "_constant"):
            row[f"expected_calibration_error{ending}"] = getattr(found, f"ece{ending}")
        row |= {"coverage_95": found.coverage_95, **_ends("coverage_95", found.coverage_95_interval)}
        rows.append(row | {"rank_correlation": found.rank_correlation, "resampled": found.resampled})
    columns = (
        TableColumn("label", "potential"),
        TableColumn(f"rmse_{key}", "RMSE", unit),
        TableColumn("nll", "NLL", interval="nll"),
        TableColumn("nll_with_noise", "NLL, with noise"),
        TableColumn("nll_constant", "NLL, constant σ"),
        TableColumn("expected_calibration_error", "calibration error", digits=2),
        TableColumn("coverage_95", "95\u202f% coverage", interval="coverage_95"),
        TableColumn("rank_correlation", "rank correlation", digits=2),
    )
    note = (
        "95 % coverage: fraction of errors within the 95 % interval. Calibration error: mean |observed − nominal coverage|. Rank "
        f"correlation (Spearman): of |error| and σ.{_NOTES[quantity]}"
    )
    name = f"uncertainty-{quantity.replace('_', '-')}"
    return Table(name, f"Calibration of uncertainties: {_LABELS[quantity]}, test set", columns, rows, note, group="source")


def _factors(calibrations: Mapping[str, Calibration | None]) -> Table:
    rows: list[dict[str, Cell]] = []
    for potential, calibration in calibrations.items():
        for quantity in QUANTITIES if calibration is not None else ():
            scale = getattr(calibration, quantity)
            rows.append(
                {
                    "potential": potential,
                    "label": label_of(potential),
                    "quantity": _LABELS[quantity],
                    "factor": scale.factor,
                    "noise": scale.noise,
                    "unit": _UNITS[quantity][0],
                    "n_values": scale.n_values,
                }
            )
    columns = (
        TableColumn("label", "potential"),
        TableColumn("quantity", "quantity"),
        TableColumn("factor", "factor"),
        TableColumn("noise", "noise instead"),
        TableColumn("unit", "unit"),
        TableColumn("n_values", "validation errors"),
    )
    return Table("uncertainty-factors", "Calibration factors of σ, from the validation set", columns, rows, folded=True)


def _separations(separations: Sequence[Separation]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "potential": each.potential,
            "label": label_of(each.potential),
            "set": each.name,
            "n_conformers": each.n_conformers,
            "n_molecules": each.n_molecules,
            "auroc": each.auroc,
            **_ends("auroc", each.auroc_interval),
            "flagged_percent": None if each.flagged is None else 100.0 * each.flagged,
            "median_score_kcal_per_mol_per_angstrom": each.median_score,
            "force_rmse_kcal_per_mol_per_angstrom": each.force_rmse,
            "coverage_95": each.coverage_95,
        }
        for each in separations
    ]
    columns = (
        TableColumn("set", "set"),
        TableColumn("n_conformers", "conformers"),
        TableColumn("auroc", "AUROC", interval="auroc"),
        TableColumn("flagged_percent", "flagged", "%", digits=2),
        TableColumn("median_score_kcal_per_mol_per_angstrom", "median score", "kcal/mol/Å"),
        TableColumn("force_rmse_kcal_per_mol_per_angstrom", "force RMSE", "kcal/mol/Å"),
        TableColumn("coverage_95", "95\u202f% coverage", digits=2),
    )
    note = f"{_DOMAIN} “{INSIDE}”: test conformers of molecules that were trained on."
    return Table("uncertainty-domain", "Out-of-distribution detection by σ of the forces", columns, rows, note, group="label")


def _ends(key: str, interval: Interval | None) -> dict[str, Cell]:
    low, high = (None, None) if interval is None else interval
    return {f"{key}_low": low, f"{key}_high": high}


def _calibration_curves(judged: Sequence[Judged]) -> Figure:
    """Return observed against nominal coverage, a panel for each quantity."""

    def draw(layout: Layout) -> Canvas:
        canvas, by_quantity = _panels(layout, judged, "nominal coverage", "observed coverage")
        for quantity, panel in by_quantity.items():
            panel.plot([0.0, 1.0], [0.0, 1.0], color=MUTED, linewidth=0.8)
            for each in judged:
                if each.quantity == quantity:
                    panel.plot(LEVELS, each.judgment.curve, **series(each.potential), markersize=3.5)
            panel.set_xlim(0.0, 1.0)
            panel.set_ylim(0.0, 1.0)
        legend(canvas)
        return canvas

    told = ", ".join(f"{label_of(each.potential)}, {_LABELS[each.quantity]}: {number(each.judgment.ece, 2)}" for each in judged)
    return Figure(
        "calibration-curve",
        "Calibration curves: observed against nominal coverage",
        f"Observed against nominal coverage on the test set; mean distance from the diagonal of {told}.",
        draw,
        note="Above the diagonal σ is overestimated, below it underestimated. All sources together.",
    )


def _binned_errors(judged: Sequence[Judged]) -> Figure:
    """Return the RMSE in bins of σ, a panel for each quantity."""

    def draw(layout: Layout) -> Canvas:
        canvas, by_quantity = _panels(layout, judged, "σ", "RMSE")
        for quantity, panel in by_quantity.items():
            _binned(panel, [each for each in judged if each.quantity == quantity])
            panel.set_xlabel(f"σ ({_UNITS[quantity][0]})")
        legend(canvas)
        return canvas

    told = ", ".join(
        f"{label_of(each.potential)}, {_LABELS[each.quantity]}: {number(each.judgment.rank_correlation, 2)}"
        for each in judged
        if each.judgment.rank_correlation is not None
    )
    return Figure(
        "error-by-uncertainty",
        "Reliability diagram: RMSE in bins of σ",
        f"Root mean square error in bins of σ, on the test set; rank correlation of {told or 'none'}.",
        draw,
        note="All bins of a potential hold the same number of errors. On the line RMSE = σ.",
    )


def _panels(layout: Layout, judged: Sequence[Judged], x: str, y: str) -> tuple[Canvas, dict[Quantity, Axes]]:
    quantities = [quantity for quantity in QUANTITIES if any(each.quantity == quantity for each in judged)]
    canvas, axes = panels(layout, len(quantities), columns=2, height=3.0)
    for panel, quantity in zip(axes, quantities, strict=True):
        panel.set_title(_LABELS[quantity])
        panel.set_xlabel(x)
    axes[0].set_ylabel(y)
    return canvas, dict(zip(quantities, axes, strict=True))


def _binned(panel: Axes, judged: Sequence[Judged]) -> None:
    values: list[float] = []
    for each in judged:
        bins = binned(each.sample.errors, each.sample.std)
        panel.plot(bins.std, bins.rmse, **series(each.potential), markersize=3.5)
        values += [value for value in (*bins.std.tolist(), *bins.rmse.tolist()) if value > 0.0]
    ends = (min(values, default=0.1) / 1.3, max(values, default=1.0) * 1.3)
    panel.plot(ends, ends, color=MUTED, linewidth=0.8)
    log_axis(panel, "x")
    log_axis(panel, "y")
    panel.set_xlim(*ends)
    panel.set_ylim(*ends)


def _auroc(separations: Sequence[Separation]) -> Figure:
    """Return AUROC of every set, with its interval."""
    shown = [(each, each.auroc) for each in separations if each.auroc is not None]
    names = list(dict.fromkeys(each.name for each, _ in shown))
    potentials = in_order(each.potential for each, _ in shown)
    offsets = dict(zip(potentials, np.linspace(-0.15, 0.15, len(potentials)) if len(potentials) > 1 else [0.0], strict=True))

    def draw(layout: Layout) -> Canvas:
        canvas, (panel,) = panels(layout, 1, height=1.2 + 0.42 * len(names))
        for each, value in shown:
            place = names.index(each.name) + offsets[each.potential]
            panel.plot(each.auroc_interval or (value, value), [place, place], color=color_of(each.potential), linewidth=1.4)
            panel.plot(value, place, **series(each.potential), linestyle="none")
        panel.axvline(0.5, color=MUTED, linewidth=0.8)
        name_rows(panel, [name.removeprefix("probe/") for name in names])
        panel.set_xlim(min(0.45, *(value for _, value in shown)), 1.01)
        panel.set_xlabel("AUROC")
        legend(canvas)
        return canvas

    told = "; ".join(f"{label_of(each.potential)}, {each.name}: {number(value, 2)}" for each, value in shown)
    return Figure(
        "out-of-distribution",
        "AUROC of out-of-distribution detection by σ",
        f"AUROC of σ of the forces; {told}.",
        draw,
        note="1: every conformer out of distribution has a larger σ than any in distribution; 0.5: no separation.",
    )
