"""The fit by descent, for what the exact fit cannot do: robust losses, van der Waals parameters and charges.

Geometries do not change, so features are computed once (`residuals`), and an epoch is two sparse products. On squares it ends where the
exact fit does.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.data.topology import ForceField, ParameterizedSet
from pesfit.parameterize.charges import with_exact_sum
from pesfit.params.fit_smirnoff import Gradient, Objective
from pesfit.smirnoff.errors import ErrorRow
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows
from pesfit.smirnoff.gradient.coefficients import Coefficients, check_trained, equivalence_classes
from pesfit.smirnoff.gradient.epochs import HISTORY, Course, EpochRecords, FitCheckpoint, TensorBoardLog, descend
from pesfit.smirnoff.gradient.optimizers import PenalizedLoss
from pesfit.smirnoff.gradient.preparation import PreparationSettings
from pesfit.smirnoff.gradient.shards import FitMolecule, ShardsJob, divide, gather_team
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout

_GIB = 2**30
CHECKPOINT_FILE = "descent.npz"


@dataclass(frozen=True)
class GradientData:
    """What is fitted to.

    Attributes:
        inputs: data sets, topologies, splits.
        molecules: those to use; none that failed before.
        extension: gives topologies the periodicities that were added.
    """

    inputs: FitInputs
    molecules: Sequence[MoleculeRows]
    extension: AddedPeriodicities


@dataclass(frozen=True)
class GradientStart:
    """What the exact fit, or params.yaml, says beforehand.

    Attributes:
        force_field: with the periodicities that were added.
        layout: of the valence parameters.
        x: optimum of the sum of squares, shape (len(layout),).
        weights: w_E and w_F of the objective.
        strength: of the prior.
    """

    force_field: ForceField
    layout: Layout
    x: FloatArray
    weights: tuple[float, float]
    strength: float


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it needs.

    Attributes:
        scratch: folder of the checkpoint.
        runs: folder of TensorBoard's files; None for none.
        key: stands for the data and all parameters but those of the descent.
        save_every: seconds between checkpoints.
    """

    scratch: Path
    runs: Path | None
    key: str
    save_every: float = 10.0


@dataclass(frozen=True)
class GradientFit:
    """What the fit found.

    Attributes:
        force_field: the fitted one.
        x: its valence parameters as `Layout` has them, shape (len(layout),).
        charges: [e], fitted charges by number of the topology, each of shape (n_atoms,); empty where charges are not trained.
        errors: of the starting force field, of x of the start, and of the fitted one.
        course: how it went.
        n_parameters: how many were trained.
    """

    force_field: ForceField
    x: FloatArray
    charges: dict[int, FloatArray]
    errors: Sequence[ErrorRow]
    course: Course
    n_parameters: int


def fit_by_gradient(
    data: GradientData, start: GradientStart, params: Gradient, objective: Objective, files: RunFiles
) -> GradientFit:
    """Fit by descent.

    Args:
        data: to fit to.
        start: where to start, and the weights.
        params: section `fit_smirnoff.gradient`.
        objective: section `fit_smirnoff.objective`.
        files: where to keep state and curves.

    Raises:
        DataError: where nothing is to be trained on, or a loss is not finite.
        ParamsError: where a pattern fits no parameter, or there are too many parameters for the optimizer.
        PesfitError: where it diverges, or a process is lost.
    """
    wanted = _molecules(data)
    if not any(molecule.is_trained_on for molecule in wanted):
        raise DataError("the training set is empty: no molecule of it could be parameterized")
    classes = {}
    if params.charges.train:
        classes = {m.rows.topology: equivalence_classes(m.topology) for m in wanted if m.is_trained_on}
    with_constants = objective.energy_zero == "none" and bool(start.layout.is_shift.any())
    coefficients = Coefficients(start.layout, start.force_field, params, classes, with_constants=with_constants)
    check_trained(params, coefficients.n_parameters)
    shards, n_batches = divide(wanted, params.shards, params.batch_size, params.seed)
    setting = PreparationSettings(start.force_field, start.layout, coefficients, objective, start.weights)
    job = ShardsJob(setting, params.loss, data.inputs.paths(), tuple(map(tuple, shards)), params.memory_gib * _GIB)

    first = coefficients.from_valence(start.x)
    at_start = np.zeros(coefficients.n_parameters)
    with gather_team(job, params.epochs) as team:
        problem = PenalizedLoss(team, coefficients, start.strength, n_batches)
        z = first if params.start == "exact" else at_start
        known = (files.key, params.model_dump_json(), objective.model_dump_json(), start.weights, start.strength)
        digest = hashlib.sha256(repr(known).encode())
        for array in (z, coefficients.lower, coefficients.upper, start.layout.prior().widths):
            digest.update(array.tobytes())
        course = _descend(problem, z, params, FitCheckpoint(files.scratch / CHECKPOINT_FILE, digest.hexdigest()), files)
        rows = team.errors(np.stack([at_start, first, course.z]))
    fitted = coefficients.force_field(course.z)
    return GradientFit(
        force_field=fitted,
        x=coefficients.at(course.z).values[: len(start.layout)],
        charges=_charges(coefficients, course.z, wanted),
        errors=rows,
        course=course,
        n_parameters=coefficients.n_parameters,
    )


def _molecules(data: GradientData) -> list[FitMolecule]:
    return [
        FitMolecule(
            rows,
            data.extension.extend(data.inputs.parameterized[rows.topology]),
            tuple(data.inputs.splits.of(rows.dataset, record) for record in rows.ids),
        )
        for rows in data.molecules
    ]


def _descend(problem: PenalizedLoss, z: FloatArray, params: Gradient, checkpoint: FitCheckpoint, files: RunFiles) -> Course:
    if files.runs is None:
        return descend(problem, z, params, EpochRecords(checkpoint, None, files.save_every))
    with TensorBoardLog(files.runs, params.epochs) as board:
        return descend(problem, z, params, EpochRecords(checkpoint, board, files.save_every))


def _charges(coefficients: Coefficients, z: FloatArray, molecules: Sequence[FitMolecule]) -> dict[int, FloatArray]:
    found = {}
    for molecule in molecules:
        change = coefficients.charge_changes(z, molecule.rows.topology)
        if change is not None and molecule.rows.topology not in found:
            charges = molecule.topology.charges
            found[molecule.rows.topology] = with_exact_sum(charges + change, round(float(charges.sum())))
    return found


def fit_metrics(fit: GradientFit) -> dict[str, object]:
    """Return what to report of the course."""
    return {
        "parameters_trained": fit.n_parameters,
        "epochs": fit.course.n_epochs,
        "epoch_of_result": fit.course.epoch,
        "stopped_early": fit.course.stopped_early,
        "loss_at_start": float(fit.course.history[0, 2] + fit.course.history[0, 3]),
        "loss_at_end": float(fit.course.history[-1, 2] + fit.course.history[-1, 3]),
    }


def write_descent(output: Path, fit: GradientFit, parameterized: ParameterizedSet) -> None:
    """Write `epochs.csv`, the course, and where charges were trained `charges.csv`, those of each molecule before and after."""
    with (output / "epochs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HISTORY)
        writer.writerows([[f"{value:.10g}" for value in row] for row in fit.course.history.tolist()])
    if not fit.charges:
        return
    with (output / "charges.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["smiles", "atom", "charge_before", "charge_after"])
        for number, charges in fit.charges.items():
            topology = parameterized[number]
            for atom, (before, after) in enumerate(zip(topology.charges.tolist(), charges.tolist(), strict=True)):
                writer.writerow([topology.smiles, atom + 1, repr(before), repr(after)])
