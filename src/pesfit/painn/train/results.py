"""The results of a training: networks and tables in a folder, and metrics, among them properties of the force field."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pesfit.core.files import FAILURES_FILE
from pesfit.data.dataset import write_failures
from pesfit.painn.model import companion_folder
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import TrainingData, TrainingSets
from pesfit.painn.train.evaluate import Evaluation, residuals
from pesfit.painn.train.fit_last_layer import LastLayer
from pesfit.painn.train.loop import Trained
from pesfit.painn.train.optimizer import FlatParameters
from pesfit.painn.train.step import GradientStep, Totals
from pesfit.params.train_learned import LearnedObjective, TrainLearned
from pesfit.statistics.errors import summarize

_JACOBIANS = 5
"""Test conformers whose force Jacobian is computed."""
_MAX_JACOBIAN_ATOMS = 60
"""Larger conformers are left out: a Jacobian takes three backward passes for each atom."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The results of a run, in each of its processes.

    Attributes:
        potential: with the best weights.
        flat: its weights.
        trained: the run.
        evaluations: of each split that has conformers.
        sets: the data.
        last_layer: of the conservative variant; None of the direct one, whose forces do not depend on the last layer of the energy.
        companions: the runs of the networks beside it, in order.
    """

    potential: PaiNNPotential
    flat: FlatParameters
    trained: Trained
    evaluations: dict[str, Evaluation]
    sets: TrainingSets
    last_layer: LastLayer | None
    companions: list[Trained]

    def write(self, output: Path) -> None:
        """Write networks, the posterior of the last layer, the learning curve and failures; see `train_network`."""
        networks = {companion_folder(output, i): companion.best for i, companion in enumerate(self.companions, start=1)}
        networks |= {output / "last": self.trained.last, output: self.trained.best}
        for folder, weights in networks.items():  # the best come last and stay
            self.flat.set(weights)
            self.potential.save(folder)
        if self.last_layer is not None:
            self.last_layer.posterior.write(output)
        write_failures(output / FAILURES_FILE, self.sets.failures)
        rows = self.trained.history
        with (output / "history.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in rows)

    def metrics(self, params: TrainLearned) -> dict[str, Any]:
        """Return the metrics of the stage.

        Args:
            params: of the run.
        """
        data = self.sets.data
        return {
            "weights": self.flat.vector.numel(),
            **_course(self.trained, params),
            "failures": len(self.sets.failures),
            "cost": count_operations(self.potential, data["train"]),
            "force_jacobian_asymmetry": mean_jacobian_asymmetry(
                self.potential, data.get("test", data["validation"]), _JACOBIANS
            ),
            "errors": {split: summarize(evaluation.errors) for split, evaluation in self.evaluations.items()},
            "last_layer": None if self.last_layer is None else self.last_layer.metrics(),
            "ensemble": {str(i): _course(companion, params) for i, companion in enumerate(self.companions, start=1)} or None,
        }


def _course(trained: Trained, params: TrainLearned) -> dict[str, float]:
    return {
        "epochs": len(trained.history),
        "steps": int(trained.history[-1]["step"]),
        "best_epoch": trained.best_epoch,
        "stopped_early": len(trained.history) < params.num_epochs,
        "best_validation_loss": trained.history[trained.best_epoch - 1]["validation_loss"],
    }


def jacobian_asymmetry(potential: PaiNNPotential, data: TrainingData, conformer: int) -> float:
    """Compute the asymmetry a of the force Jacobian of one conformer.

    A force field F is a gradient only where its Jacobian J = ∂F/∂x is symmetric; for -dE/dx it is minus the Hessian of E::

        a = |(J - Jᵀ)/2| / |J|        Frobenius norms; 0 for a gradient, 1 for a pure rotation

    (F. Bigi, M. F. Langer and M. Ceriotti, "The dark side of the forces", ICML 2025, arXiv:2412.11569, measure the same.)

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
        n_conformers: number of conformers.
    """
    chosen = _evenly(np.flatnonzero(data.n_atoms <= _MAX_JACOBIAN_ATOMS), n_conformers)
    return float(np.mean([jacobian_asymmetry(potential, data, int(c)) for c in chosen])) if len(chosen) else None


def count_operations(potential: PaiNNPotential, data: TrainingData, n_conformers: int = 8) -> dict[str, float]:
    """Count multiplications and additions in matrix products, which are the same on every machine, on a few conformers, evenly spaced.

    Args:
        potential: of either variant.
        data: the conformers to choose from.
        n_conformers: number of conformers.

    Returns:
        Millions for each atom, of a training step (forward and backward) and of energy and forces alone.
    """
    chosen = _evenly(np.arange(len(data)), n_conformers)
    step = GradientStep(potential, LearnedObjective(), data, compile_step="never")
    n_atoms = int(data.n_atoms[chosen].sum())
    with _Counter() as training:
        step(chosen, Totals.of(data, chosen))
    with _Counter() as inference:
        residuals(potential, data, chosen)
    counts = {"training": training.n_operations, "inference": inference.n_operations}
    return {f"{name}_mflop_per_atom": n / n_atoms / 1e6 for name, n in counts.items()}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sum of torch's own operation counts; its `FlopCounterMode` cannot follow a derivative inside a function."""

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
