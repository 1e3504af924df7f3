"""Epochs of a gradient fit: validation, early stopping, checkpoints, and curves for TensorBoard."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.files import atomic_write
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.optimizers import OPTIMIZERS, EpochStep, PenalizedLoss, in_order

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
"""Columns of the history; errors in kcal/mol and kcal/mol/Å, about the centers that the loss chooses."""


FORMAT_VERSION = 1


_HISTOGRAMS = 50
"""How often parameters are shown in a run."""


@dataclass(frozen=True)
class FitCheckpoint:
    """Where the state is kept.

    Attributes:
        path: the file, an uncompressed npz.
        key: stands for all input; a state of other input is not taken up.
    """

    path: Path
    key: str

    def save(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"state.{name}": value for name, value in state.items()}
        with atomic_write(self.path, sync=True) as new, new.open("wb") as stream:
            np.savez(stream, format_version=np.array(FORMAT_VERSION), key=np.array(self.key), **arrays)  # type: ignore[arg-type]

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the state; None where there is none, or it is of other input, of another version, or damaged."""
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                if int(file["format_version"]) != FORMAT_VERSION or str(file["key"]) != self.key:
                    return None
                return {name.removeprefix("state."): file[name] for name in file.files if name.startswith("state.")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


class TensorBoardLog:
    """Writes a run's curves.

    Args:
        folder: the run's; what an earlier run left in it is removed.
        epochs: epochs at most.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._every = max(1, epochs // _HISTOGRAMS)
        self._writer = SummaryWriter(str(folder))

    def curves(self, epoch: int, values: dict[str, float]) -> None:
        """Add a point to each curve, such as `train/loss`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def wants_histograms(self, epoch: int) -> bool:
        """Whether parameters are to be shown in this epoch."""
        return epoch % self._every == 0

    def histograms(self, epoch: int, force_field: ForceField, z: FloatArray) -> None:
        """Show all values of each column that are in use, and how far parameters have moved, in prior widths."""
        for handler, table in force_field.tables.items():
            used = table.values[table.uses > 0]
            for number, column in enumerate(table.columns):
                if len(used) and column in ("k", "length", "angle", "epsilon", "sigma"):
                    self._writer.add_histogram(f"{handler}/{column} [{table.units[number]}]", used[:, number], epoch)
        self._writer.add_histogram("change [prior widths]", z, epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()


@dataclass(frozen=True)
class EpochRecords:
    """What is kept of a fit on its way.

    Attributes:
        checkpoint: the state.
        board: curves; None for none.
        save_every: seconds between checkpoints.
    """

    checkpoint: FitCheckpoint
    board: TensorBoardLog | None = None
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


def minimize(problem: PenalizedLoss, start: FloatArray, params: Gradient, records: EpochRecords) -> Course:
    """Run an optimizer from a start, or from where a run that was killed left off.

    Args:
        problem: the objective.
        start: z, shape (n,).
        params: section `fit_smirnoff.gradient`.
        records: what is kept of it.
    """
    stored = records.checkpoint.load()
    watch = _EpochWatch(problem, params, records)
    repeats = params.optimizer == "lbfgs"  # its stored evaluations let it run from the start again
    watch.begin(start, None if stored is None or repeats else stored)
    state = None if stored is None else {name[10:]: value for name, value in stored.items() if name.startswith("optimizer.")}
    with watch.bar:
        done = watch.is_done
        last = watch.last if done else OPTIMIZERS[params.optimizer](problem, watch.last, params, state, watch)
    return watch.course(last)


class _EpochWatch:
    """Follows the epochs."""

    def __init__(self, problem: PenalizedLoss, params: Gradient, records: EpochRecords) -> None:
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
        self._note(EpochStep(0, start, numbers, value.prior, float(np.linalg.norm(value.gradient)), 0.0, {}))

    def __call__(self, step: EpochStep) -> bool:
        """Note an epoch; returns whether to stop."""
        self._note(step)
        patience = self._params.patience
        self._stopped = self._validates and patience is not None and step.epoch - self._best_epoch >= patience
        ends = self._stopped or step.epoch >= self._params.epochs
        if ends or time.monotonic() - self._saved >= self._records.save_every:
            self._save(step)
        return self._stopped

    def _note(self, step: EpochStep) -> None:
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

    def _show(self, step: EpochStep) -> None:
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
            "gradient/prior": row["prior"],
            "gradient/norm": row["gradient_norm"],
            "gradient/learning rate": row["learning_rate"],
        }
        self._records.board.curves(int(row["epoch"]), {name: value for name, value in curves.items() if np.isfinite(value)})

    def _save(self, step: EpochStep) -> None:
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
