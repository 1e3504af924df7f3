"""The report of a fit: parameters before and after, the path over prior strengths, figures, and a summary in Markdown."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.core.plotting import BLUE, GREEN, VERMILION, new_figure, save_png
from pesfit.data.topology import BONDED_HANDLERS, ForceField, ParameterTable
from pesfit.smirnoff.exact.solve import ExactFit
from pesfit.smirnoff.parameters import FILE_COLUMNS, MINIMUM, Layout
from pesfit.statistics.linear_gaussian import Posterior

_N_COLUMNS = 3
_QUANTITIES = {
    "energy RMSE": "energy_rmse_kcal_per_mol",
    "energy, mean of molecules": "energy_mean_molecule_rmse_kcal_per_mol",
    "force RMSE": "force_rmse_kcal_per_mol_per_angstrom",
    "force, mean of molecules": "force_mean_molecule_rmse_kcal_per_mol_per_angstrom",
}
_LANDSCAPE_MEASURES = {
    "frequencies [cm⁻¹]": ("frequency_rms_per_cm", 1),
    "bonds [Å]": ("bond_rms_angstrom", 4),
    "angles [°]": ("angle_rms_degree", 2),
    "dihedrals [°]": ("dihedral_rms_degree", 1),
    "conformer energies [kcal/mol]": ("conformer_energy_rms_kcal_per_mol", 2),
    "scans [kcal/mol]": ("scan_rms_kcal_per_mol", 2),
}
LARGE_CHANGE_DEGREE = 5.0
"""Change of an equilibrium angle from which on the summary names it."""
_GREY = "0.6"


def write_parameters(  # noqa: PLR0913 - contents of the columns
    path: Path, layout: Layout, start: ForceField, fitted: ForceField, posterior: Posterior, *, has_errors: bool
) -> None:
    """Write every trained parameter before and after the fit, with the columns `parameters.FILE_COLUMNS`.

    Args:
        path: CSV to write.
        layout: of the trained parameters.
        start: the force field before the fit.
        fitted: the force field after it.
        posterior: of the exact fit, for prior widths, and for which parameters the data determine.
        has_errors: whether its standard errors are those of `fitted`.
    """
    errors = layout.standard_errors(start, posterior.x, posterior.covariance)
    prior_widths = math.sqrt(posterior.noise_variance / posterior.strength) * layout.value_widths(fitted)
    at_bounds = layout.at_bounds(fitted)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(FILE_COLUMNS)
        for i in range(len(layout)):
            before = start.tables[BONDED_HANDLERS[layout.handler[i]]]
            row, column = int(layout.row[i]), int(layout.is_shift[i])
            periodicity = round(float(before.values[row, 1])) if before.handler not in MINIMUM else ""
            standard_error = f"{errors[before.handler][row, column]:.4g}" if has_errors else ""
            determined, at_bound = ("yes" if flag else "no" for flag in (posterior.determined[i], at_bounds[i]))
            writer.writerow(
                [*_changed(before, fitted, row, column, periodicity), standard_error, f"{prior_widths[i]:.10g}",
                 int(before.uses[row]), determined, at_bound]
            )  # fmt: skip
        vdw = start.tables["vdW"]
        for row, column in np.argwhere(vdw.values != fitted.tables["vdW"].values).tolist():
            writer.writerow([*_changed(vdw, fitted, row, column, ""), "", "", int(vdw.uses[row]), "", ""])


def _changed(before: ParameterTable, fitted: ForceField, row: int, column: int, periodicity: int | str) -> list[object]:
    values = (f"{table.values[row, column]:.10g}" for table in (before, fitted.tables[before.handler]))
    name, unit = before.columns[column], before.units[column]
    return [before.handler, before.ids[row], before.smirks[row], periodicity, name, unit, *values]


def write_path(path: Path, fit: ExactFit) -> None:
    """Write the path over prior strengths as CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        kinds = list(fit.equations.equations["train"])
        parts = [f"{split}_{kind}" for split in ("train", "validation") for kind in kinds]
        writer.writerow(["prior_strength", "effective_parameters", "log_evidence", *parts])
        for point in fit.path:
            values = (
                point.strength,
                point.effective_parameters,
                point.log_evidence,
                *(part[kind] for part in (point.train, point.validation) for kind in kinds),
            )
            writer.writerow([f"{value:.10g}" for value in values])


def plot_changes(path: Path, layout: Layout, start: ForceField, fitted: ForceField, fit: ExactFit) -> None:
    """Draw every trained value after the fit against the value before, one panel for each handler and column.

    The file's bytes depend on the arguments alone.

    Args:
        path: PNG to write.
        layout: of the trained parameters.
        start: the force field before the fit.
        fitted: the force field after it.
        fit: for error bars, and for which parameters the data determine.
    """
    errors = layout.standard_errors(start, fit.posterior.x, fit.posterior.covariance)
    panels = [(h, shift) for h in range(len(BONDED_HANDLERS)) for shift in (False, True)]
    panels = [(h, shift) for h, shift in panels if ((layout.handler == h) & (layout.is_shift == shift)).any()]
    figure = _figure(len(panels), "Trained parameters (gray: not determined by the data)")
    for number, (handler, shift) in enumerate(panels):
        name = BONDED_HANDLERS[handler]
        entries = np.flatnonzero((layout.handler == handler) & (layout.is_shift == shift))
        column = start.tables[name].columns.index(MINIMUM[name]) if shift else 0
        rows = layout.row[entries]
        axes = figure.add_subplot(-(-len(panels) // _N_COLUMNS), min(_N_COLUMNS, len(panels)), number + 1)
        before, after = (tables[name].values[rows, column] for tables in (start.tables, fitted.tables))
        _scatter(axes, before, after, errors[name][rows, column], fit.posterior.determined[entries])
        axes.set_title(f"{name}: {start.tables[name].columns[column]}", fontsize=10)
        axes.set_xlabel(f"before [{start.tables[name].units[column]}]", fontsize=8)
        axes.set_ylabel("after", fontsize=8)
    save_png(figure, path)


def plot_path(path: Path, fit: ExactFit) -> None:
    """Draw errors, effective parameters and evidence against the strength of the prior.

    Args:
        path: PNG to write; its bytes depend on the arguments alone.
        fit: the result.
    """
    strengths = np.array([point.strength for point in fit.path])
    figure = _figure(3, "Along the strength of the prior (dotted: chosen)")
    axes = figure.add_subplot(1, 3, 1)
    for split, color in (("train", BLUE), ("validation", VERMILION)):
        objective = np.array([_objective(getattr(point, split), fit.weights) for point in fit.path])
        if objective.min() > 0.0:
            axes.plot(strengths, objective / objective[-1], color=color, label=split)
    axes.set_title("objective, relative to the strongest prior", fontsize=10)
    axes.set_yscale("log")
    if axes.lines:  # a perfect fit has nothing to draw
        axes.legend(fontsize=8, frameon=False)
    for number, (title, name) in enumerate(
        (("effective number of parameters", "effective_parameters"), ("log evidence", "log_evidence"))
    ):
        other = figure.add_subplot(1, 3, number + 2)
        other.plot(strengths, [getattr(point, name) for point in fit.path], color=GREEN)
        other.set_title(title, fontsize=10)
    for each in figure.axes:
        each.set_xscale("log")
        each.axvline(fit.posterior.strength, color=_GREY, linestyle=":")
        each.set_xlabel("prior strength", fontsize=8)
        _plain(each)
    save_png(figure, path)


def log_path(folder: Path, fit: ExactFit, prior_widths: FloatArray) -> None:
    """Write the path for TensorBoard; a step is a point of it, from the weakest prior to the strongest.

    Args:
        folder: of the run; earlier files in it are removed.
        fit: the result.
        prior_widths: of the trained vector, whose change is shown in them, shape (n,).
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for step, point in enumerate(fit.path):
            values = {
                "log10_prior_strength": float(np.log10(point.strength)),
                "effective_parameters": point.effective_parameters,
                "log_evidence": point.log_evidence,
                "objective/train": _objective(point.train, fit.weights),
                "objective/validation": _objective(point.validation, fit.weights),
            } | {
                f"{kind}/{split}": part[kind]
                for split, part in (("train", point.train), ("validation", point.validation))
                for kind in part
            }
            for name, value in values.items():
                writer.add_scalar(f"path/{name}", value, step)
        writer.add_histogram("change_in_prior_widths", fit.posterior.x / prior_widths)


def _objective(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights[kind] * part for kind, part in parts.items())


def _figure(n_panels: int, title: str) -> Figure:
    n_rows = -(-n_panels // _N_COLUMNS)
    return new_figure(4.0 * min(n_panels, _N_COLUMNS), 0.6 + 3.4 * n_rows, title)


def _scatter(axes: Axes, before: FloatArray, after: FloatArray, errors: FloatArray, determined: BoolArray) -> None:
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    axes.plot([low, high], [low, high], color=_GREY, linewidth=0.8, zorder=1)
    axes.plot(before[~determined], after[~determined], "o", color=_GREY, markersize=3, zorder=2)
    bars = np.nan_to_num(errors[determined])
    axes.errorbar(before[determined], after[determined], bars, fmt="o", color=BLUE, markersize=3, elinewidth=0.7, zorder=3)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_summary(path: Path, metrics: Mapping[str, Any], undetermined: Sequence[str]) -> None:
    """Write errors before and after, for each split and source, and the parameters that the data do not determine.

    Args:
        path: file to write.
        metrics: of `fit_smirnoff`.
        undetermined: parameters that stayed at their prior, such as `Bonds b3 k`.
    """
    path.write_text("\n".join(_lines(metrics, undetermined)) + "\n")


def _lines(metrics: Mapping[str, Any], undetermined: Sequence[str]) -> Iterator[str]:
    yield "# The fit of SMIRNOFF parameters"
    yield ""
    yield (
        "Energies are relative to each molecule's mean, in kcal/mol, forces in kcal/mol/Å; before → after, with the 95 % interval "
        "of the latter over resamples of molecules where there are at least ten. RMSE is the root of the mean square over all "
        "conformers, the other column the mean over molecules of each molecule's RMSE."
    )
    yield from _notable(metrics)
    for split, sources in metrics["errors"].items():
        yield from ["", f"## {split.capitalize()}", ""]
        yield "| source | molecules | conformers | " + " | ".join(_QUANTITIES) + " |"
        yield "| --- | --- | --- |" + " --- |" * len(_QUANTITIES)
        for source, errors in sources.items():
            cells = [_change(errors, key) for key in _QUANTITIES.values()]
            yield f"| {source} | {errors['molecules']} | {errors['conformers']} | " + " | ".join(cells) + " |"
    yield from _landscapes(metrics.get("landscapes", {}))
    yield from _left_out(metrics.get("left_out"))
    yield from ["", f"## Parameters that the data do not determine ({len(undetermined)})", ""]
    yield "They stay near their starting values, where the prior holds them: " + (", ".join(undetermined) or "none") + "."


def _notable(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Name first what a reader of the force field would stop at."""
    for key, title in (
        ("equilibrium_angles_changed", f"Equilibrium angles changed by more than {LARGE_CHANGE_DEGREE:g}°"),
        ("parameters_at_a_bound", "Parameters at a bound"),
    ):
        if key in metrics:
            yield from ["", f"{title}: {', '.join(metrics[key]) or 'none'}."]


def _landscapes(landscapes: Mapping[str, Any]) -> Iterator[str]:
    errors = landscapes.get("errors", {})
    if not errors:
        return
    yield from ["", "## Minima and torsion scans", ""]
    yield (
        "Root mean squares over molecules, before → after. Frequencies, displacements and conformer energies are those at the force "
        "field's own minima, without frequencies of minima that it loses; scans at the geometries of the labels."
    )
    yield ""
    yield "| split | molecules | minima | lost | " + " | ".join(_LANDSCAPE_MEASURES) + " |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(_LANDSCAPE_MEASURES)
    for split, both in errors.items():
        cells = [_pair(both, key, digits) for key, digits in _LANDSCAPE_MEASURES.values()]
        before, after = both["before"], both["after"]
        counts = f"{after['molecules']} | {after['minima']} | {before['lost']} → {after['lost']}"
        yield f"| {split} | {counts} | " + " | ".join(cells) + " |"


def relative_errors(left_out: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
    """Return by kind of rows the errors of the fit, and of molecules left out of it, divided by those of the starting force field.

    Args:
        left_out: `LeftOut` in the metrics of the fit, if there is one.
    """
    if left_out is None:
        return {}
    return {
        kind: (left_out["fitted"][kind] / before, left_out["left_out"][kind] / before)
        for kind, before in left_out["before"].items()
        if before > 0.0
    }


def _left_out(left_out: Mapping[str, Any] | None) -> Iterator[str]:
    errors = relative_errors(left_out)
    if not errors:
        return
    yield from ["", "## Training molecules left out", ""]
    yield (
        "Errors by kind of rows, in those of the starting force field: of the fit, and of each molecule with what is fitted to all others "
        "(last linear problem, without bounds). Above 1 is worse than the start."
    )
    yield from ["", "| rows | fitted | left out |", "| --- | --- | --- |"]
    for kind, (fitted, without) in errors.items():
        yield f"| {kind} | {fitted:.2f} | {without:.2f} |"


def _pair(both: Mapping[str, Any], key: str, digits: int) -> str:
    before, after = (both[label].get(key) for label in ("before", "after"))
    return "none" if before is None or after is None else f"{before:.{digits}f} → **{after:.{digits}f}**"


def notable(layout: Layout, start: ForceField, fitted: ForceField) -> dict[str, list[str]]:
    """Name equilibrium angles that changed by more than `LARGE_CHANGE_DEGREE`, the largest change first, and parameters at a bound."""
    before, after = (tables["Angles"].values[:, 1] for tables in (start.tables, fitted.tables))
    change = np.rad2deg(after - before)
    angles = start.tables["Angles"]
    rows = [row for row in np.argsort(-np.abs(change), kind="stable") if abs(change[row]) > LARGE_CHANGE_DEGREE]
    return {
        "equilibrium_angles_changed": [
            f"{angles.ids[row] or angles.smirks[row]} {np.rad2deg(before[row]):.1f}° → {np.rad2deg(after[row]):.1f}°"
            for row in rows
        ],
        "parameters_at_a_bound": layout.names(start, layout.at_bounds(fitted)),
    }


def _change(errors: Mapping[str, Any], key: str) -> str:
    before, after = (errors.get(label, {}).get(key) for label in ("before", "after"))
    if before is None or after is None:
        return "none"
    interval = errors["after"].get(f"{key}_interval_95")  # none for a single molecule
    spread = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{before:.2f} → **{after:.2f}**{spread}"
