"""The posterior of a last layer: its normal equations, its coverage, and what of it reaches files, metrics and models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pesfit.core.arrays import FloatArray
from pesfit.core.process_group import ProcessGroup
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.models.open import open_model
from pesfit.painn.last_layer import LAST_LAYER_FILE, LastLayerPosterior, last_layer
from pesfit.painn.potential import PaiNNConfig, PaiNNPotential, build_painn, load_painn
from pesfit.painn.train import fit_last_layer as module
from pesfit.painn.train.datasets import TrainingData, load_training_data
from pesfit.painn.train.fit_last_layer import fit_last_layer, infer_last_layer, sum_up
from pesfit.painn.train.train_network import Folders, train_network
from pesfit.params.train_learned import LearnedObjective, Network
from pesfit.potentials.interface import Conformers, collate
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations
from tests.painn.train.samples import TINY, small_data

SHAPE = Network(n_features=48, n_interactions=2, n_rbf=8, cutoff_angstrom=4.0, precision="float64")
N_FEATURES = 25
Data = tuple[dict[str, ConformerDataset], Splits]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


def network() -> PaiNNPotential:
    atomrefs = torch.tensor([100.0, 600.0, 800.0], dtype=torch.float64)
    return build_painn(PaiNNConfig("conservative", (1, 6, 8), SHAPE), atomrefs=atomrefs, scale=3.0, seed=3)


@dataclass(frozen=True, eq=False)
class Dense:
    """Rows of a split, by changing one number of the last layer after the other.

    Attributes:
        energy: shape (n_conformers, N_FEATURES).
        forces: shape (n_components, N_FEATURES), of conformers that have labels.
        energy_rest, force_rest: labels minus what the network says.
    """

    energy: FloatArray
    forces: FloatArray
    energy_rest: FloatArray
    force_rest: FloatArray


def dense(potential: PaiNNPotential, data: Data, split: str) -> Dense:
    parts: list[Dense] = []
    layer = potential.network.energy_head[1]
    for record in data[0]["toy"]:
        chosen = record.select(data[1].conformers("toy", record.id, split))
        batch = collate([Conformers(torch.tensor(chosen.atomic_numbers).long(), torch.tensor(chosen.coords))])

        def predict(batch: Any = batch) -> tuple[FloatArray, FloatArray]:
            found = potential(batch)
            return found.energy.detach().numpy(), found.forces.detach().numpy().ravel()

        energy, forces = predict()
        columns = []
        with torch.no_grad():
            for k in range(N_FEATURES):
                number = layer.weight[0, k : k + 1] if k < N_FEATURES - 1 else layer.bias
                number += 1.0
                moved = predict()
                number -= 1.0
                columns.append((moved[0] - energy, moved[1] - forces))
        labeled = chosen.forces is not None
        of_forces = np.stack([f for _, f in columns], axis=1)
        rest = chosen.forces.ravel() - forces if chosen.forces is not None else forces[:0]
        parts.append(
            Dense(np.stack([e for e, _ in columns], axis=1), of_forces[: labeled * len(forces)], chosen.energy - energy, rest)
        )
    return Dense(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("energy", "forces", "energy_rest", "force_rest"))
    )


def loaded(data: Data, split: str) -> TrainingData:
    return load_training_data(*data, split, SHAPE.cutoff_angstrom)


def test_normal_equations_are_those_of_all_rows(data: Data) -> None:
    potential = network()
    rows = dense(potential, data, "train")
    assert (len(rows.energy_rest), len(rows.force_rest)) == (35, 7 * 3 * (4 + 5 + 5 + 3))
    found = sum_up(potential, loaded(data, "train"), 1000, "test", ProcessGroup())
    expected = NormalEquations(
        {
            ENERGIES: Moments.from_rows(rows.energy, rows.energy_rest),
            FORCES: Moments.from_rows(rows.forces, rows.force_rest),
        }
    )
    for mine, theirs in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(mine.gram, theirs.gram, rtol=1e-8, atol=1e-8 * np.abs(theirs.gram).max())
        np.testing.assert_allclose(mine.moment, theirs.moment, rtol=1e-7, atol=1e-8 * np.abs(theirs.moment).max())
        assert mine.square == pytest.approx(theirs.square, rel=1e-9)
        assert mine.n_rows == theirs.n_rows


def test_the_posterior_is_that_of_bayes_rule(data: Data) -> None:
    potential = network()
    rows = dense(potential, data, "train")
    parts = {"train": loaded(data, "train"), "validation": loaded(data, "validation")}
    found = fit_last_layer(potential, parts, LearnedObjective(energy_weight=0.2, force_weight=0.8), 1000, ProcessGroup())
    posterior, layer = found.posterior, last_layer(potential)
    precisions = 1.0 / posterior.energy_noise_variance, 1.0 / posterior.force_noise_variance
    of_prior = posterior.strength / posterior.force_noise_variance
    precision = (
        precisions[0] * rows.energy.T @ rows.energy
        + precisions[1] * rows.forces.T @ rows.forces
        + of_prior * np.eye(N_FEATURES)
    )
    pull = precisions[0] * rows.energy.T @ rows.energy_rest + precisions[1] * rows.forces.T @ rows.force_rest - of_prior * layer
    np.testing.assert_allclose(posterior.covariance, np.linalg.inv(precision), rtol=1e-5)
    np.testing.assert_allclose(posterior.mean, np.linalg.solve(precision, pull), rtol=1e-5)
    gamma = N_FEATURES - of_prior * np.trace(posterior.covariance)
    assert found.effective_parameters == pytest.approx(gamma, rel=1e-5)
    check_validation(found, dense(potential, data, "validation"))


def check_validation(found: module.LastLayer, rows: Dense) -> None:
    metrics, losses = found.metrics(), []
    for where, x in (("as_trained", np.zeros(N_FEATURES)), ("at_posterior_mean", found.posterior.mean)):
        energy = np.mean((rows.energy_rest - rows.energy @ x) ** 2)
        forces = np.mean((rows.force_rest - rows.forces @ x) ** 2)
        assert metrics[f"validation_total_energy_rmse_kcal_per_mol_{where}"] == pytest.approx(np.sqrt(energy), rel=1e-7)
        assert metrics[f"validation_force_rmse_kcal_per_mol_per_angstrom_{where}"] == pytest.approx(np.sqrt(forces), rel=1e-7)
        losses.append(0.2 * energy + 0.8 * forces)
    assert metrics["validation_squared_loss_change_at_posterior_mean"] == pytest.approx(losses[1] / losses[0] - 1.0, rel=1e-6)


@pytest.mark.slow
def test_intervals_cover_at_the_nominal_rate(data: Data) -> None:
    """Labels of networks whose last layer is drawn from the prior, with noise; the posterior knows neither layer nor noise nor prior."""
    potential, rng = network(), np.random.default_rng(11)
    train, test = dense(potential, data, "train"), dense(potential, data, "test")
    layer, width, energy_noise, force_noise = last_layer(potential), 0.7, 0.5, 2.0
    inside: dict[str, list[list[bool]]] = {"energy": [], "forces": []}
    noises = []
    for _ in range(150):
        truth = width * rng.normal(size=N_FEATURES) - layer
        equations = NormalEquations(
            {
                ENERGIES: Moments.from_rows(
                    train.energy, train.energy @ truth + energy_noise * rng.normal(size=len(train.energy))
                ),
                FORCES: Moments.from_rows(
                    train.forces, train.forces @ truth + force_noise * rng.normal(size=len(train.forces))
                ),
            }
        )
        posterior, weight = infer_last_layer(equations, layer)
        noises.append([np.sqrt(posterior.noise_variance / weight), np.sqrt(posterior.noise_variance)])
        for name, rows in (("energy", test.energy), ("forces", test.forces)):
            deviation = np.sqrt(np.einsum("ij,jk,ik->i", rows, posterior.covariance, rows))
            error = np.abs(rows @ (truth - posterior.x))
            inside[name].append([np.mean(error <= norm.ppf(0.5 + 0.5 * level) * deviation) for level in (0.5, 0.9, 0.95)])
    np.testing.assert_allclose(np.mean(noises, axis=0), [energy_noise, force_noise], rtol=0.05)
    for name, shares in inside.items():
        np.testing.assert_allclose(np.mean(shares, axis=0), [0.5, 0.9, 0.95], atol=0.03, err_msg=name)


def test_large_sets_are_thinned_evenly(data: Data) -> None:
    parts = {"train": loaded(data, "train"), "validation": loaded(data, "validation")}
    found = fit_last_layer(network(), parts, LearnedObjective(), 9, ProcessGroup())
    assert found.metrics()["conformers"] == 9


def test_energies_alone_leave_the_noise_of_forces_open(data: Data) -> None:
    whole = loaded(data, "train")
    only = load_training_data(*data, "train", SHAPE.cutoff_angstrom, uses=lambda record: record.forces is None)
    assert len(only) < len(whole)
    found = fit_last_layer(network(), {"train": only, "validation": only}, LearnedObjective(), 1000, ProcessGroup())
    metrics = found.metrics()
    assert np.isnan(found.posterior.force_noise_variance)
    assert metrics["force_noise_kcal_per_mol_per_angstrom"] is None
    assert metrics["validation_force_rmse_kcal_per_mol_per_angstrom_as_trained"] is None
    assert metrics["energy_noise_kcal_per_mol"] > 0.0
    assert found.posterior.energy_weight == 1.0


def test_stage_files_metrics_and_models(data: Data, tmp_path: Path) -> None:
    folders = Folders(scratch=tmp_path / "scratch", runs=tmp_path / "runs")
    params = TINY.model_copy(update={"num_epochs": 2})
    direct = train_network("direct", *data, params, tmp_path / "direct", folders=folders)
    assert direct["last_layer"] is None
    assert not (tmp_path / "direct" / LAST_LAYER_FILE).exists()
    assert not open_model(tmp_path / "direct").has_posterior

    folder = tmp_path / "conservative"
    metrics = train_network("conservative", *data, params, folder, folders=folders)
    errors, summary = metrics["errors"]["validation"]["all"], metrics["last_layer"]
    for name in ("total_energy_rmse_kcal_per_mol", "force_rmse_kcal_per_mol_per_angstrom"):
        assert summary[f"validation_{name}_as_trained"] == pytest.approx(errors[name], rel=1e-4)
    assert (summary["n_features"], summary["conformers"]) == (5, 35)
    stored = LastLayerPosterior.read(folder)
    assert stored is not None
    assert stored.energy_noise_variance == pytest.approx(summary["energy_noise_kcal_per_mol"] ** 2)
    assert stored.force_noise_variance == pytest.approx(summary["force_noise_kcal_per_mol_per_angstrom"] ** 2)

    model = open_model(folder)
    record = data[0]["toy"][0]
    prepared = model.prepare(record.atomic_numbers, None, "toy")
    assert model.has_posterior
    assert prepared.uncertainty is not None
    found, expected = prepared.uncertainty(record.coords), stored.of(load_painn(folder), record.atomic_numbers)(record.coords)
    np.testing.assert_array_equal(found.forces, expected.forces)
    assert (found.energy > 0.0).all()
    (folder / LAST_LAYER_FILE).unlink()
    without = open_model(folder)
    assert (without.has_posterior, without.prepare(record.atomic_numbers, None, "toy").uncertainty) == (False, None)
