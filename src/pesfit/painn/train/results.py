"""What a training leaves: networks and tables in a folder, and metrics."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pesfit.core.files import FAILURES_FILE
from pesfit.data.dataset import write_failures
from pesfit.painn.model import companion_folder
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import Sets
from pesfit.painn.train.evaluate import Evaluation
from pesfit.painn.train.field import count_operations, mean_jacobian_asymmetry
from pesfit.painn.train.fit_last_layer import LastLayer
from pesfit.painn.train.flat import FlatParameters
from pesfit.painn.train.loop import Trained
from pesfit.params.train_learned import TrainLearned
from pesfit.statistics.errors import summarize

_JACOBIANS = 5
"""Test conformers whose force Jacobian is looked at."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a process has when the run is over.

    Attributes:
        potential: with the best weights.
        flat: its weights.
        trained: the run.
        evaluations: of each split that has conformers.
        sets: the data.
        last_layer: of the conservative variant; None of the direct one, whose forces the energy's last layer does not make.
        companions: the runs of the networks beside it, in order.
    """

    potential: PaiNNPotential
    flat: FlatParameters
    trained: Trained
    evaluations: dict[str, Evaluation]
    sets: Sets
    last_layer: LastLayer | None
    companions: list[Trained]

    def write(self, output: Path) -> None:
        """Write networks, the posterior of the last layer, the learning curve and failures; see `learned.train_learned`."""
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
        """Return what goes into the stage's metrics.

        Args:
            params: of the run.
        """
        data = self.sets.data
        return {
            "weights": self.flat.vector.numel(),
            **_course(self.trained, params),
            "failures": len(self.sets.failures),
            "cost": asdict(count_operations(self.potential, data["train"])),
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
