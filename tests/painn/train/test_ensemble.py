"""An ensemble from training to the opened model: further networks, their own calibration, and the main network's energies and forces."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.evaluate.calibrate import Labels, calibrate
from pesfit.painn.model import ENSEMBLE_FOLDER, has_ensemble, open_ensemble, open_network
from pesfit.painn.potential import load_painn
from pesfit.painn.train.train_network import Folders, train_network
from pesfit.params.train_learned import TrainLearned
from pesfit.potentials.interface import collate
from pesfit.uncertainty.calibration import CALIBRATION_FILE, Calibration
from tests.painn.train.samples import TINY, small_data

Data = tuple[dict[str, ConformerDataset], Splits]
PARAMS = TINY.model_copy(update={"num_epochs": 2, "ensemble": 2})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


def train(data: Data, path: Path, params: TrainLearned = PARAMS, variant: Any = "conservative") -> dict[str, Any]:
    """Do what stage 07 does."""
    folder = path / variant
    folders = Folders(scratch=path / "scratch", runs=path / "runs")
    metrics = train_network(variant, *data, params, folder, folders=folders)
    ensemble = calibrate(open_ensemble(folder), folder / ENSEMBLE_FOLDER, Labels(*data)) if has_ensemble(folder) else None
    return {
        **metrics,
        "calibration": calibrate(open_network(variant, folder), folder, Labels(*data)),
        "ensemble_calibration": ensemble,
    }


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("trained")
    return path, train(data, path)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_companions_are_further_networks_of_the_same_data(trained: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = trained
    files = contents(path / "conservative")
    weights = [files[f"{place}model.safetensors"] for place in ("", "ensemble/1/", "ensemble/2/")]
    assert len(set(weights)) == 3
    assert files["config.json"] == files["ensemble/1/config.json"] == files["ensemble/2/config.json"]
    assert {name for name in files if name.startswith("ensemble/")} == {
        "ensemble/calibration.json",
        *(f"ensemble/{number}/{name}" for number in (1, 2) for name in ("config.json", "model.safetensors")),
    }
    assert list(metrics["ensemble"]) == ["1", "2"]
    assert metrics["ensemble"]["1"]["epochs"] == 2
    losses = {metrics["best_validation_loss"], *(of["best_validation_loss"] for of in metrics["ensemble"].values())}
    assert len(losses) == 3
    runs = {folder.name for folder in (path / "runs").iterdir() if list(folder.glob("events.out.tfevents.*"))}
    assert runs == {f"train_learned-conservative{rest}" for rest in ("", "-ensemble-1", "-ensemble-2")}
    assert not list((path / "scratch").iterdir())


def test_a_companion_is_what_its_seed_alone_would_train(
    trained: tuple[Path, dict[str, Any]], data: Data, tmp_path: Path
) -> None:
    train(data, tmp_path, PARAMS.model_copy(update={"seed": PARAMS.seed + 2, "ensemble": 0}))
    alone, companion = contents(tmp_path / "conservative"), contents(trained[0] / "conservative/ensemble/2")
    assert alone["model.safetensors"] == companion["model.safetensors"]


def test_the_main_network_does_not_depend_on_companions(
    trained: tuple[Path, dict[str, Any]], data: Data, tmp_path: Path
) -> None:
    metrics = train(data, tmp_path, PARAMS.model_copy(update={"ensemble": 0}))
    with_ensemble = contents(trained[0] / "conservative")
    assert contents(tmp_path / "conservative") == {
        name: found for name, found in with_ensemble.items() if not name.startswith("ensemble/")
    }
    assert metrics == trained[1] | {"ensemble": None, "ensemble_calibration": None}
    assert not has_ensemble(tmp_path / "conservative")
    with pytest.raises(DataError, match="ensemble holds no networks"):
        open_ensemble(tmp_path / "conservative")


def test_companions_train_on_the_subset_of_the_main_network(data: Data, tmp_path: Path) -> None:
    train(data, tmp_path, PARAMS.model_copy(update={"subset_size": 9, "num_epochs": 1}))
    main, *others = (load_painn(tmp_path / "conservative" / place) for place in ("", "ensemble/1", "ensemble/2"))
    # Least squares over the training set, which another draw would change.
    assert all(np.array_equal(main.atomrefs, other.atomrefs) for other in others)


class KilledError(Exception):
    """Stands for a signal."""


def test_a_kill_among_companions_costs_no_training_that_was_done(
    trained: tuple[Path, dict[str, Any]], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pesfit.painn.train import loop

    steps, step = 0, loop.TrainingRun._step

    def count_and_die(run: loop.TrainingRun, *arguments: Any) -> None:
        nonlocal steps
        if steps == n_main + 2:
            steps += 1
            raise KilledError
        steps += 1
        step(run, *arguments)

    n_main = trained[1]["steps"]
    monkeypatch.setattr(loop.TrainingRun, "_step", count_and_die)
    with pytest.raises(KilledError):
        train(data, tmp_path, PARAMS.model_copy(update={"ensemble": 1, "last_layer_conformers": 7}))
    assert len(list((tmp_path / "scratch/conservative").iterdir())) == 1
    train(data, tmp_path)
    # Besides those of three networks: two of the first companion, whose checkpoint was not due, and the one that died.
    assert steps == 3 * n_main + 2 + 1
    assert contents(tmp_path / "conservative") == contents(trained[0] / "conservative")


def test_direct_networks_have_no_companions(data: Data, tmp_path: Path) -> None:
    metrics = train(data, tmp_path, PARAMS.model_copy(update={"num_epochs": 1}), "direct")
    assert metrics["ensemble"] is None
    assert not has_ensemble(tmp_path / "direct")


def test_the_opened_ensemble_has_the_main_networks_forces_and_deviations_of_its_own(
    trained: tuple[Path, dict[str, Any]], data: Data
) -> None:
    folder = trained[0] / "conservative"
    model, main = open_ensemble(folder), open_network("main", folder)
    assert has_ensemble(folder)
    assert model.has_posterior
    record = data[0]["toy"][0]
    prepared = model.prepare(record.atomic_numbers, None, "toy")
    batch = collate([prepared.conformers(record.coords)])
    for mine, theirs in zip(vars(model.potential(batch)).values(), vars(main.potential(batch)).values(), strict=True):
        assert np.array_equal(mine.detach(), theirs.detach())
    members = [load_painn(folder / place)(batch) for place in ("", "ensemble/1", "ensemble/2")]
    forces = np.std([member.forces.detach().numpy() for member in members], axis=0, ddof=1)
    calibration = Calibration.read(folder / ENSEMBLE_FOLDER)
    assert calibration is not None
    assert model.calibration == calibration
    assert calibration.forces.n_values > 0
    assert trained[1]["ensemble_calibration"]["forces_factor"] == calibration.forces.factor
    assert prepared.uncertainty is not None
    found = prepared.uncertainty(record.coords)
    np.testing.assert_allclose(found.forces.reshape(-1, 3), calibration.forces.factor * forces, rtol=1e-3, atol=1e-4)
    again = pickle.loads(pickle.dumps(model)).prepare(record.atomic_numbers, None, "toy").uncertainty(record.coords)
    np.testing.assert_array_equal(again.forces, found.forces)


def test_without_calibration_deviations_are_as_they_are(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name, found in contents(trained[0] / "conservative").items():
        if name != f"ensemble/{CALIBRATION_FILE}":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(found)
    assert open_ensemble(tmp_path).calibration is None
    (tmp_path / "ensemble" / CALIBRATION_FILE).write_text("{")
    with pytest.raises(DataError, match=r"ensemble/calibration\.json cannot be read"):
        open_ensemble(tmp_path)
    (tmp_path / "ensemble/2/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"ensemble/2 does not hold a PaiNN potential"):
        open_ensemble(tmp_path)
