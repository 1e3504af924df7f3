"""Minibatches and shards, and the gradients, losses and predictions of shards against those of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st

import pesfit.painn.train.step
from pesfit.painn.potential import PaiNNConfig, PaiNNPotential, Variant, build_painn
from pesfit.painn.train.compiled import compile_step
from pesfit.painn.train.datasets import TrainingData, load_training_data
from pesfit.painn.train.evaluate import residuals
from pesfit.painn.train.step import SUMS, GradientStep, ShardResult, Totals, add_shards, cut_into_shards, epoch_batches
from pesfit.params.train_learned import Batching, LearnedObjective, Network
from pesfit.potentials.interface import Conformers, collate
from tests.painn.train.samples import record, small_data


@pytest.mark.parametrize("by", ["conformers", "atoms"])
def test_an_epoch_holds_everyone_once(by: str) -> None:
    n_atoms = np.random.default_rng(1).integers(1, 60, size=203)
    batches = epoch_batches(n_atoms, Batching(size=50, by=by), seed=3, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(203))
    if by == "conformers":
        assert [len(batch) for batch in batches] == [50, 50, 50, 50, 3]
    else:
        sizes = [int(n_atoms[batch].sum()) for batch in batches]
        assert all(size <= 50 or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
        firsts = [int(n_atoms[batch[0]]) for batch in batches[1:]]
        assert all(size + first > 50 for size, first in zip(sizes, firsts, strict=False)), "a batch could have held more"


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    n_atoms, params = np.full(40, 9), Batching(size=7)
    orders = [np.concatenate(epoch_batches(n_atoms, params, *key)) for key in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


@settings(deadline=None)
@given(n=st.integers(1, 60), n_shards=st.integers(1, 9), seed=st.integers(0, 100))
def test_shards_hold_everyone_once_and_cost_about_the_same(n: int, n_shards: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    n_pairs = generator.integers(0, 300, size=100)
    batch = generator.permutation(100)[:n]
    shards = cut_into_shards(n_pairs, batch, n_shards)
    assert len(shards) == min(n, n_shards)
    assert sorted(np.concatenate(shards)) == sorted(batch)
    sizes = [len(shard) for shard in shards]
    costs = [int(n_pairs[shard].sum()) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert max(costs) - min(costs) <= int(n_pairs[batch].max())


VARIANTS: tuple[Variant, ...] = ("conservative", "direct")
OBJECTIVES = (
    LearnedObjective(energy_weight=0.3, force_weight=0.7),
    LearnedObjective(energy_per="atom"),
    LearnedObjective(loss="huber", huber_delta_energy=500.0, huber_delta_force=20.0),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    datasets, splits = small_data(tmp_path_factory.mktemp("data"), extra=(record("e/0", "toy/one", [8], 10, seed=8),))
    return load_training_data(datasets, splits, "train", 4.0)


def potential(
    variant: Variant = "conservative", precision: Literal["float32", "float64"] = "float64", n_interactions: int = 2
) -> PaiNNPotential:
    network = Network(n_features=8, n_interactions=n_interactions, n_rbf=6, cutoff_angstrom=4.0, precision=precision)
    atomrefs = torch.tensor([100.0, 600.0, 800.0], dtype=torch.float64)
    return build_painn(PaiNNConfig(variant, (1, 6, 8), network), atomrefs=atomrefs, scale=20.0, seed=3)


def loss_by_autograd(model: PaiNNPotential, data: TrainingData, batch: np.ndarray, objective: LearnedObjective) -> torch.Tensor:
    """The loss as the module's docstring has it, conformer by conformer, through `Potential.forward`."""

    def h(x: torch.Tensor, delta: float) -> torch.Tensor:
        if objective.loss == "mse":
            return x**2
        return 2.0 * delta**2 * torch.nn.functional.huber_loss(x / delta, torch.zeros_like(x), reduction="none", delta=1.0)

    energy, forces, n_components = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for conformer in batch:
        atoms = slice(int(data._atom_start[conformer]), int(data._atom_start[conformer]) + int(data.n_atoms[conformer]))
        numbers = data.atomic_numbers[data.row_of_atom == data.row[conformer]]
        coords = data._coords[None, atoms].clone().requires_grad_()
        prediction = model(collate([Conformers(numbers, coords)]))
        delta = (prediction.energy - data.energy[conformer]) / (len(numbers) if objective.energy_per == "atom" else 1.0)
        energy = energy + h(delta, objective.huber_delta_energy).sum()
        if data.has_forces[conformer]:
            forces = forces + h(prediction.forces - data.forces[atoms], objective.huber_delta_force).sum()
            n_components += 3 * len(numbers)
    return objective.energy_weight * energy / len(batch) + objective.force_weight * forces / max(1, n_components)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_definition(
    variant: Variant, objective: LearnedObjective, data: TrainingData
) -> None:
    model = potential(variant)
    batch = np.array([0, 9, 22, 30, 41, 37])
    result = GradientStep(model, objective, data, compile_step="never")(batch, Totals.of(data, batch))
    loss = loss_by_autograd(model, data, batch, objective)
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    expected = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, model.parameters(), strict=True)]
    )
    assert float(result.sums[0]) == pytest.approx(float(loss.detach()), rel=1e-10)
    np.testing.assert_allclose(result.gradient.numpy(), expected.numpy(), rtol=0.0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("n_shards", [1, 2, 3, 6])
@pytest.mark.parametrize("max_pairs", [1, 12, 1024])
def test_shards_and_chunks_add_up(n_shards: int, max_pairs: int, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    step = GradientStep(potential(), OBJECTIVES[0], data, compile_step="never")
    batch = np.arange(0, len(data), 3)
    totals = Totals.of(data, batch)
    whole = step(batch, totals)
    monkeypatch.setattr(pesfit.painn.train.step, "MAX_PAIRS", max_pairs)
    total = add_shards([step(shard, totals) for shard in cut_into_shards(data.n_pairs, batch, n_shards)])
    np.testing.assert_allclose(total.sums.numpy(), whole.sums.numpy(), rtol=1e-12)
    scale = float(whole.gradient.abs().max())
    np.testing.assert_allclose(total.gradient.numpy(), whole.gradient.numpy(), rtol=0.0, atol=1e-12 * scale)


def test_sums_are_those_of_the_errors(data: TrainingData) -> None:
    model = potential()
    batch = np.array([1, 30, 17, 40])
    sums = dict(
        zip(
            SUMS,
            GradientStep(model, OBJECTIVES[0], data, compile_step="never")(batch, Totals.of(data, batch)).sums.tolist(),
            strict=True,
        )
    )
    found = residuals(model, data, batch)
    energy = found.energy.numpy()
    forces = found.forces.numpy()[data.has_forces[batch][found.conformer.numpy()] > 0]
    per_atom = energy / data.n_atoms[batch]
    expected = {
        "energy_abs": np.abs(energy).sum(),
        "energy_sq": (energy**2).sum(),
        "energy_per_atom_abs": np.abs(per_atom).sum(),
        "energy_per_atom_sq": (per_atom**2).sum(),
        "force_abs": np.abs(forces).sum(),
        "force_sq": (forces**2).sum(),
        "n_energy": 4.0,
        "n_force": float(forces.size),
    }
    assert {name: sums[name] for name in expected} == pytest.approx(expected, rel=1e-10)
    assert sums["n_force"] < 3 * data.n_atoms[batch].sum(), "one of them has no forces"


@pytest.mark.parametrize("variant", VARIANTS)
def test_residuals_are_those_of_the_potential(variant: Variant, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pesfit.painn.train.step, "MAX_PAIRS", 10)
    model = potential(variant)
    found = residuals(model, data, np.array([40, 0, 33]))
    for k, conformer in enumerate([40, 0, 33]):
        atoms = slice(int(data._atom_start[conformer]), int(data._atom_start[conformer]) + int(data.n_atoms[conformer]))
        numbers = data.atomic_numbers[data.row_of_atom == data.row[conformer]]
        prediction = model(collate([Conformers(numbers, data._coords[None, atoms])]))
        assert float(found.energy[k]) == pytest.approx(float(prediction.energy - data.energy[conformer]), abs=1e-9)
        expected = (prediction.forces - data.forces[atoms]) * float(data.has_forces[conformer])
        np.testing.assert_allclose(found.forces[found.conformer == k].numpy(), expected.detach().numpy(), rtol=0.0, atol=1e-9)


def test_a_batch_without_any_forces_learns_from_energies(data: TrainingData) -> None:
    batch = np.flatnonzero(data.has_forces == 0)
    result = GradientStep(potential(), OBJECTIVES[0], data, compile_step="never")(batch, Totals.of(data, batch))
    sums = dict(zip(SUMS, result.sums.tolist(), strict=True))
    assert sums["n_force"] == sums["force_sq"] == 0.0
    assert sums["loss"] == pytest.approx(0.3 * sums["energy_sq"] / len(batch), rel=1e-12)
    assert float(result.gradient.abs().max()) > 0.0


def test_shards_are_added_in_float64_in_their_order() -> None:
    parts = [
        ShardResult(torch.tensor([x], dtype=torch.float32), torch.ones(len(SUMS), dtype=torch.float64))
        for x in (1e8, 1.0, -1e8)
    ]
    total = add_shards(parts)
    assert total.gradient.dtype == torch.float64
    assert total.gradient.tolist() == [1.0]
    assert total.sums.tolist() == [3.0] * len(SUMS)
    assert parts[0].gradient.tolist() == [1e8], "parts stay as they are"


@pytest.mark.slow
def test_the_traced_step_takes_any_shard_and_agrees_with_eager(data: TrainingData) -> None:
    model = potential("conservative", "float32", n_interactions=1)  # two take twice as long to trace
    step = GradientStep(model, OBJECTIVES[0], data, compile_step="never")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # All of it but the C++ compiler, which takes half a minute; benchmarks/training.py compares what that makes.
    step._function = compile_step(step._gradient, model, backend="aot_eager")
    n_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    eager = GradientStep(model, OBJECTIVES[0], data, compile_step="never")
    for batch in ([0], [0, 1], list(range(20)), [29, 30], [36], [40], [5, 41, 33, 12]):
        conformers = np.array(batch)
        totals = Totals.of(data, conformers)
        traced, expected = step(conformers, totals), eager(conformers, totals)
        np.testing.assert_allclose(traced.sums.numpy(), expected.sums.numpy(), rtol=1e-5)
        scale = float(expected.gradient.abs().max())
        np.testing.assert_allclose(traced.gradient.numpy(), expected.gradient.numpy(), rtol=0.0, atol=1e-5 * scale)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == n_graphs == 1


def test_short_runs_and_machines_without_a_compiler_train_eagerly(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    model = potential()
    short = GradientStep(model, OBJECTIVES[0], data, n_steps=10, batch_size=10)
    assert (short.compiled, short.why) == (False, "it would save 0 s, and take 60 s")
    monkeypatch.setenv("CXX", "no-such-compiler")
    long = GradientStep(model, OBJECTIVES[0], data, n_steps=10**6, batch_size=10)
    assert (long.compiled, long.why) == (False, "there is no C++ compiler")


def test_what_cannot_be_compiled_is_evaluated_eagerly(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of registers\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    step = GradientStep(potential(), OBJECTIVES[0], data, n_steps=10**6, batch_size=10)
    assert (step.compiled, step.why) == (False, "compiling failed with RuntimeError: out of registers")
    with pytest.raises(RuntimeError, match="out of registers"):
        GradientStep(potential(), OBJECTIVES[0], data, compile_step="always")


def test_the_step_trains(data: TrainingData, tmp_path: Path) -> None:
    model = potential("conservative", "float32")
    step = GradientStep(model, OBJECTIVES[0], data, compile_step="never")
    batch = np.arange(len(data))
    totals = Totals.of(data, batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        result = step(batch, totals)
        losses.append(float(result.sums[0]))
        start = 0
        for parameter in model.parameters():
            parameter.grad = result.gradient[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    model.save(tmp_path)
