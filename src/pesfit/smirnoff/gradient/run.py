"""The course of a fit by descent: epochs, validation, early stopping, checkpoints, curves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.board import Board
from pesfit.smirnoff.gradient.checkpoint import Checkpoint
from pesfit.smirnoff.gradient.optimizers import OPTIMIZERS, Problem, Step, in_order

HISTORY = (
    "epoch",
    "learning_rate",
    "train_loss",
    "prior",
    "train_energy_rmse",
    "train_force_rmse",
    "validation_loss",
    "validation_energy_rmse",
    "validation_force_rmse",
    "gradient_norm",
)
"""Columns of the history; errors in kcal/mol and kcal/mol/Å, about the centres that the loss chooses."""


@dataclass(frozen=True)
class Records:
    """What is kept of a fit on its way.

    Attributes:
        checkpoint: the state.
        board: curves; None for none.
        save_every: seconds between checkpoints.
    """

    checkpoint: Checkpoint
    board: Board | None = None
    save_every: float = 10.0


@dataclass(frozen=True)
class Course:
    """How a fit went.

    Attributes:
        z: the parameters it found.
        epoch: of them.
        n_epochs: epochs that were run.
        history: shape (n_epochs + 1, len(HISTORY)); the first line is the start.
        stopped_early: whether validation ended it.
    """

    z: FloatArray
    epoch: int
    n_epochs: int
    history: FloatArray
    stopped_early: bool


def descend(problem: Problem, start: FloatArray, params: Gradient, records: Records) -> Course:
    """Run an optimizer from a start, or from where a run that was killed left off.

    Args:
        problem: the objective.
        start: z, shape (n,).
        params: section `fit_smirnoff.gradient`.
        records: what is kept of it.
    """
    stored = records.checkpoint.load()
    watch = _Watch(problem, params, records)
    repeats = params.optimizer == "lbfgs"  # its stored evaluations let it run from the start again
    watch.begin(start, None if stored is None or repeats else stored)
    state = None if stored is None else {name[10:]: value for name, value in stored.items() if name.startswith("optimizer.")}
    with watch.bar:
        done = watch.is_done
        last = watch.last if done else OPTIMIZERS[params.optimizer](problem, watch.last, params, state, watch)
    return watch.course(last)


class _Watch:
    """Follows the epochs."""

    def __init__(self, problem: Problem, params: Gradient, records: Records) -> None:
        self._problem, self._params, self._records = problem, params, records
        self._saved = time.monotonic()
        self._counts = in_order(problem.team.run("count", np.zeros(problem.coefficients.n_parameters)))
        self._history: list[FloatArray] = []
        self._best, self._best_loss, self._best_epoch = np.zeros(0), np.inf, 0
        self._stopped = False
        self.last = np.zeros(0)
        self.bar: Any = tqdm(total=params.epochs, desc="fit_smirnoff", unit="epoch", dynamic_ncols=True, mininterval=0.5)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self._stopped or (len(self._history) > 0 and int(self._history[-1][0]) >= self._params.epochs)

    @property
    def _validates(self) -> bool:
        return self._params.patience is not None and bool(self._counts[2] + self._counts[3] > 0)

    def begin(self, start: FloatArray, stored: Mapping[str, np.ndarray] | None) -> None:
        """Take up what is stored, or note the start."""
        if stored is not None:
            self._history = list(stored["watch.history"])
            self._best, self._best_loss = stored["watch.best"], float(stored["watch.best_loss"])
            self._best_epoch, self._stopped = int(stored["watch.best_epoch"]), bool(stored["watch.stopped"])
            self.last = stored["watch.last"]
            self.bar.update(int(self._history[-1][0]))
            for row in self._history:
                self._draw(row)
            return
        numbers = np.zeros(4)
        for batch in range(self._problem.n_batches):
            value = self._problem(start, batch)
            numbers = numbers + value.numbers
        self._note(Step(0, start, numbers, value.prior, float(np.linalg.norm(value.gradient)), 0.0, {}))

    def __call__(self, step: Step) -> bool:
        """Note an epoch; returns whether to stop."""
        self._note(step)
        patience = self._params.patience
        self._stopped = self._validates and patience is not None and step.epoch - self._best_epoch >= patience
        ends = self._stopped or step.epoch >= self._params.epochs
        if ends or time.monotonic() - self._saved >= self._records.save_every:
            self._save(step)
        return self._stopped

    def _note(self, step: Step) -> None:
        validation = in_order(self._problem.team.run("validate", step.z))
        loss = float(validation[0] + validation[1])
        if self._validates and loss < self._best_loss:
            self._best, self._best_loss, self._best_epoch = step.z, loss, step.epoch
        squares = np.concatenate([step.numbers[2:], validation[2:]])
        with np.errstate(invalid="ignore"):
            rmse = np.sqrt(np.where(self._counts > 0, squares / np.maximum(self._counts, 1.0), np.nan))
        train = float(step.numbers[0] + step.numbers[1])
        self._history.append(
            np.array([step.epoch, step.learning_rate, train, step.prior, *rmse[:2], loss, *rmse[2:], step.gradient_norm])
        )
        self.last = step.z
        self._show(step)

    def _show(self, step: Step) -> None:
        row = dict(zip(HISTORY, self._history[-1].tolist(), strict=True))
        self.bar.update(step.epoch - self.bar.n)
        self.bar.set_postfix(loss=f"{row['train_loss']:.5g}", validation=f"{row['validation_loss']:.5g}", refresh=False)
        self._draw(self._history[-1])
        board = self._records.board
        if board is not None and board.wants_histograms(step.epoch):
            board.histograms(step.epoch, self._problem.coefficients.force_field(step.z), step.z)

    def _draw(self, line: FloatArray) -> None:
        if self._records.board is None:
            return
        row = dict(zip(HISTORY, line.tolist(), strict=True))
        curves = {
            "train/loss": row["train_loss"],
            "train/energy error [kcal per mol]": row["train_energy_rmse"],
            "train/force error [kcal per mol per angstrom]": row["train_force_rmse"],
            "validation/loss": row["validation_loss"],
            "validation/energy error [kcal per mol]": row["validation_energy_rmse"],
            "validation/force error [kcal per mol per angstrom]": row["validation_force_rmse"],
            "descent/prior": row["prior"],
            "descent/gradient norm": row["gradient_norm"],
            "descent/learning rate": row["learning_rate"],
        }
        self._records.board.curves(int(row["epoch"]), {name: value for name, value in curves.items() if np.isfinite(value)})

    def _save(self, step: Step) -> None:
        own = {
            "watch.history": np.array(self._history),
            "watch.best": self._best,
            "watch.best_loss": np.array(self._best_loss),
            "watch.best_epoch": np.array(self._best_epoch),
            "watch.stopped": np.array(self._stopped),
            "watch.last": self.last,
        }
        self._records.checkpoint.save(own | {f"optimizer.{name}": value for name, value in step.state.items()})
        self._saved = time.monotonic()

    def course(self, last: FloatArray) -> Course:
        """Sum up."""
        n_epochs = int(self._history[-1][0])
        best = self._validates
        return Course(
            z=self._best if best else last,
            epoch=self._best_epoch if best else n_epochs,
            n_epochs=n_epochs,
            history=np.array(self._history),
            stopped_early=self._stopped,
        )
