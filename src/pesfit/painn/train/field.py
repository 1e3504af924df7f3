"""What a force field says of itself: how far its forces are from being a gradient, and what evaluating it costs.

A field F is a gradient only where its Jacobian J = ∂F/∂x is symmetric; for -dE/dx it is minus the Hessian of E. Reported is::

    a = |(J - Jᵀ)/2| / |J|        Frobenius norms; 0 for a gradient, 1 for a pure rotation

(F. Bigi, M. F. Langer and M. Ceriotti, "The dark side of the forces", ICML 2025, arXiv:2412.11569, measure the same.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.graphs import TrainingData
from pesfit.painn.train.step import GradientStep, Totals, evaluate
from pesfit.params.train_learned import LearnedObjective

_MAX_ATOMS = 60
"""Larger conformers are passed over: a Jacobian takes three backward passes for each atom."""


def jacobian_asymmetry(potential: PaiNNPotential, data: TrainingData, conformer: int) -> float:
    """Return a of one conformer.

    Args:
        potential: of either variant.
        data: that holds the conformer.
        conformer: its index.
    """
    graph = data.relative_to(potential.element_index, potential.atomrefs).gather(np.array([conformer]))
    moved = torch.zeros_like(graph.forces, requires_grad=True)
    r = graph.r + moved[graph.second] - moved[graph.first]
    _, forces = potential.evaluate(graph.element, r, graph.first, graph.second, keep_graph=True)
    rows: list[Tensor] = []
    for component in forces.reshape(-1):
        (row,) = torch.autograd.grad(component, moved, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(row.reshape(-1))
    jacobian = torch.stack(rows)
    size = float(torch.linalg.matrix_norm(jacobian))
    return float(torch.linalg.matrix_norm(jacobian - jacobian.T)) / (2.0 * size) if size > 0.0 else 0.0


def mean_jacobian_asymmetry(potential: PaiNNPotential, data: TrainingData, n_conformers: int) -> float | None:
    """Return the mean of a over a few conformers, evenly spaced; None where all are too large.

    Args:
        potential: of either variant.
        data: the conformers to choose from.
        n_conformers: how many.
    """
    chosen = _evenly(np.flatnonzero(data.n_atoms <= _MAX_ATOMS), n_conformers)
    return float(np.mean([jacobian_asymmetry(potential, data, int(c)) for c in chosen])) if len(chosen) else None


@dataclass(frozen=True)
class Cost:
    """Multiplications and additions in matrix products, which are the same on every machine.

    Attributes:
        training_mflop_per_atom: of a training step, forward and backward, in millions for each atom of the batch.
        inference_mflop_per_atom: of energy and forces alone.
    """

    training_mflop_per_atom: float
    inference_mflop_per_atom: float


def count_operations(potential: PaiNNPotential, data: TrainingData, n_conformers: int = 8) -> Cost:
    """Count operations on a few conformers, evenly spaced.

    Args:
        potential: of either variant.
        data: the conformers to choose from.
        n_conformers: how many.
    """
    chosen = _evenly(np.arange(len(data)), n_conformers)
    step = GradientStep(potential, LearnedObjective(), data, compile_step="never")
    n_atoms = int(data.n_atoms[chosen].sum())
    with _Counter() as training:
        step(chosen, Totals.of(data, chosen))
    with _Counter() as inference:
        evaluate(potential, data, chosen)
    return Cost(training.n_operations / n_atoms / 1e6, inference.n_operations / n_atoms / 1e6)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up what torch's own table says of each operation; its `FlopCounterMode` cannot follow a derivative inside a function."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.n_operations += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def _evenly(items: np.ndarray, n: int) -> np.ndarray:
    return items[np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).astype(np.int64))] if len(items) else items
