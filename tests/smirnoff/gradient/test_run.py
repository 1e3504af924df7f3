"""The gradient fit on stored data: where it ends, that processes and interruptions do not show, and what outliers do to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from pesfit.core.arrays import FloatArray
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.splits import SPLITS
from pesfit.parameterize.force_field import read_force_field
from pesfit.params.fit_smirnoff import (
    FitSmirnoff,
    Gradient,
    Loss,
    Objective,
    RelativeColumn,
    Sigma,
    StepLength,
    Train,
    TrainCharges,
    TrainVdW,
)
from pesfit.smirnoff.errors import exact_errors
from pesfit.smirnoff.exact.accumulate import PassSettings, accumulate, assemble, read
from pesfit.smirnoff.exact.solve import fit_exactly
from pesfit.smirnoff.exact.training_set import TrainingSet
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.smirnoff.fit_data import FitInputs, cut, list_molecules
from pesfit.smirnoff.gradient import epochs, shards
from pesfit.smirnoff.gradient.coefficients import equivalence_classes
from pesfit.smirnoff.gradient.epochs import FitCheckpoint, RunFiles
from pesfit.smirnoff.gradient.optimizers import EpochStep, LossValue, PenalizedLoss
from pesfit.smirnoff.gradient.run import GradientData, GradientFit, GradientStart, fit_by_gradient
from pesfit.smirnoff.model import open_smirnoff
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout
from tests.smirnoff.samples import evaluate, perturbation
from tests.smirnoff.test_fit import make, rows_of, write

CHECKPOINT_FILE = "gradient.npz"
OBJECTIVE = Objective(energy_weight=1.0)
STRENGTH = 0.01


@dataclass(frozen=True)
class Known:
    """Data, and the exact fit to them."""

    data: GradientData
    start: GradientStart
    folder: Path


def known(folder: Path, noise: float) -> Known:
    stored = make(folder, noise)
    return exactly(FitInputs(stored.datasets, stored.parameterized, stored.splits), folder)


def exactly(inputs: FitInputs, folder: Path) -> Known:
    molecules, _ = list_molecules(inputs.datasets, inputs.parameterized)
    force_field = inputs.parameterized.force_field
    layout, extension = Layout.of(force_field, Train()), AddedPeriodicities(force_field, {})
    setup = PassSettings(force_field, layout, OBJECTIVE.conformer_weight, inputs.paths())
    paths = accumulate(inputs, cut(molecules, 4), setup, extension, folder / "scratch")
    problem = assemble(read(paths), layout, OBJECTIVE, SPLITS)
    training = TrainingSet(lambda: read(paths), OBJECTIVE, {}, len(layout))
    params = FitSmirnoff(objective=OBJECTIVE, prior_strength=STRENGTH, molecule_strength=None)
    fit = fit_exactly(problem, training, params)
    start = GradientStart(force_field, layout, fit.posterior.x, (1.0, 1.0), STRENGTH)
    return Known(GradientData(inputs, molecules, extension), start, folder)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return known(tmp_path_factory.mktemp("noisy"), noise=2.0)


def fit(known: Known, folder: Path, params: Gradient, **changes: object) -> GradientFit:
    return fit_by_gradient(
        known.data, replace(known.start, **changes), params, OBJECTIVE, RunFiles(folder / CHECKPOINT_FILE, None, "key")
    )  # type: ignore[arg-type]


def root_mean_squares(fit: GradientFit, number: int) -> FloatArray:
    """Errors of each molecule in each split, of energies and forces."""
    return np.sqrt([row.sums[number, 1:] / (row.n_conformers, row.n_components) for row in fit.errors])


FROM_FORCE_FIELD = Gradient(start="force_field", patience=None)
ADAM = FROM_FORCE_FIELD.model_copy(update={"optimizer": "adam", "learning_rate": StepLength(initial=0.05, final=1e-6)})


@pytest.mark.parametrize(
    "params",
    [
        FROM_FORCE_FIELD.model_copy(update={"tolerance": 1e-14}),
        FROM_FORCE_FIELD.model_copy(update={"optimizer": "lbfgs", "epochs": 20000, "tolerance": 1e-15}),
    ],
    ids=["lm", "lbfgs"],
)
@pytest.mark.slow
def test_on_squares_it_ends_where_the_exact_fit_does(noisy: Known, tmp_path: Path, params: Gradient) -> None:
    found = fit(noisy, tmp_path, params)
    before, exact, after = (root_mean_squares(found, number) for number in range(3))
    assert np.abs(before - exact).max() > 0.5
    np.testing.assert_allclose(after, exact, atol=1e-4)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_adam_comes_close_to_the_exact_fit_and_never_below_it(noisy: Known, tmp_path: Path, batch_size: int | None) -> None:
    found = fit(noisy, tmp_path, ADAM.model_copy(update={"epochs": 1000, "batch_size": batch_size}))
    exact = fit(noisy, tmp_path, Gradient(patience=None, epochs=1))
    best = objective(exact, 0)
    assert objective(found, 0) > 1.2 * best
    assert best * (1 - 1e-9) < objective(found, -1) < 1.001 * best


def objective(found: GradientFit, epoch: int) -> float:
    """The loss of the training set and the prior, after an epoch."""
    return float(found.course.history[epoch, 2] + found.course.history[epoch, 3])


def test_what_the_statistics_say_of_errors_is_what_is_found_here(noisy: Known, tmp_path: Path) -> None:
    """The exact engine's errors come from normal equations, these from residuals."""
    found = fit(noisy, tmp_path, Gradient(patience=None, epochs=1))
    paths = sorted((noisy.folder / "scratch").glob("*.pickle"))
    theirs = exact_errors(read(paths), [np.zeros(len(noisy.start.layout)), noisy.start.x])
    exact = {(row.molecule, row.split): row for row in theirs}
    for row in found.errors:
        other = exact[row.molecule, row.split]
        np.testing.assert_allclose(row.sums[:2, 1:], other.sums[:, 1:], rtol=1e-8)
        assert (row.n_conformers, row.n_components) == (other.n_conformers, other.n_components)


def digest(found: GradientFit) -> bytes:
    parts = [
        found.x,
        found.course.z,
        found.course.history,
        *(row.sums for row in found.errors),
        *(charges for _, charges in found.charges),
    ]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


EVERYTHING = Gradient(
    optimizer="adam",
    epochs=12,
    batch_size=2,
    shards=5,
    loss=Loss(kind="huber"),
    vdw=TrainVdW(epsilon=RelativeColumn(train=True), sigma=Sigma(train=True)),
    charges=TrainCharges(train=True),
)


@pytest.mark.slow
def test_number_of_processes_does_not_show(noisy: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_COST_WORTH_A_PROCESS", 0.0)
    params = EVERYTHING.model_copy(update={"optimizer": "lm", "batch_size": None})
    found = []
    for workers in (1, 2):
        monkeypatch.setenv("PESFIT_WORKERS", str(workers))
        found.append(digest(fit(noisy, tmp_path / str(workers), params)))
    assert len(set(found)) == 1


def test_what_is_prepared_anew_for_want_of_memory_gives_the_same(noisy: Known, tmp_path: Path) -> None:
    params = EVERYTHING.model_copy(update={"epochs": 2})
    poor = params.model_copy(update={"memory_gib": 1e-6})
    assert digest(fit(noisy, tmp_path / "a", params)) == digest(fit(noisy, tmp_path / "b", poor))


class _KilledError(Exception):
    """Stands for a death between two epochs."""


def resumes(noisy: Known, folder: Path, params: Gradient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold a run that goes on from `folder` against one that was never killed."""
    files = RunFiles(folder / CHECKPOINT_FILE, None, "key", save_every=0.0)
    assert (folder / CHECKPOINT_FILE).is_file()
    evaluations: list[int] = []
    run = PenalizedLoss.__call__

    def counted(self: PenalizedLoss, z: FloatArray, batch: int = 0) -> LossValue:
        evaluations.append(batch)
        return run(self, z, batch)

    monkeypatch.setattr(PenalizedLoss, "__call__", counted)
    resumed = fit_by_gradient(noisy.data, noisy.start, params, OBJECTIVE, files)
    n_resumed = len(evaluations)
    whole = fit(noisy, folder / "whole", params)
    assert digest(resumed) == digest(whole)
    assert 0 < n_resumed < len(evaluations) - n_resumed


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs"])
def test_a_run_that_was_interrupted_goes_on_and_ends_in_the_same_bytes(
    noisy: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    params = EVERYTHING.model_copy(update={"optimizer": optimizer, "batch_size": None})
    save = FitCheckpoint.save
    calls: list[int] = []

    def save_and_stop(self: FitCheckpoint, state: Mapping[str, np.ndarray]) -> None:
        save(self, state)
        calls.append(1)
        if len(calls) == 3:
            raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(FitCheckpoint, "save", save_and_stop)
        with pytest.raises(_KilledError):
            fit_by_gradient(
                noisy.data, noisy.start, params, OBJECTIVE, RunFiles(tmp_path / CHECKPOINT_FILE, None, "key", save_every=0.0)
            )
    resumes(noisy, tmp_path, params, monkeypatch)


def die_in_the_fifth_epoch(noisy: Known, params: Gradient, folder: Path) -> None:
    """What a process runs that is to die."""
    report = epochs._Epochs.__call__

    def report_or_die(self: epochs._Epochs, step: EpochStep) -> bool:
        if step.epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return report(self, step)

    epochs._Epochs.__call__ = report_or_die  # type: ignore[method-assign]
    fit_by_gradient(noisy.data, noisy.start, params, OBJECTIVE, RunFiles(folder / CHECKPOINT_FILE, None, "key", save_every=0.0))


@pytest.mark.slow
def test_a_process_that_was_killed_is_continued_by_another(
    noisy: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_in_the_fifth_epoch, args=(noisy, EVERYTHING, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumes(noisy, tmp_path, EVERYTHING, monkeypatch)


def test_state_of_other_input_is_not_taken_up(noisy: Known, tmp_path: Path) -> None:
    fit(noisy, tmp_path, EVERYTHING)
    other = EVERYTHING.model_copy(update={"seed": 1})
    assert digest(fit(noisy, tmp_path, other)) == digest(fit(noisy, tmp_path / "fresh", other))
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"PK\x03\x04 cut off")
    assert digest(fit(noisy, tmp_path, EVERYTHING)) == digest(fit(noisy, tmp_path / "anew", EVERYTHING))


def test_early_stopping_keeps_what_validates_best(noisy: Known, tmp_path: Path) -> None:
    params = ADAM.model_copy(update={"epochs": 2000, "patience": 30, "learning_rate": StepLength(initial=0.05, final=0.05)})
    course = fit(noisy, tmp_path, params).course
    validation = course.history[:, 6]
    assert course.stopped_early
    assert course.n_epochs == course.epoch + 30 < 2000
    assert int(np.argmin(validation)) == course.epoch


def with_labels(noisy: Known, folder: Path, change: Callable[[int, Record], Record]) -> Known:
    """Write the data anew, with changed labels, and fit them exactly."""
    (dataset,) = noisy.data.inputs.datasets.values()
    write(folder / "made", [change(i, record) for i, record in enumerate(dataset)])
    inputs = replace(noisy.data.inputs, datasets={"made": ConformerDataset(folder / "made")})
    return exactly(inputs, folder)


def test_robust_losses_resist_outliers(noisy: Known, tmp_path: Path) -> None:
    """One training conformer in seven has a wrong energy, and a few atoms have wrong forces."""
    rng = np.random.default_rng(4)
    start = noisy.start
    truth = start.layout.apply(start.force_field, perturbation(start.layout, seed=3))

    def spoilt(i: int, record: Record) -> Record:
        topology = noisy.data.inputs.parameterized.topology("made", record.id)
        assert topology is not None
        energy, forces = evaluate(truth, topology, record.coords)
        energy, forces = energy.copy(), forces.copy()
        if i < 5:
            energy[[2, 9]] += 60.0
            forces[rng.integers(0, 14, 6), rng.integers(0, record.n_atoms, 6)] += 120.0 * rng.normal(size=(6, 3))
        return replace(record, energy=energy, forces=forces)

    data = with_labels(noisy, tmp_path, spoilt)
    clean = {}
    for kind in ("l2", "huber", "l1"):
        params = Gradient(patience=None, loss=Loss(kind=kind, energy_delta=0.5, force_delta=1.0), epochs=60)
        found = fit(data, tmp_path / kind, params, strength=1e-6)
        test = [row for row in found.errors if row.split == "test" and row.n_conformers < 20]
        clean[kind] = float(np.sqrt(sum(row.sums[2, 2] for row in test) / sum(row.n_components for row in test)))
    assert clean["huber"] < 0.2 * clean["l2"]
    assert clean["l1"] < 0.2 * clean["l2"]


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs"])
@pytest.mark.slow
def test_springs_that_vanish_do_not_hold_it_up(noisy: Known, tmp_path: Path, optimizer: str) -> None:
    """Labels that ask for angles of negative k: at the exact optimum these are at k = 0, where no angle matters any more."""
    table = noisy.start.force_field.tables["Angles"]
    values = table.values.copy()
    used = np.flatnonzero(table.uses > 0)[::3]
    values[used, 0] *= -0.5
    truth = replace(noisy.start.force_field, tables={**noisy.start.force_field.tables, "Angles": replace(table, values=values)})

    def relabelled(_: int, record: Record) -> Record:
        topology = noisy.data.inputs.parameterized.topology("made", record.id)
        assert topology is not None
        energy, forces = evaluate(truth, topology, record.coords)
        return replace(record, energy=energy, forces=forces)

    data = with_labels(noisy, tmp_path, relabelled)
    params = FROM_FORCE_FIELD.model_copy(update={"optimizer": optimizer, "epochs": 20000, "tolerance": 1e-14})
    found = fit(data, tmp_path / "fit", params)
    fitted = data.start.layout.apply(data.start.force_field, data.start.x).tables["Angles"].values
    assert (np.abs(fitted[used, 0]) < 1e-6).sum() >= 3
    exact, after = (root_mean_squares(found, number) for number in (1, 2))
    np.testing.assert_allclose(after, exact, atol=1e-4)


def test_van_der_waals_parameters_and_charges_are_found(noisy: Known, tmp_path: Path) -> None:
    """Labels from a force field with other ε, σ and charges: errors vanish where these are trained, and not without."""
    table = noisy.start.force_field.tables["vdW"]
    rng = np.random.default_rng(1)
    factors = np.exp(np.array([0.1, 0.02]) * rng.normal(size=table.values.shape))
    truth = replace(
        noisy.start.force_field, tables={**noisy.start.force_field.tables, "vdW": replace(table, values=table.values * factors)}
    )
    topologies = noisy.data.inputs.parameterized

    def relabelled(_: int, record: Record) -> Record:
        topology = topologies.topology("made", record.id)
        assert topology is not None
        classes = equivalence_classes(topology)
        change = 0.02 * np.random.default_rng(len(classes)).normal(size=classes.max() + 1)[classes]
        topology = replace(topology, charges=topology.charges + change - change.mean())
        energy, forces = evaluate(truth, topology, record.coords)
        return replace(record, energy=energy, forces=forces)

    data = with_labels(noisy, tmp_path, relabelled)
    params = EVERYTHING.model_copy(
        update={"optimizer": "lm", "batch_size": None, "loss": Loss(), "epochs": 100, "patience": None}
    )
    found = fit(data, tmp_path / "fit", params, strength=1e-8)
    before, valence, after = np.array([row.sums[:, 2] for row in found.errors if row.n_conformers < 20]).T
    assert (after < 1e-4 * before).all()
    assert after.sum() < 1e-3 * valence.sum()
    assert found.charges
    by_smiles = {topologies[number].smiles: topologies[number] for number in range(len(topologies))}
    for smiles, charges in found.charges:
        assert charges.sum() == pytest.approx(round(by_smiles[smiles].charges.sum()), abs=1e-12)
        classes = equivalence_classes(by_smiles[smiles])
        change = charges - by_smiles[smiles].charges
        for which in range(classes.max() + 1):
            assert np.ptp(change[classes == which]) < 1e-12
        assert np.abs(change).max() > 1e-3


@pytest.mark.slow
def test_the_stage_writes_the_gradient_fit(noisy: Known, tmp_path: Path) -> None:
    """Everything trained: the written file is read back and evaluated by OpenMM with its own charges, as `fit_smirnoff` checks."""
    params = FitSmirnoff(
        method="gradient", prior_strength=STRENGTH,
        gradient=EVERYTHING.model_copy(update={"optimizer": "lm", "batch_size": None, "epochs": 6}),
    )  # fmt: skip
    inputs = noisy.data.inputs

    def run(name: str) -> dict[str, Any]:
        return fit_smirnoff(
            inputs.datasets, inputs.parameterized, inputs.splits, params, tmp_path / name, scratch=tmp_path / f"{name}.scratch",
            runs=tmp_path / f"{name}.runs",
        )  # fmt: skip

    metrics = run("one")
    after = read_force_field(str(tmp_path / "one" / "force-field.offxml"))[0].tables["vdW"].values
    before = noisy.start.force_field.tables["vdW"].values
    assert (np.abs(after - before) > 1e-3 * before).any(axis=0).all()
    assert metrics["exported_energy_difference_to_openmm_kcal_per_mol"] < 1e-6
    model = open_smirnoff("fit", tmp_path / "one" / "force-field.offxml", ["gasteiger"])
    for record in inputs.datasets["made"]:
        topology = model.topology(record.atomic_numbers, record.smiles or "", record.id, record.charges)
        is_trained = inputs.splits.of("made", record.id).min() == 0
        assert (topology.charge_method == "force-field") == is_trained  # and they come before those of the data set
        assert (np.abs(topology.charges - record.charges).max() > 1e-3) == is_trained
    course = list(rows_of(tmp_path / "one" / "epochs.csv"))
    assert [int(row["epoch"]) for row in course] == list(range(metrics["gradient"]["epochs"] + 1))
    train = metrics["errors"]["train"]["all"]
    key = "force_rmse_kcal_per_mol_per_angstrom"
    assert train["after"][key] < train["exact"][key] < train["before"][key]
    assert not (tmp_path / "one.scratch").exists()
    (events,) = (tmp_path / "one.runs" / "gradient").glob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    assert {"train/loss", "validation/loss", "gradient/norm"} <= set(shown.Tags()["scalars"])
    assert {"Bonds/k [kcal/mol/angstrom**2]", "vdW/sigma [angstrom]"} <= set(shown.Tags()["histograms"])
    run("two")
    for name in ("force-field.offxml", "epochs.csv", "parameters.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
