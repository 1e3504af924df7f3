"""The gradient fit, for objectives that are not quadratic: robust losses, van der Waals parameters and charges.

Geometries do not change, so features are computed once (`preparation`), and an epoch is two sparse products (`objective`). With squared
errors it ends where the exact fit does.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pesfit.chemistry.smiles import group_of
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.data.topology import ForceField
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.params.fit_smirnoff import Gradient, Objective
from pesfit.smirnoff.errors import ErrorRow
from pesfit.smirnoff.exported_charges import averaged_charges
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows
from pesfit.smirnoff.gradient.coefficients import Coefficients, TrainedCharges, check_trained, equivalence_classes
from pesfit.smirnoff.gradient.epochs import HISTORY, FitCheckpoint, FitHistory, RunFiles, minimize
from pesfit.smirnoff.gradient.optimizers import PenalizedLoss
from pesfit.smirnoff.gradient.preparation import PreparationSettings
from pesfit.smirnoff.gradient.shards import FitMolecule, ShardsJob, divide, gather_team
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout

_GIB = 2**30


@dataclass(frozen=True)
class GradientData:
    """The data of a gradient fit.

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
    """Starting point and weights, from the exact fit or params.yaml.

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
class GradientFit:
    """Result of a gradient fit.

    Attributes:
        force_field: the fitted one.
        x: its valence parameters as `Layout` has them, shape (len(layout),).
        charges: mapped SMILES and fitted charges [e], shape (n_atoms,), of each molecule whose charges were trained.
        errors: of the starting force field, of x of the start, and of the fitted one.
        course: epoch by epoch.
        n_parameters: how many were trained.
    """

    force_field: ForceField
    x: FloatArray
    charges: tuple[tuple[str, FloatArray], ...]
    errors: Sequence[ErrorRow]
    course: FitHistory
    n_parameters: int


def fit_by_gradient(
    data: GradientData, start: GradientStart, params: Gradient, objective: Objective, files: RunFiles
) -> GradientFit:
    """Minimize the loss and the prior by one of the `optimizers`.

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
    wanted, charges = _tied(wanted) if params.charges.train else (wanted, TrainedCharges())
    with_constants = objective.energy_zero == "none" and bool(start.layout.is_shift.any())
    coefficients = Coefficients(start.layout, start.force_field, params, charges, with_constants=with_constants)
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
        course = minimize(problem, z, params, FitCheckpoint(files.checkpoint, digest.hexdigest()), files)
        rows = team.errors(np.stack([at_start, first, course.z]))
    fitted = coefficients.force_field(course.z)
    return GradientFit(
        force_field=fitted,
        x=coefficients.at(course.z).values[: len(start.layout)],
        charges=_charges(coefficients, course.z, wanted, charges),
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


def _tied(molecules: Sequence[FitMolecule]) -> tuple[list[FitMolecule], TrainedCharges]:
    """Start from charges that a force field can hold: equal in all rows of a molecule, and on atoms that SMIRKS cannot distinguish.

    Returns:
        The molecules, and which of their charges are trained, together.
    """
    mols = {molecule.rows.topology: read_mapped_smiles(molecule.topology.smiles) for molecule in molecules}
    groups = {number: group_of(mol) for number, mol in mols.items()}
    trained = {groups[molecule.rows.topology] for molecule in molecules if molecule.is_trained_on}
    first: dict[str, int] = {}
    charges: dict[int, FloatArray] = {}
    classes: dict[int, LongArray] = {}
    shared: dict[int, int] = {}
    for number, topology in {molecule.rows.topology: molecule.topology for molecule in molecules}.items():
        if groups[number] not in trained:
            continue
        one = first.setdefault(groups[number], number)
        if one == number:
            charges[number] = averaged_charges(mols[number], topology.charges)
            classes[number] = equivalence_classes(topology)
        else:
            place = np.argsort(mols[number].GetSubstructMatch(mols[one], useChirality=True))
            charges[number], classes[number], shared[number] = charges[one][place], classes[one][place], one
    tied = [
        replace(m, topology=replace(m.topology, charges=charges.get(m.rows.topology, m.topology.charges))) for m in molecules
    ]
    return tied, TrainedCharges(classes, shared)


def _charges(
    coefficients: Coefficients, z: FloatArray, molecules: Sequence[FitMolecule], trained: TrainedCharges
) -> tuple[tuple[str, FloatArray], ...]:
    topologies = {molecule.rows.topology: molecule.topology for molecule in molecules}
    return tuple(
        (topologies[number].smiles, topologies[number].charges + coefficients.charge_changes(z, number))
        for number in trained.classes
        if number not in trained.shared
    )


def gradient_metrics(fit: GradientFit) -> dict[str, object]:
    """Return metrics of the optimization."""
    return {
        "parameters_trained": fit.n_parameters,
        "epochs": fit.course.n_epochs,
        "epoch_of_result": fit.course.epoch,
        "stopped_early": fit.course.stopped_early,
        "loss_at_start": float(fit.course.history[0, 2] + fit.course.history[0, 3]),
        "loss_at_end": float(fit.course.history[-1, 2] + fit.course.history[-1, 3]),
    }


def write_epochs(path: Path, history: FloatArray) -> None:
    """Write the history of a fit, one line for each epoch."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HISTORY)
        writer.writerows([[f"{value:.10g}" for value in row] for row in history.tolist()])
