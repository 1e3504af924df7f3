"""Fit SMIRNOFF parameters to clustered data: the whole of stage 06."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.core.exceptions import DataError, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.runtime import SCRATCH
from pesfit.data.dataset import ConformerDataset, write_failures
from pesfit.data.minima import Landscapes
from pesfit.data.sources import check_source_names
from pesfit.data.splits import SPLITS, TRAIN, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.smirnoff.errors import exact_errors, improvement, summarize_rows
from pesfit.smirnoff.exact.accumulate import STAGE, PassSettings, accumulate, assemble, read
from pesfit.smirnoff.exact.landscape_data import PlacedMinima, landscape_set, place
from pesfit.smirnoff.exact.landscapes import LandscapeSet
from pesfit.smirnoff.exact.solve import ExactFit, fit_exactly
from pesfit.smirnoff.exact.training_set import TrainingSet
from pesfit.smirnoff.exported_files import export_force_field
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows, cut, list_molecules
from pesfit.smirnoff.fit_report import log_path, notable, plot_changes, plot_path, write_parameters, write_path, write_summary
from pesfit.smirnoff.gradient.epochs import RunFiles
from pesfit.smirnoff.gradient.run import (
    GradientData,
    GradientStart,
    fit_by_gradient,
    gradient_metrics,
    write_epochs,
)
from pesfit.smirnoff.openmm_check import order_of_magnitude
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout, add_periodicities, chosen, with_uses, without_linear_torsions
from pesfit.smirnoff.posterior import write_posterior
from pesfit.statistics.normal_equations import ENERGIES, FORCES, save

_EMPTY = "the training set is empty: no molecule of it could be parameterized, or no conformer has a weight above 0"


def fit_smirnoff(  # noqa: PLR0913 - the inputs and outputs of a stage
    datasets: Mapping[str, ConformerDataset],
    parameterized: ParameterizedSet,
    splits: Splits,
    params: FitSmirnoff,
    output: Path,
    *,
    scratch: Path = SCRATCH / STAGE,
    runs: Path | None = None,
    minima: Landscapes | None = None,
) -> dict[str, Any]:
    """Fit the parameters of a force field.

    Writes `force-field.offxml` and `force-field-constrained.offxml` (see `exported_files`), `parameters.csv`, `path.csv` (over prior
    strengths), `posterior.npz` (optimum and covariance), `normal-equations.npz` (of each split), `failures.csv`, the figures `changes.png`
    and `path.png`, and `summary.md`, errors before and after. With `method: gradient` there is `epochs.csv` rather than a posterior.

    Args:
        datasets: clustered data, by name.
        parameterized: the starting force field and the molecules' topologies.
        splits: of all conformers.
        params: section `fit_smirnoff`.
        output: folder to write to.
        scratch: folder for what a run that was killed resumes from; emptied at the end.
        runs: folder for TensorBoard's log of this stage; None for no log.
        minima: minima and torsion scans of molecules, if there are any; those of molecules that are not in the data, or without a topology,
            are left out.

    Returns:
        Metrics.

    Raises:
        ParamsError: where `include` or `exclude` matches no parameter, or bounds leave out a starting value.
        DataError: where there is nothing to fit to.
        TooManyFailuresError: where more than `max_failed_fraction` of the molecules fail.
    """
    molecules, n_left_out = list_molecules(datasets, parameterized)
    inputs = FitInputs(datasets, parameterized, splits)
    placed = [] if minima is None or params.method == "gradient" else place(minima, inputs)
    extension, layout = _trained(molecules, placed, inputs, params)
    check_source_names("fit_smirnoff.objective.source_weights", params.objective.source_weights, {m.source for m in molecules})
    setup = PassSettings(extension.force_field, layout, params.objective.conformer_weight, inputs.paths())
    paths = accumulate(inputs, cut(molecules, params.shards), setup, extension, scratch)

    landscapes, failures = landscape_set(placed, inputs, extension, layout)
    failures += [failure for shard in read(paths) for failure in shard.failures]
    check_failed_fraction(failures, len(molecules) + len(placed), params.max_failed_fraction)
    equations = assemble(read(paths), layout, params.objective, SPLITS)
    if equations.equations["train"].n_rows == 0:
        raise DataError(_EMPTY)
    training = TrainingSet(
        lambda: read(paths),
        params.objective,
        {molecule.id: molecule.group for molecule in molecules},
        len(layout),
        {member.group for member in landscapes.members if member.split == "train"},
    )
    if params.method == "gradient":  # its objective has no parameters of molecules' own
        params = params.model_copy(update={"molecule_strength": None})
    fit = fit_exactly(equations, training, params, landscapes if landscapes.members else None)
    if runs is not None:
        log_path(runs, fit, layout.prior().widths)
    fitted = layout.apply(extension.force_field, fit.posterior.x)
    gradient = None
    labels: tuple[str, ...] = ("before", "after")
    if params.method == "gradient":
        failed = {failure.id for failure in failures}
        data = GradientData(inputs, [molecule for molecule in molecules if molecule.id not in failed], extension)
        weights = fit.weights[ENERGIES], fit.weights[FORCES]
        start = GradientStart(extension.force_field, layout, fit.posterior.x, weights, fit.posterior.strength)
        files = RunFiles(
            scratch / "gradient.npz", None if runs is None else runs / "gradient", " ".join(path.stem for path in paths)
        )
        gradient = fit_by_gradient(data, start, params.gradient, params.objective, files)
        fitted, labels = gradient.force_field, ("before", "exact", "after")
    errors = gradient.errors if gradient else exact_errors(read(paths), [np.zeros(len(layout)), fit.posterior.x])
    summary = summarize_rows(errors, labels, molecules, splits)

    output.mkdir(parents=True, exist_ok=True)
    write_failures(output / FAILURES_FILE, failures)
    facts = {**_fit_metrics(fit), "landscapes": _landscape_metrics(landscapes, fit), "errors": summary}
    charges = gradient.charges if gradient else ()
    exported = export_force_field(
        output, inputs, molecules, extension, fitted, params=params, trained_charges=charges, facts=facts
    )
    write_parameters(
        output / "parameters.csv", layout, extension.force_field, fitted, fit.posterior, has_errors=gradient is None
    )
    write_path(output / "path.csv", fit)
    save(output / "normal-equations.npz", fit.equations.equations)
    if gradient is None:  # the posterior is that of the exact optimum
        write_posterior(output / "posterior.npz", extension.force_field, layout, fit.posterior)
    else:
        write_epochs(output / "epochs.csv", gradient.course.history)
    plot_changes(output / "changes.png", layout, extension.force_field, fitted, fit)
    plot_path(output / "path.png", fit)
    metrics = {
        "molecules": len(molecules),
        "molecules_failed": len(failures),
        "rows_left_out_unparameterized": n_left_out,
        **facts,
        **({} if gradient is None else {"gradient": gradient_metrics(gradient)}),
        **exported,
        **notable(layout, extension.force_field, fitted),
        "improvement": improvement(summary, "before", "after"),
    }
    write_summary(output / "summary.md", metrics, layout.names(extension.force_field, ~fit.posterior.determined))
    shutil.rmtree(scratch, ignore_errors=True)
    return metrics


def _trained(
    molecules: Sequence[MoleculeRows], placed: Sequence[PlacedMinima], inputs: FitInputs, params: FitSmirnoff
) -> tuple[AddedPeriodicities, Layout]:
    """Decide what is trained: what the training set uses, without torsions about straight angles, with the periodicities that are added."""
    known = {molecule.topology for molecule in molecules} | {each.topology for each in placed}
    topologies = {index: inputs.parameterized[index] for index in sorted(known)}
    training = {each.topology for each in placed if each.split == "train"} | {
        m.topology for m in molecules if any((inputs.splits.of(m.dataset, row) == TRAIN).any() for row in m.ids)
    }
    if not training:
        raise DataError(_EMPTY)
    force_field = with_uses(inputs.parameterized.force_field, (topologies[index] for index in sorted(training)))
    train = without_linear_torsions(params.train, force_field, topologies.values())
    propers = train.proper_torsions
    extension = AddedPeriodicities(force_field, {})
    if propers.k.train:
        wanted = chosen(force_field.tables["ProperTorsions"], propers)
        extension = add_periodicities(force_field, wanted, propers.add_periodicities)
    return extension, Layout.of(extension.force_field, train)


def _landscape_metrics(landscapes: LandscapeSet, fit: ExactFit) -> dict[str, Any]:
    """Report what the fit made of minima and scans: molecules, rounds, and errors by split."""
    used = {"molecules": len(landscapes.members), "training": sum(member.split == "train" for member in landscapes.members)}
    if not landscapes.members:
        return used
    before, after = np.zeros_like(fit.posterior.x), fit.posterior.x
    errors = {
        "before": (fit.start_rows or landscapes.linearized(before)).errors(before),
        "after": (fit.rows or landscapes.linearized(after)).errors(after),
    }
    rounds = [{"objective": each.objective, "step": each.step, "minima_lost": each.lost} for each in fit.rounds]
    return {
        **used,
        "rounds": rounds,
        "errors": {split: {label: errors[label][split] for label in errors} for split in SPLITS if split in errors["before"]},
    }


def _fit_metrics(fit: ExactFit) -> dict[str, Any]:
    posterior = fit.posterior
    kkt = posterior.optimum.kkt
    moved = ~np.isclose(posterior.x, 0.0, atol=1e-12)
    return {
        "parameters": {
            "trained": len(posterior.x),
            "determined": int(posterior.determined.sum()),
            "undetermined": int((~posterior.determined).sum()),
            "moved": int(moved.sum()),
            "at_a_bound": int(posterior.optimum.active.sum()),
            "effective": posterior.effective_parameters,
        },
        "prior_strength": posterior.strength,
        "log_evidence": posterior.log_evidence,
        "noise_variance": posterior.noise_variance,
        "rows_per_independent_row": fit.redundancy,
        "energy_weight": fit.weights[ENERGIES],
        "force_weight": fit.weights[FORCES],
        **({} if fit.left_out is None else {"left_out": asdict(fit.left_out)}),
        "kkt": {field.name: order_of_magnitude(getattr(kkt, field.name)) for field in fields(kkt)},
    }
