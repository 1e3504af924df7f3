"""Minibatches of an epoch, their shards, and the loss and gradient of a shard, which add up to those of the batch.

With ΔE = E - E_label (both without atomrefs), ΔF = F - F_label and m = 1, or the number of atoms where `energy_per` is atom::

    L = energy_weight/N_E Σ_c h(ΔE_c/m_c) + force_weight/N_F Σ_c,i,k h(ΔF_cik)

    h(x) = x²                                                     mse
    h(x) = x² for |x| <= δ, 2δ|x| - δ² above                      huber: P. J. Huber, Ann. Math. Statist. 35, 73, 1964, times 2

N_E and N_F count energies and components of forces of the whole batch. So losses and gradients of shards simply add, and added in the
order of the shards they give the same bytes for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import LongArray
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.compiled import Compile, compiled_or_eager
from pesfit.painn.train.datasets import LabeledGraph, TrainingData
from pesfit.params.train_learned import Batching, LearnedObjective

SUMS = (
    "loss",
    "energy_abs",
    "energy_sq",
    "energy_per_atom_abs",
    "energy_per_atom_sq",
    "force_abs",
    "force_sq",
    "n_energy",
    "n_force",
)
"""Entries of `ShardResult.sums`: the loss, sums of |ΔE| [kcal/mol], |ΔE|², |ΔE/n_atoms|, |ΔE/n_atoms|², |ΔF_k| [kcal/mol/Å], |ΔF_k|²,
and the numbers of energies and of components of forces."""

MAX_PAIRS = 1024
"""Pairs computed at once: small enough for a processor's cache. 100 ethanols at once take 20 % longer."""
MAX_ATOMS = 1024
"""Atoms computed at once."""


def epoch_batches(n_atoms: LongArray, params: Batching, seed: int, epoch: int) -> list[LongArray]:
    """Shuffle conformers and cut them into minibatches; the last may be smaller.

    Args:
        n_atoms: of each conformer, shape (n_conformers,).
        params: the size of a batch.
        seed: of the run.
        epoch: from 0. The order depends on the seed and the epoch alone, so that a run can be resumed at any of them.

    Returns:
        Indices of conformers; each occurs once. Counted by atoms, a batch holds no more than `size`, or one conformer.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(n_atoms))
    if params.by == "conformers":
        return [order[start : start + params.size] for start in range(0, len(order), params.size)]
    ends = np.cumsum(n_atoms[order])
    batches, start = [], 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + params.size, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


def cut_into_shards(n_pairs: LongArray, batch: LongArray, n_shards: int) -> list[LongArray]:
    """Cut a minibatch into shards of about equal cost: dealt out from the largest conformer to the smallest, back and forth.

    Args:
        n_pairs: of each conformer, shape (n_conformers,); cost grows with it.
        batch: indices of conformers.
        n_shards: number of shards; fewer where the batch is smaller.
    """
    n_shards = min(n_shards, len(batch))
    by_cost = batch[np.argsort(-n_pairs[batch], kind="stable")]
    turn = np.arange(len(batch)) % (2 * n_shards)
    shard = np.where(turn < n_shards, turn, 2 * n_shards - 1 - turn)
    return [by_cost[shard == i] for i in range(n_shards)]


@dataclass(frozen=True)
class Totals:
    """Numbers of labels of a whole batch.

    Attributes:
        n_energy: number of energies.
        n_force: number of components of forces.
    """

    n_energy: int
    n_force: int

    @classmethod
    def of(cls, data: TrainingData, batch: LongArray) -> Totals:
        """Count."""
        return cls(len(batch), 3 * int((data.n_atoms[batch] * data.has_forces[batch]).sum()))


@dataclass(frozen=True, eq=False)
class ShardResult:
    """The contribution of a shard to its batch.

    Attributes:
        gradient: of the loss, in the order of `model.parameters()`, shape (n_parameters,).
        sums: float64, shape (len(SUMS),).
    """

    gradient: Tensor
    sums: Tensor


class GradientStep:
    """Loss and gradient of shards of batches.

    Make it before training starts, in every process, from the same arguments: if the step is compiled, that happens here and on a graph of
    its own, so that fresh and resumed runs and all processes run the same instructions. Which shards these can run, and which are evaluated
    eagerly instead, depends on the shard alone.

    Args:
        potential: to be trained; its weights may be views of one vector.
        objective: the loss.
        data: the training set.
        compile_step: `auto` compiles where there is a C++ compiler and the time saved in `n_steps` exceeds the time it takes.
        n_steps: batches of the whole planned run, whether or not part of it is done.
        batch_size: mean number of conformers of a batch.

    Attributes:
        potential: the one that is trained.
        compiled: whether the step is compiled.
        why: the reason, for the log.
    """

    def __init__(  # noqa: PLR0913 - the last three are named
        self,
        potential: PaiNNPotential,
        objective: LearnedObjective,
        data: TrainingData,
        *,
        compile_step: Compile = "auto",
        n_steps: int = 0,
        batch_size: float = 1.0,
    ) -> None:
        self.potential = potential
        self._objective = objective
        self._data = data.relative_to(potential.element_index, potential.atomrefs)
        self._parameters = list(potential.parameters())
        pairs_a_step = float(data.n_pairs.mean()) * batch_size
        choice = compiled_or_eager(
            self._gradient,
            potential,
            compile_step,
            n_steps=n_steps,
            calls_a_step=max(1.0, pairs_a_step / MAX_PAIRS),
            pairs_a_step=pairs_a_step,
        )
        self._function, self.compiled, self.why = choice.function, choice.compiled, choice.why

    def __call__(self, conformers: LongArray, totals: Totals) -> ShardResult:
        """Compute the contribution of a shard to the loss of its batch and to its gradient.

        Args:
            conformers: of the shard, as indices in the data.
            totals: of the whole batch.
        """
        per_energy = self._objective.energy_weight / totals.n_energy
        per_force = self._objective.force_weight / totals.n_force if totals.n_force else 0.0
        factors = torch.tensor([per_energy, per_force], dtype=torch.float64, device=self._data.device)
        results = [self._function(self._data.gather(chunk), factors) for chunk in chunks(self._data, conformers)]
        gradient, sums = results[0]
        for more_gradient, more_sums in results[1:]:
            gradient, sums = gradient + more_gradient, sums + more_sums
        return ShardResult(gradient, sums)

    def _gradient(self, graph: LabeledGraph, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient and the sums of a graph: the function that is compiled, with both derivatives inside."""
        energy, forces = relative_energy_and_forces(self.potential, graph, keep_graph=True)
        delta_energy = (energy - graph.energy) * graph.weight
        delta_forces = (forces - graph.forces) * graph.force_weight
        per_atom = delta_energy / graph.n_atoms_of
        objective = self._objective
        scaled = per_atom if objective.energy_per == "atom" else delta_energy
        loss = (
            factors[0] * loss_of(objective, "energy", scaled).sum()
            + factors[1] * loss_of(objective, "force", delta_forces).sum()
        )
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self._parameters, strict=True)]
        sums = [loss]
        for delta in (delta_energy, per_atom, delta_forces):
            sums += [delta.abs().sum(), (delta * delta).sum()]
        sums += [graph.weight.sum(), 3.0 * graph.force_weight.sum()]
        return torch.cat([gradient.reshape(-1) for gradient in gradients]), torch.stack(sums).detach()


def add_shards(results: Sequence[ShardResult]) -> ShardResult:
    """Add the shards of a batch in float64, in the order given.

    Returns:
        The batch's gradient, float64, and its sums.
    """
    gradient = results[0].gradient.double()
    for result in results[1:]:
        gradient += result.gradient
    return ShardResult(gradient, torch.stack([result.sums for result in results]).sum(0))


def relative_energy_and_forces(potential: PaiNNPotential, graph: LabeledGraph, *, keep_graph: bool) -> tuple[Tensor, Tensor]:
    """Evaluate a graph without atomrefs.

    Returns:
        Energies [kcal/mol], float64, shape (n_conformers + 1,), and forces [kcal/mol/Å], float64, shape (n_atoms, 3).
    """
    output, forces = potential.evaluate(graph.element, graph.r, graph.first, graph.second, keep_graph=keep_graph)
    return potential.scale * torch.zeros_like(graph.energy).index_add(0, graph.conformer, output), forces


def chunks(data: TrainingData, conformers: LongArray) -> list[LongArray]:
    """Cut conformers into runs of at most `MAX_PAIRS` pairs and `MAX_ATOMS` atoms, or of one."""
    parts: list[list[int]] = []
    n_pairs = n_atoms = 0
    for conformer in conformers.tolist():
        n_pairs += int(data.n_pairs[conformer])
        n_atoms += int(data.n_atoms[conformer])
        if not parts or n_pairs > MAX_PAIRS or n_atoms > MAX_ATOMS:
            parts.append([])
            n_pairs, n_atoms = int(data.n_pairs[conformer]), int(data.n_atoms[conformer])
        parts[-1].append(conformer)
    return [np.array(part) for part in parts]


def loss_of(objective: LearnedObjective, quantity: Literal["energy", "force"], delta: Tensor) -> Tensor:
    """Return h of each error.

    Args:
        objective: the loss.
        quantity: whose delta Huber's loss takes.
        delta: ΔE/m [kcal/mol] or components of ΔF [kcal/mol/Å], any shape.
    """
    square = delta * delta
    if objective.loss == "mse":
        return square
    limit = objective.huber_delta_energy if quantity == "energy" else objective.huber_delta_force
    size = delta.abs()
    return torch.where(size <= limit, square, 2.0 * limit * size - limit**2)
