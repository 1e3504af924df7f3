"""Errors and loss of a split against the training step's own sums, and what is said of a force field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.process_group import ProcessGroup
from pesfit.painn.potential import PaiNNConfig, PaiNNPotential, build_painn
from pesfit.painn.train.datasets import TrainingData, load_training_data
from pesfit.painn.train.evaluate import evaluate_split
from pesfit.painn.train.results import count_operations, jacobian_asymmetry, mean_jacobian_asymmetry
from pesfit.painn.train.step import SUMS, GradientStep, Totals
from pesfit.painn.train.train_network import fit_atomrefs
from pesfit.params.train_learned import LearnedObjective
from pesfit.potentials.interface import Conformers, collate
from pesfit.statistics.errors import pooled
from tests.painn.train.samples import TINY, record, small_data

CUTOFF = TINY.network.cutoff_angstrom


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """More conformers than are evaluated in one piece."""
    many = record("e/0", "toy/two", [6, 1, 1, 1], 100, seed=7)
    return load_training_data(*small_data(tmp_path_factory.mktemp("data"), extra=(many,)), "train", CUTOFF)


def network(data: TrainingData, variant: str) -> PaiNNPotential:
    atomrefs = fit_atomrefs(data)
    config = PaiNNConfig(variant, atomrefs.elements, TINY.network)  # type: ignore[arg-type]
    return build_painn(config, atomrefs=torch.from_numpy(atomrefs.values), scale=atomrefs.scale, seed=3)


def energy_loss(objective: LearnedObjective, error: FloatArray, n_atoms: LongArray) -> float:
    of_each = error / n_atoms if objective.energy_per == "atom" else error
    if objective.loss == "mse":
        return float(objective.energy_weight * np.mean(of_each**2))
    size, limit = np.abs(of_each), objective.huber_delta_energy
    return float(objective.energy_weight * np.where(size <= limit, size**2, 2.0 * limit * size - limit**2).mean())


@pytest.mark.parametrize("variant", ["conservative", "direct"])
@pytest.mark.parametrize(
    "objective",
    [LearnedObjective(), LearnedObjective(loss="huber", energy_per="atom", huber_delta_energy=3.0, huber_delta_force=20.0)],
)
def test_loss_and_errors_are_those_that_training_sees(data: TrainingData, variant: str, objective: LearnedObjective) -> None:
    potential = network(data, variant)
    everything = np.arange(len(data))
    step = GradientStep(potential, objective, data, compile_step="never")
    sums = dict(zip(SUMS, step(everything, Totals.of(data, everything)).sums.tolist(), strict=True))
    found = evaluate_split(potential, data, objective, ProcessGroup())
    # Training sees total energies; what weights are chosen by leaves each molecule's mean error out.
    total = energy_loss(objective, found.errors.energy, found.errors.n_atoms)
    centered = found.errors.energy.copy()
    for molecule in np.unique(found.errors.molecule):
        centered[found.errors.molecule == molecule] -= centered[found.errors.molecule == molecule].mean()
    relative = energy_loss(objective, centered, found.errors.n_atoms)
    assert found.loss == pytest.approx(sums["loss"] - total + relative, rel=1e-5)
    assert found.loss < sums["loss"]
    errors = pooled(found.errors)
    n_energy, n_force = sums["n_energy"], sums["n_force"]
    assert n_force == found.errors.n_components.sum()
    assert errors["total_energy_mae_kcal_per_mol"] == pytest.approx(sums["energy_abs"] / n_energy, rel=1e-5)
    assert errors["total_energy_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(sums["energy_sq"] / n_energy), rel=1e-5)
    assert errors["total_energy_mae_kcal_per_mol_per_atom"] == pytest.approx(sums["energy_per_atom_abs"] / n_energy, rel=1e-5)
    assert errors["force_mae_kcal_per_mol_per_angstrom"] == pytest.approx(sums["force_abs"] / n_force, rel=1e-5)
    assert errors["force_rmse_kcal_per_mol_per_angstrom"] == pytest.approx(np.sqrt(sums["force_sq"] / n_force), rel=1e-5)


def test_rows_of_one_molecule_are_one_molecule(data: TrainingData) -> None:
    errors = evaluate_split(network(data, "direct"), data, LearnedObjective(), ProcessGroup()).errors
    groups = [data.rows[row].group for row in data.row]
    for group in "abcde":
        numbers = {int(number) for number, name in zip(errors.molecule, groups, strict=True) if name == group}
        assert len(numbers) == 1
    assert len(np.unique(errors.molecule)) == 5


@pytest.mark.parametrize("variant", ["conservative", "direct"])
def test_the_jacobian_is_that_of_small_displacements(tmp_path: Path, variant: str) -> None:
    one = record("a/0", "toy/one", [6, 1, 1, 8], 10, seed=1)
    float64 = TINY.network.model_copy(update={"precision": "float64"})
    data = load_training_data(*small_data(tmp_path), "train", CUTOFF)
    config = PaiNNConfig(variant, data.elements, float64)  # type: ignore[arg-type]
    potential = build_painn(config, seed=3)
    conformer = next(i for i in range(len(data)) if data.name_of(i) == "toy: a/0, conformer 0")
    h, columns = 1e-4, []
    for component in range(12):
        forces = []
        for sign in (1.0, -1.0):
            coords = torch.tensor(one.coords[:1].copy())
            coords.view(-1)[component] += sign * h
            batch = collate([Conformers(torch.tensor(one.atomic_numbers).long(), coords)])
            forces.append(potential(batch).forces.detach().reshape(-1))
        columns.append((forces[0] - forces[1]) / (2.0 * h))
    jacobian = torch.stack(columns, dim=1)
    expected = float((jacobian - jacobian.T).norm() / (2.0 * jacobian.norm()))
    assert jacobian_asymmetry(potential, data, conformer) == pytest.approx(expected, abs=1e-6)
    assert (expected < 1e-6) == (variant == "conservative")
    asymmetry = mean_jacobian_asymmetry(potential, data, 3)
    assert asymmetry is not None
    assert 0.0 <= asymmetry < 1.0


def test_operations_are_counted(data: TrainingData) -> None:
    conservative, direct = (count_operations(network(data, variant), data) for variant in ("conservative", "direct"))
    training, inference = "training_mflop_per_atom", "inference_mflop_per_atom"
    assert conservative[training] > direct[training] > direct[inference] > 0.0
    assert conservative[inference] > direct[inference]
