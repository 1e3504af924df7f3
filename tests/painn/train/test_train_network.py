"""The whole of stage 07: the same bytes however it ran, its files and metrics, its refusals, and atomrefs against known numbers."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record, read_failures
from pesfit.data.splits import SplitRow, Splits
from pesfit.painn.potential import load_painn
from pesfit.painn.train.datasets import TrainingData, load_training_data
from pesfit.painn.train.train_network import Folders, fit_atomrefs, train_network
from pesfit.params.train_learned import LearningRate, Network, Optimizer, TrainLearned
from pesfit.potentials.interface import Conformers, collate
from tests.painn.train.samples import TINY, record, small_data

Data = tuple[dict[str, ConformerDataset], Splits]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


def folders(path: Path) -> Folders:
    return Folders(scratch=path / "scratch", runs=path / "runs")


def train(
    data: Data, path: Path, params: TrainLearned = TINY, variant: Any = "conservative", start: Path | None = None
) -> dict[str, Any]:
    return train_network(variant, *data, params, path / variant, start=start, folders=folders(path))


def contents(path: Path, variant: str = "conservative") -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted((path / variant).rglob("*")) if file.is_file()}


def history_of(path: Path, variant: str = "conservative") -> list[dict[str, str]]:
    with (path / variant / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def changed(**values: Any) -> TrainLearned:
    return TINY.model_copy(update=values)


@pytest.mark.slow
def test_one_and_two_processes_end_in_the_same_bytes(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three shards of a minibatch, one process takes two and the other one."""
    results = []
    for n_processes in (1, 2):
        monkeypatch.setenv("PESFIT_WORKERS", str(n_processes))
        path = tmp_path / str(n_processes)
        metrics = train(data, path, changed(num_epochs=2))
        assert json.loads((path / "runs/train_learned-conservative/timing.json").read_text())["processes"] == n_processes
        results.append((contents(path), json.dumps(metrics)))
    assert len(results[0][0]) == 7
    assert results[0] == results[1]


class KilledError(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize("decay", ["cosine", "plateau"])
def test_a_run_that_was_cut_off_ends_in_the_same_bytes(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: str
) -> None:
    params = changed(
        learning_rate=LearningRate(peak=5e-3, decay=decay, plateau_patience=0),
        optimizer=Optimizer(kind="adam_amsgrad" if decay == "plateau" else "adamw", ema_decay=0.9),
    )
    whole = train(data, tmp_path / "whole", params)

    from pesfit.painn.train import loop

    saved, save = 0, loop.save_checkpoint

    def save_and_die(path: Path, checkpoint: Any) -> None:
        nonlocal saved
        save(path, checkpoint)
        saved += 1
        if saved % 7 == 0:
            raise KilledError

    monkeypatch.setattr(loop, "save_checkpoint", save_and_die)
    path = tmp_path / "cut"
    n_killed = 0
    while True:
        try:
            metrics = train_network(
                "conservative", *data, params, path / "conservative", folders=folders(path), seconds_between_checkpoints=0.0
            )
            break
        except KilledError:
            n_killed += 1
    assert n_killed == 3  # in the middle of epochs
    assert contents(path) == contents(tmp_path / "whole")
    assert metrics == whole
    assert not list((path / "scratch").iterdir())


def run_slowly(path: Path, data_folder: Path, splits: Splits) -> None:
    os.environ["PESFIT_WORKERS"] = "2"
    data = {"toy": ConformerDataset(data_folder)}
    train_network(
        "direct", data, splits, changed(num_epochs=200), path / "direct", folders=folders(path), seconds_between_checkpoints=0.0
    )


@pytest.mark.slow
def test_a_killed_run_leaves_a_checkpoint_and_no_processes(data: Data, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_slowly, args=(tmp_path, data[0]["toy"].path, data[1]))
    process.start()
    while not list(tmp_path.glob("scratch/direct/*.safetensors")):
        assert process.is_alive()
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert children
    while any(Path(f"/proc/{child}").exists() and _is_alive(child) for child in children):
        time.sleep(0.02)
    assert len(list(tmp_path.glob("scratch/direct/*.safetensors"))) == 1


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_other_parameters_do_not_go_on_from_a_checkpoint(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(data, tmp_path / "fresh", changed(seed=1, num_epochs=1))

    from pesfit.painn.train import train_network as learned

    with monkeypatch.context() as patch:
        patch.setattr(learned.shutil, "rmtree", lambda *_, **__: None)
        train(data, tmp_path / "after", changed(num_epochs=1))
    assert len(list((tmp_path / "after/scratch/conservative").iterdir())) == 1
    train(data, tmp_path / "after", changed(seed=1, num_epochs=1))
    assert contents(tmp_path / "after") == contents(tmp_path / "fresh")


def test_errors_fall_and_are_those_of_the_saved_model(data: Data, tmp_path: Path) -> None:
    for variant in ("conservative", "direct"):
        metrics = train(data, tmp_path, changed(num_epochs=15), variant)
        history = history_of(tmp_path, variant)
        assert len(history) == metrics["epochs"] == 15
        first, last = (float(history[i]["validation_force_mae_kcal_per_mol_per_angstrom"]) for i in (0, -1))
        assert last < 0.5 * first
        errors = saved_model_errors(tmp_path / variant, data)
        for name, expected in errors.items():
            assert metrics["errors"]["test"]["all"][name] == pytest.approx(expected, rel=1e-4)
        assert metrics["errors"]["train"]["all"]["molecules"] == 4
        assert set(metrics["errors"]["test"]) == {"all", "toy/one", "toy/two"}
        assert (
            metrics["force_jacobian_asymmetry"] < 1e-5
            if variant == "conservative"
            else metrics["force_jacobian_asymmetry"] > 0.01
        )
    text = json.dumps(metrics)
    assert "NaN" not in text
    assert "Infinity" not in text


def saved_model_errors(folder: Path, data: Data) -> dict[str, float]:
    """Evaluate the test set through the potential interface."""
    potential = load_painn(folder)
    energies, forces = [], []
    for one in data[0]["toy"]:
        test = one.select(data[1].conformers("toy", one.id, "test"))
        batch = collate([Conformers(torch.tensor(test.atomic_numbers).long(), torch.tensor(test.coords))])
        prediction = potential(batch)
        energies.append(prediction.energy.detach().numpy() - test.energy)
        if test.forces is not None:
            forces.append((prediction.forces.detach().numpy() - test.forces.reshape(-1, 3)).ravel())
    energy, force = np.concatenate(energies), np.concatenate(forces)
    return {
        "total_energy_mae_kcal_per_mol": float(np.abs(energy).mean()),
        "force_mae_kcal_per_mol_per_angstrom": float(np.abs(force).mean()),
        "force_rmse_kcal_per_mol_per_angstrom": float(np.sqrt((force**2).mean())),
    }


@pytest.mark.slow
def test_one_variant_starts_from_the_other(data: Data, tmp_path: Path) -> None:
    params = changed(num_epochs=10)
    assert train(data, tmp_path, params, "direct")["started_from"] is None
    started = train(data, tmp_path, params, "conservative", start=tmp_path / "direct")
    assert started["started_from"] == str(tmp_path / "direct")
    fresh = train(data, tmp_path / "fresh", changed(num_epochs=10), "conservative")
    key = "validation_total_energy_mae_kcal_per_mol"
    curves = [history_of(path) for path in (tmp_path, tmp_path / "fresh")]
    assert float(curves[0][0][key]) < 0.7 * float(curves[1][0][key])
    assert fresh["started_from"] is None


def test_early_stopping_keeps_the_best_weights_and_the_last(data: Data, tmp_path: Path) -> None:
    params = changed(
        num_epochs=50,
        early_stopping_min_epochs=2,
        early_stopping_patience=1,
        learning_rate=LearningRate(peak=0.1, warmup_epochs=0.0, decay="constant"),
        optimizer=Optimizer(ema_decay=0.0, max_gradient_norm=None),
    )
    metrics = train(data, tmp_path, params)
    history = history_of(tmp_path)
    losses = [float(row["validation_loss"]) for row in history]
    assert metrics["stopped_early"]
    assert len(losses) == metrics["best_epoch"] + 1 < 50
    assert metrics["best_validation_loss"] == pytest.approx(min(losses), rel=1e-9)
    saved = contents(tmp_path)
    assert saved["conservative/model.safetensors"] != saved["conservative/last/model.safetensors"]


def test_a_loss_that_is_no_number_names_its_conformers(tmp_path: Path) -> None:
    odd = record("odd/0", "toy/one", [6, 1], 10, seed=9)
    odd.coords[4, 1] = odd.coords[4, 0]  # two atoms in one place
    data = small_data(tmp_path, extra=(odd,))
    with pytest.raises(
        PesfitError, match=r"(?s)at step \d \(epoch 1\).*toy: odd/0, conformer 4.*learning_rate\.peak \(now 0\.005\)"
    ):
        train(data, tmp_path / "out")
    assert not (tmp_path / "out/conservative/model.safetensors").exists()


def test_elements_that_are_not_trained_on_are_failures(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path, extra=(record("odd/0", "toy/one", [6, 9], 10, seed=9),))
    rows = [replace(row, split=np.full(10, 2, dtype=np.uint8)) if row.id == "odd/0" else row for row in splits]
    metrics = train((datasets, Splits(rows)), tmp_path, changed(num_epochs=1))
    (failure,) = read_failures(tmp_path / "conservative/failures.csv")
    assert (failure.id, failure.kind) == ("odd/0", "UnknownElementError")
    assert "atomic numbers 9 are not in the training set" in failure.message
    assert metrics["failures"] == 1
    assert metrics["errors"]["test"]["all"]["conformers"] == 10


def test_sources_and_subsets_can_be_chosen(data: Data, tmp_path: Path) -> None:
    metrics = train(data, tmp_path, changed(num_epochs=1, sources=("toy/one",), subset_size=11))
    assert metrics["errors"]["train"]["all"]["conformers"] == 11
    assert set(metrics["errors"]["test"]) == {"all", "toy/one"}


def test_what_cannot_be_is_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"initial_weights\.conservative = '.*direct': holds no trained network"):
        train(data, tmp_path, start=tmp_path / "direct")
    with pytest.raises(ParamsError, match=r"train_learned\.sources: 'toy/three' is no source"):
        train(data, tmp_path, changed(sources=("toy/three",)))
    datasets, splits = data
    no_validation = Splits([replace(row, split=np.where(row.split == 1, 0, row.split).astype(np.uint8)) for row in splits])
    with pytest.raises(DataError, match="the validation split holds 0 conformers"):
        train((datasets, no_validation), tmp_path)
    train(data, tmp_path, changed(num_epochs=1), "direct")
    other = changed(network=Network(n_features=12, n_interactions=2, n_rbf=6, cutoff_angstrom=4.0))
    with pytest.raises(DataError, match="n_features = 8; this one has 12"):
        train(data, tmp_path, other, start=tmp_path / "direct")


TRUE = {1: -313.5, 6: -23875.25, 7: -34250.125, 8: -47130.0625}


def load(folder: Path, molecules: list[tuple[list[int], list[float]]], forces: float | None = None) -> TrainingData:
    """Molecules by their atoms and what their conformers' energies deviate from the sum of the atoms'."""
    records = []
    for i, (numbers, deviations) in enumerate(molecules):
        coords = np.random.default_rng(i).normal(size=(len(deviations), len(numbers), 3))
        records.append(
            Record(
                id=f"m/{i}",
                smiles=None,
                atomic_numbers=np.array(numbers, dtype=np.int32),
                coords=coords,
                energy=np.array(deviations) + sum(TRUE[z] for z in numbers),
                forces=None if forces is None else np.full_like(coords, forces) * np.where(np.arange(3) == 1, -1.0, 1.0),
                charges=None,
                total_charge=0,
                group=f"m/{i}",
                source="toy",
                frame=np.arange(len(deviations)),
            )
        )
    with DatasetWriter(folder / "toy", {"toy": "none"}) as writer:
        for record in records:
            writer.write(record)
    splits = Splits([SplitRow("toy", r.id, r.group, np.zeros(r.n_conformers, dtype=np.uint8)) for r in records])
    return load_training_data({"toy": ConformerDataset(folder / "toy")}, splits, "train", 5.0)


def test_energies_that_are_sums_of_atoms_give_those_back(tmp_path: Path) -> None:
    molecules = [([6, 1, 1, 1, 1], [0.0] * 3), ([8, 1, 1], [0.0]), ([7, 1, 1, 1], [0.0] * 2), ([6, 8], [0.0]), ([7, 7], [0.0])]
    atomrefs = fit_atomrefs(load(tmp_path, molecules, forces=2.5))
    assert atomrefs.elements == (1, 6, 7, 8)
    np.testing.assert_allclose(atomrefs.values, list(TRUE.values()), rtol=0.0, atol=1e-8)
    assert atomrefs.scale == pytest.approx(2.5, rel=1e-12)


def test_they_are_the_least_squares_over_conformers_not_rows(tmp_path: Path) -> None:
    molecules = [([8, 1, 1], [1.0, 3.0, -2.0, 0.5]), ([8, 8], [4.0]), ([1, 1], [-7.0, 1.0]), ([8, 1], [0.25])]
    atomrefs = fit_atomrefs(load(tmp_path, molecules))
    design = np.array([[2, 1]] * 4 + [[0, 2]] + [[2, 0]] * 2 + [[1, 1]], dtype=float)
    deviations = np.concatenate([deviation for _, deviation in molecules])
    expected = np.linalg.solve(design.T @ design, design.T @ deviations)
    np.testing.assert_allclose(atomrefs.values - [TRUE[1], TRUE[8]], expected, rtol=0.0, atol=1e-8)
    assert atomrefs.scale == pytest.approx(np.sqrt(np.mean((deviations - design @ expected) ** 2)), rel=1e-8)


def test_one_molecule_alone_has_its_mean_and_the_smallest_atomrefs(tmp_path: Path) -> None:
    atomrefs = fit_atomrefs(load(tmp_path, [([6, 1, 1, 8], [2.0, 4.0])]))
    energy = 2 * TRUE[1] + TRUE[6] + TRUE[8] + 3.0
    counts = np.array([2.0, 1.0, 1.0])
    np.testing.assert_allclose(atomrefs.values, energy * counts / (counts @ counts), rtol=1e-12)
    assert atomrefs.scale == pytest.approx(1.0, rel=1e-6)


def test_a_single_frame_without_forces_has_scale_one(tmp_path: Path) -> None:
    assert fit_atomrefs(load(tmp_path, [([1], [0.0])])).scale == 1.0
