"""Fit SMIRNOFF parameters to clustered data: the whole of stage 06."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.runtime import SCRATCH
from pesfit.data.dataset import ConformerDataset, write_failures
from pesfit.data.sources import check_source_names
from pesfit.data.splits import SPLITS, Splits
from pesfit.data.topology import BONDED_HANDLERS, ForceField, ParameterizedSet, ParameterTable
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.errors import exact_errors, improvement, summarize_rows
from pesfit.smirnoff.exact.accumulate import STAGE, FitEquations, PassSettings, accumulate, assemble, read, scores
from pesfit.smirnoff.exact.solve import ExactFit, fit_exactly
from pesfit.smirnoff.export import check_energies, check_offxml, write_offxml
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows, cut, list_molecules
from pesfit.smirnoff.fit_report import log_path, plot_changes, plot_path, write_summary
from pesfit.smirnoff.gradient.run import (
    GradientData,
    GradientFit,
    GradientStart,
    RunFiles,
    fit_by_gradient,
    fit_metrics,
    write_descent,
)
from pesfit.smirnoff.parameters import FILE_COLUMNS, MINIMUM, AddedPeriodicities, Layout, add_periodicities, chosen
from pesfit.smirnoff.posterior import write_posterior
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.statistics.normal_equations import save

_N_CHECKED = 3
"""Molecules, conformers of each, and their size at most, whose energies the written force field is checked with."""
_MAX_CHECKED_ATOMS = 60


def fit_smirnoff(  # noqa: PLR0913 - the inputs and outputs of a stage
    datasets: Mapping[str, ConformerDataset],
    parameterized: ParameterizedSet,
    splits: Splits,
    params: FitSmirnoff,
    output: Path,
    *,
    scratch: Path = SCRATCH / STAGE,
    runs: Path | None = None,
) -> dict[str, Any]:
    """Fit the parameters of a force field.

    Writes `force-field.offxml`, `parameters.csv`, `path.csv` (over prior strengths), `posterior.npz` (optimum and covariance),
    `normal-equations.npz` (of each split), `failures.csv`, the pictures `changes.png` and `path.png`, and
    `summary.md`, errors before and after. With `method: gradient` there is no posterior of what descent ends in, but `epochs.csv`, and
    `charges.csv` where charges are trained.

    Args:
        datasets: clustered data, by name.
        parameterized: the starting force field and the molecules' topologies.
        splits: of all conformers.
        params: section `fit_smirnoff`.
        output: folder to write to.
        scratch: folder for what a run that is killed can go on from; emptied at the end.
        runs: folder for TensorBoard's log of this stage; None for no log.

    Returns:
        Metrics.

    Raises:
        ParamsError: where a choice of parameters fits nothing, or bounds leave out a starting value.
        DataError: where there is nothing to fit to.
        TooManyFailuresError: where more than `max_failed_fraction` of the molecules fail.
    """
    molecules, n_left_out = list_molecules(datasets, parameterized)
    check_source_names("fit_smirnoff.objective.source_weights", params.objective.source_weights, {m.source for m in molecules})
    train = params.train.proper_torsions
    wanted = chosen(parameterized.force_field.tables["ProperTorsions"], train) if train.k.train else None
    extension = (
        AddedPeriodicities(parameterized.force_field, {})
        if wanted is None
        else add_periodicities(parameterized.force_field, wanted, train.add_periodicities)
    )
    layout = Layout.of(extension.force_field, params.train)
    inputs = FitInputs(datasets, parameterized, splits)
    setup = PassSettings(extension.force_field, layout, params.objective.conformer_weight, inputs.paths())
    paths = accumulate(inputs, cut(molecules, params.shards), setup, extension, scratch)

    failures = [failure for shard in read(paths) for failure in shard.failures]
    check_failed_fraction(failures, len(molecules), params.max_failed_fraction)
    problem = assemble(read(paths), layout, params.objective, SPLITS)
    if problem.equations["train"].energy.n_rows + problem.equations["train"].forces.n_rows == 0:
        raise DataError(
            "the training set is empty: no molecule of it could be parameterized, or no conformer has a weight above 0"
        )
    fit = fit_exactly(problem, lambda weights, x: scores(read(paths), layout, params.objective, weights, x), params)
    if runs is not None:
        log_path(runs, fit, layout.prior().widths)
    fitted = layout.apply(extension.force_field, fit.posterior.x)
    descended = None
    labels: tuple[str, ...] = ("before", "after")
    if params.method == "gradient":
        failed = {failure.id for failure in failures}
        data = GradientData(inputs, [molecule for molecule in molecules if molecule.id not in failed], extension)
        start = GradientStart(extension.force_field, layout, fit.posterior.x, fit.weights, fit.posterior.strength)
        files = RunFiles(scratch, None if runs is None else runs / "descent", " ".join(path.stem for path in paths))
        descended = fit_by_gradient(data, start, params.gradient, params.objective, files)
        fitted, labels = descended.force_field, ("before", "exact", "after")
    errors = descended.errors if descended else exact_errors(read(paths), [np.zeros(len(layout)), fit.posterior.x])
    summary = summarize_rows(errors, labels, molecules, splits)

    result = _Result(setup, problem, fit, fitted, descended)
    samples = _samples(inputs, molecules, extension, result)
    difference = _write(output, parameterized.force_field, result, failures, samples)
    if descended is not None:
        write_descent(output, descended, parameterized)
    plot_changes(output / "changes.png", layout, extension.force_field, fitted, fit)
    plot_path(output / "path.png", fit)
    metrics = {
        "molecules": len(molecules),
        "molecules_failed": len(failures),
        "rows_left_out_unparameterized": n_left_out,
        **_fit_metrics(result),
        **({} if descended is None else {"gradient": fit_metrics(descended)}),
        "exported_energy_difference_to_openmm_kcal_per_mol": _order_of_magnitude(difference),
        "improvement": improvement(summary, "before", "after"),
        "errors": summary,
    }
    write_summary(output / "summary.md", metrics, layout.names(extension.force_field, ~fit.posterior.determined))
    shutil.rmtree(scratch, ignore_errors=True)
    return metrics


@dataclass(frozen=True)
class _Result:
    setup: PassSettings
    problem: FitEquations
    fit: ExactFit
    fitted: ForceField
    descended: GradientFit | None


def _fit_metrics(result: _Result) -> dict[str, Any]:
    posterior, layout = result.fit.posterior, result.setup.layout
    kkt = posterior.optimum.kkt
    moved = ~np.isclose(posterior.x, 0.0, atol=1e-12)
    return {
        "parameters": {
            "trained": len(layout),
            "determined": int(posterior.determined.sum()),
            "undetermined": int((~posterior.determined).sum()),
            "moved": int(moved.sum()),
            "at_a_bound": int(posterior.optimum.active.sum()),
            "effective": posterior.effective_parameters,
        },
        "prior_strength": posterior.strength,
        "log_evidence": posterior.log_evidence,
        "noise_variance": posterior.noise_variance,
        "rows_per_independent_row": result.fit.redundancy,
        "energy_weight": result.fit.weights[0],
        "force_weight": result.fit.weights[1],
        "kkt": {field.name: _order_of_magnitude(getattr(kkt, field.name)) for field in fields(kkt)},
    }


def _order_of_magnitude(value: float) -> float:
    """Round rounding errors up to a power of ten: their digits depend on the processor."""
    return 10.0 ** math.ceil(math.log10(value)) if value > 0.0 else 0.0


_Sample = tuple[str, FloatArray, FloatArray, FloatArray]


def _samples(
    inputs: FitInputs, molecules: Sequence[MoleculeRows], extension: AddedPeriodicities, result: _Result
) -> list[_Sample]:
    """Evaluate the fitted force field on a few molecules: mapped SMILES, charges, coords and energies of each."""
    potential = SmirnoffPotential(result.fitted)
    charges = {} if result.descended is None else result.descended.charges
    chosen_molecules: dict[int, MoleculeRows] = {}
    for molecule in molecules:
        small = len(inputs.datasets[molecule.dataset][molecule.rows[0]].atomic_numbers) <= _MAX_CHECKED_ATOMS
        if len(chosen_molecules) < _N_CHECKED and small:
            chosen_molecules.setdefault(molecule.topology, molecule)
        if len(chosen_molecules) == _N_CHECKED:
            break
    samples = []
    for molecule in chosen_molecules.values():
        record = inputs.datasets[molecule.dataset][molecule.rows[0]]
        topology = extension.extend(inputs.parameterized[molecule.topology])
        topology = replace(topology, charges=charges.get(molecule.topology, topology.charges))
        coords = record.coords[:_N_CHECKED]
        numbers = torch.tensor(record.atomic_numbers, dtype=torch.int64)
        with torch.no_grad():
            energy = potential(collate([Conformers(numbers, torch.tensor(coords), Terms.from_topology(topology))])).energy
        samples.append((topology.smiles, topology.charges, coords, energy.numpy()))
    return samples


def _write(output: Path, start: ForceField, result: _Result, failures: Sequence[Failure], samples: Sequence[_Sample]) -> float:
    output.mkdir(parents=True, exist_ok=True)
    posterior = result.fit.posterior
    write_failures(output / FAILURES_FILE, failures)
    path = output / "force-field.offxml"
    write_offxml(path, start, result.fitted)
    check_offxml(path, start, result.fitted)
    difference = check_energies(path, samples)
    _write_parameters(output / "parameters.csv", result)
    _write_path(output / "path.csv", result)
    save(output / "normal-equations.npz", result.problem.equations)
    if result.descended is None:  # it is about the exact optimum
        write_posterior(output / "posterior.npz", result.setup.force_field, result.setup.layout, posterior)
    return difference


def _write_parameters(path: Path, result: _Result) -> None:
    layout, posterior = result.setup.layout, result.fit.posterior
    start = result.setup.force_field
    errors = layout.standard_errors(start, posterior.x, posterior.covariance)
    prior_widths = math.sqrt(posterior.noise_variance / posterior.strength) * layout.value_widths(result.fitted)
    at_bounds = layout.at_bounds(result.fitted)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(FILE_COLUMNS)
        for i in range(len(layout)):
            handler, row = BONDED_HANDLERS[layout.handler[i]], int(layout.row[i])
            before, after = start.tables[handler], result.fitted.tables[handler]
            column = before.columns.index(MINIMUM[handler]) if layout.is_shift[i] else 0
            periodicity = round(float(before.values[row, 1])) if handler not in MINIMUM else ""
            writer.writerow(
                [
                    handler,
                    before.ids[row],
                    before.smirks[row],
                    periodicity,
                    before.columns[column],
                    before.units[column],
                    f"{before.values[row, column]:.10g}",
                    f"{after.values[row, column]:.10g}",
                    f"{errors[handler][row, column]:.4g}" if result.descended is None else "",
                    f"{prior_widths[i]:.4g}",
                    int(before.uses[row]),
                    "yes" if posterior.determined[i] else "no",
                    "yes" if at_bounds[i] else "no",
                ]
            )
        _write_vdw_rows(writer, start.tables["vdW"], result.fitted.tables["vdW"])


def _write_vdw_rows(writer: Any, before: ParameterTable, after: ParameterTable) -> None:
    """Write the van der Waals parameters that changed, as descent may have changed them."""
    for row, column in np.argwhere(before.values != after.values).tolist():
        values = (f"{table.values[row, column]:.10g}" for table in (before, after))
        writer.writerow(
            ["vdW", before.ids[row], before.smirks[row], "", before.columns[column], before.units[column], *values, "",
             "", int(before.uses[row]), "", ""]
        )  # fmt: skip


def _write_path(path: Path, result: _Result) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        parts = ["train_energy", "train_forces", "validation_energy", "validation_forces"]
        writer.writerow(["prior_strength", "effective_parameters", "log_evidence", *parts])
        for point in result.fit.path:
            values = (point.strength, point.effective_parameters, point.log_evidence, *point.train, *point.validation)
            writer.writerow([f"{value:.10g}" for value in values])
