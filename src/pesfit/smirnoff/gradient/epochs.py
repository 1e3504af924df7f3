"""Epochs of a gradient fit: validation, early stopping, checkpoints, and curves for TensorBoard."""

from __future__ import annotations

import contextlib
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.files import atomic_write
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import Gradient
from pesfit.smirnoff.gradient.optimizers import OPTIMIZERS, EpochStep, PenalizedLoss, in_order

HISTORY = {
    "epoch": None,
    "learning_rate": "gradient/learning rate",
    "train_loss": "train/loss",
    "prior": "gradient/prior",
    "train_energy_rmse": "train/energy error [kcal per mol]",
    "train_force_rmse": "train/force error [kcal per mol per angstrom]",
    "validation_loss": "validation/loss",
    "validation_energy_rmse": "validation/energy error [kcal per mol]",
    "validation_force_rmse": "validation/force error [kcal per mol per angstrom]",
    "gradient_norm": "gradient/norm",
}
"""Columns of the history, with their curves in TensorBoard; errors in kcal/mol and kcal/mol/Å, about the centers that the loss chooses."""
FORMAT_VERSION = 1
_N_HISTOGRAMS = 50
"""How often parameters are shown in a run."""


@dataclass(frozen=True)
class RunFiles:
    """Files of a run.

    Attributes:
        checkpoint: state of the fit, an uncompressed npz.
        runs: folder of TensorBoard's files; None for none.
        key: stands for the data and all parameters but those of the gradient fit.
        save_every: seconds between checkpoints.
    """

    checkpoint: Path
    runs: Path | None
    key: str
    save_every: float = 10.0


@dataclass(frozen=True)
class FitCheckpoint:
    """State of a fit in a file, so that a run that was killed resumes and ends in the same bytes.

    Attributes:
        path: the file.
        key: stands for all input; a state of other input is not used.
    """

    path: Path
    key: str

    def save(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path, sync=True) as new, new.open("wb") as stream:
            arrays = {f"state.{name}": value for name, value in state.items()}
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


class _TensorBoardLog:
    """Curves and histograms of a run; of a run without a folder nothing is written.

    Args:
        folder: of the run, or None; earlier files in it are removed.
        n_epochs: at most.
    """

    def __init__(self, folder: Path | None, n_epochs: int) -> None:
        self._every = max(1, n_epochs // _N_HISTOGRAMS)
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(folder, ignore_errors=True)
            self._writer = SummaryWriter(str(folder))

    def add(self, line: FloatArray) -> None:
        """Add a line of the history."""
        if self._writer is not None:
            for curve, value in zip(HISTORY.values(), line.tolist(), strict=True):
                if curve is not None and np.isfinite(value):
                    self._writer.add_scalar(curve, value, int(line[0]))

    def wants_histograms(self, epoch: int) -> bool:
        """Whether parameters are to be shown in this epoch."""
        return self._writer is not None and epoch % self._every == 0

    def add_histograms(self, epoch: int, force_field: ForceField, z: FloatArray) -> None:
        """Show the values of each column that are in use, and the changes of parameters, in prior widths."""
        for handler, table in force_field.tables.items():
            used = table.values[table.uses > 0]
            for number, column in enumerate(table.columns):
                if len(used) and column in ("k", "length", "angle", "epsilon", "sigma"):
                    self._writer.add_histogram(f"{handler}/{column} [{table.units[number]}]", used[:, number], epoch)
        self._writer.add_histogram("change [prior widths]", z, epoch)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


@dataclass(frozen=True)
class FitHistory:
    """Outcome of an optimization.

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


def minimize(
    problem: PenalizedLoss, start: FloatArray, params: Gradient, checkpoint: FitCheckpoint, files: RunFiles
) -> FitHistory:
    """Run an optimizer from a start, or from the state of a run that was killed.

    Args:
        problem: the objective.
        start: z, shape (n,).
        params: section `fit_smirnoff.gradient`.
        checkpoint: the state.
        files: of the run.
    """
    stored = checkpoint.load()
    with contextlib.closing(_TensorBoardLog(files.runs, params.epochs)) as log:
        epochs = _Epochs(problem, params, checkpoint, log, files.save_every)
        repeats = params.optimizer == "lbfgs"  # its stored evaluations let it run from the start again
        epochs.begin(start, None if stored is None or repeats else stored)
        state = None
        if stored is not None:
            state = {name[10:]: value for name, value in stored.items() if name.startswith("optimizer.")}
        with epochs.bar:
            done = epochs.is_done
            last = epochs.last if done else OPTIMIZERS[params.optimizer](problem, epochs.last, params, state, epochs)
        return epochs.outcome(last)


class _Epochs:
    """The epochs so far; an optimizer calls it after each."""

    def __init__(
        self, problem: PenalizedLoss, params: Gradient, checkpoint: FitCheckpoint, log: _TensorBoardLog, save_every: float
    ) -> None:
        self._problem, self._params, self._checkpoint, self._log = problem, params, checkpoint, log
        self._save_every, self._saved = save_every, time.monotonic()
        self._counts = in_order(problem.team.run("count", np.zeros(problem.coefficients.n_parameters)))
        self._validates = params.patience is not None and bool(self._counts[2] + self._counts[3] > 0)
        self._history: list[FloatArray] = []
        self._best, self._best_loss, self._best_epoch = np.zeros(0), np.inf, 0
        self._stopped = False
        self.last = np.zeros(0)
        self.bar: Any = tqdm(total=params.epochs, desc="fit_smirnoff", unit="epoch", dynamic_ncols=True, mininterval=0.5)

    @property
    def is_done(self) -> bool:
        """Whether no epoch is left."""
        return self._stopped or (len(self._history) > 0 and int(self._history[-1][0]) >= self._params.epochs)

    def begin(self, start: FloatArray, stored: Mapping[str, np.ndarray] | None) -> None:
        """Resume from what is stored, or evaluate the start."""
        if stored is not None:
            self._history = list(stored["watch.history"])
            self._best, self._best_loss = stored["watch.best"], float(stored["watch.best_loss"])
            self._best_epoch, self._stopped = int(stored["watch.best_epoch"]), bool(stored["watch.stopped"])
            self.last = stored["watch.last"]
            self.bar.update(int(self._history[-1][0]))
            for line in self._history:
                self._log.add(line)
            return
        numbers = np.zeros(4)
        for batch in range(self._problem.n_batches):
            value = self._problem(start, batch)
            numbers = numbers + value.numbers
        self._add(EpochStep(0, start, numbers, value.prior, float(np.linalg.norm(value.gradient)), 0.0, {}))

    def __call__(self, step: EpochStep) -> bool:
        """Add an epoch; returns whether to stop."""
        self._add(step)
        patience = self._params.patience
        self._stopped = self._validates and patience is not None and step.epoch - self._best_epoch >= patience
        ends = self._stopped or step.epoch >= self._params.epochs
        if ends or time.monotonic() - self._saved >= self._save_every:
            self._save(step)
        return self._stopped

    def _add(self, step: EpochStep) -> None:
        validation = in_order(self._problem.team.run("validate", step.z))
        train, loss = float(step.numbers[0] + step.numbers[1]), float(validation[0] + validation[1])
        if self._validates and loss < self._best_loss:
            self._best, self._best_loss, self._best_epoch = step.z, loss, step.epoch
        squares = np.concatenate([step.numbers[2:], validation[2:]])
        with np.errstate(invalid="ignore"):
            rmse = np.sqrt(np.where(self._counts > 0, squares / np.maximum(self._counts, 1.0), np.nan))
        line = np.array([step.epoch, step.learning_rate, train, step.prior, *rmse[:2], loss, *rmse[2:], step.gradient_norm])
        self._history.append(line)
        self.last = step.z
        self.bar.update(step.epoch - self.bar.n)
        self.bar.set_postfix(loss=f"{train:.5g}", validation=f"{loss:.5g}", refresh=False)
        self._log.add(line)
        if self._log.wants_histograms(step.epoch):
            self._log.add_histograms(step.epoch, self._problem.coefficients.force_field(step.z), step.z)

    def _save(self, step: EpochStep) -> None:
        own = {
            "watch.history": np.array(self._history),
            "watch.best": self._best,
            "watch.best_loss": np.array(self._best_loss),
            "watch.best_epoch": np.array(self._best_epoch),
            "watch.stopped": np.array(self._stopped),
            "watch.last": self.last,
        }
        self._checkpoint.save(own | {f"optimizer.{name}": value for name, value in step.state.items()})
        self._saved = time.monotonic()

    def outcome(self, last: FloatArray) -> FitHistory:
        """Return the parameters with the lowest validation loss, or the last where none is computed."""
        n_epochs, history = int(self._history[-1][0]), np.array(self._history)
        z, epoch = (self._best, self._best_epoch) if self._validates else (last, n_epochs)
        return FitHistory(z, epoch, n_epochs, history, self._stopped)
