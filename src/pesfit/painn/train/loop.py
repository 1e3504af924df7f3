"""The training loop over epochs and minibatches, the same in all processes, with checkpoints that an interrupted run resumes from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, PesfitError
from pesfit.core.files import atomic_write
from pesfit.core.process_group import ProcessGroup
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import TrainingData
from pesfit.painn.train.evaluate import evaluate_split
from pesfit.painn.train.optimizer import (
    EarlyStopping,
    FlatParameters,
    LearningRateSchedule,
    MovingAverage,
    make_optimizer,
)
from pesfit.painn.train.step import SUMS, GradientStep, ShardResult, Totals, add_shards, cut_into_shards, epoch_batches
from pesfit.painn.train.tracking import Tracker
from pesfit.params.train_learned import TrainLearned
from pesfit.statistics.errors import pooled

CHECKPOINT_FORMAT_VERSION = 1
SECONDS_BETWEEN_CHECKPOINTS = 20.0
_NAMES_IN_MESSAGE = 12


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """The network, its training step and the data.

    Attributes:
        potential: with its first weights.
        flat: all its weights as one vector.
        step: gradients of the objective.
        train: training set.
        validation: validation set, after each epoch.
        params: section `train_learned`.
    """

    potential: PaiNNPotential
    flat: FlatParameters
    step: GradientStep
    train: TrainingData
    validation: TrainingData
    params: TrainLearned


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a run.

    Attributes:
        best: moving average of the weights when the validation loss was lowest, shape (n_parameters,).
        last: moving average of the weights at the end, same shape.
        best_epoch: its number, from 1.
        history: for each epoch its number (from 1), learning rate, loss and errors of training and validation set.
        step_ms: median wall time of a step, None where this process made none.
    """

    best: Tensor
    last: Tensor
    best_epoch: int
    history: list[dict[str, float]]
    step_ms: float | None


@dataclass
class _Position:
    """The position in a run.

    Attributes:
        epoch: number of epochs done.
        batch: number of batches of this epoch done.
        step: number of steps done.
        gradient_norm: sum over this epoch's steps.
        stopped: whether the run has ended before the planned number of epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    gradient_norm: float = 0.0
    stopped: bool = False


class TrainingRun:
    """One training run in one of its processes.

    There is no random state to keep: the order of batches is drawn from seed and epoch, and nothing else is drawn.

    Args:
        inputs: network, step and data.
        group: of processes.
        tracker: of progress.
        checkpoint: file that an interrupted run resumes from; all processes read it, the first writes it.
        seconds_between_checkpoints: at least; checkpoints are written between steps.
    """

    def __init__(
        self,
        inputs: TrainingInputs,
        group: ProcessGroup,
        tracker: Tracker,
        checkpoint: Path,
        seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS,
    ) -> None:
        self._in = inputs
        self._group = group
        self._tracker = tracker
        self._path = checkpoint
        self._seconds = seconds_between_checkpoints
        params = inputs.params
        weights = inputs.flat.vector
        self._optimizer = make_optimizer(weights, params.optimizer, params.learning_rate.peak)
        self._average = MovingAverage(weights, params.optimizer.ema_decay)
        self._schedule = LearningRateSchedule(params.learning_rate, params.num_epochs)
        self._stopping = EarlyStopping(params.early_stopping_min_epochs, params.early_stopping_patience)
        self._best = self._average.values.clone()
        self._sums = torch.zeros(len(SUMS), dtype=torch.float64)
        self._at = _Position()
        self._history: list[dict[str, float]] = []
        self._step_seconds: list[float] = []
        self._saved_at = time.perf_counter()

    def train(self) -> Trained:
        """Train to the end, from the checkpoint of an earlier process where there is one.

        Raises:
            PesfitError: when the loss or its gradient is no longer a finite number; names the records.
            DataError: where the checkpoint cannot be read.
        """
        params = self._in.params
        self._resume()
        self._tracker.start(self._at.epoch, self._at.step, params.model_dump())
        while self._at.epoch < params.num_epochs and not self._at.stopped:
            batches = epoch_batches(self._in.train.n_atoms, params.batching, params.seed, self._at.epoch)
            for number in range(self._at.batch, len(batches)):
                self._step(batches[number], len(batches))
                if time.perf_counter() - self._saved_at > self._seconds:
                    self._save()
            self._end_epoch(len(batches))
        self._save()
        steps = sorted(self._step_seconds)
        return Trained(
            best=self._best,
            last=self._average.values,
            best_epoch=self._stopping.best_epoch + 1,
            history=self._history,
            step_ms=1e3 * steps[len(steps) // 2] if steps else None,
        )

    def _step(self, batch: LongArray, n_batches: int) -> None:
        started = time.perf_counter()
        weights, params = self._in.flat.vector, self._in.params
        result = self._gradient(batch)
        gradient = result.gradient
        norm = float(torch.linalg.vector_norm(gradient))
        longest = params.optimizer.max_gradient_norm
        if longest is not None and norm > longest:
            gradient = gradient * (longest / norm)
        weights.grad = gradient.to(weights.dtype)
        rate = self._schedule.rate(self._at.epoch + (self._at.batch + 1) / n_batches)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._average.update(weights)
        self._sums += result.sums.cpu()
        self._at.batch += 1
        self._at.step += 1
        self._at.gradient_norm += norm
        self._step_seconds.append(time.perf_counter() - started)
        self._tracker.step(
            self._at.step,
            {
                "step/loss": float(result.sums[0]),
                "step/gradient_norm": norm,
                "step/learning_rate": rate,
                "step/time_ms": 1e3 * self._step_seconds[-1],
            },
        )

    def _gradient(self, batch: LongArray) -> ShardResult:
        """Add up the gradients of a batch's shards, in their order."""
        data, weights = self._in.train, self._in.flat.vector.detach()
        totals = Totals.of(data, batch)
        shards = cut_into_shards(data.n_pairs, batch, self._in.params.batching.n_shards)
        mine = [self._in.step(shard, totals) for shard in self._group.share_of(shards)]
        gradients = self._group.gather([result.gradient for result in mine], len(shards), weights)
        sums = self._group.gather([result.sums for result in mine], len(shards), self._sums.to(weights.device))
        result = add_shards([ShardResult(*pair) for pair in zip(gradients, sums, strict=True)])
        if not (math.isfinite(float(result.sums[0])) and bool(torch.isfinite(result.gradient).all())):
            finite = [
                bool(torch.isfinite(g).all()) and math.isfinite(float(s[0])) for g, s in zip(gradients, sums, strict=True)
            ]
            odd = [shard for shard, is_finite in zip(shards, finite, strict=True) if not is_finite]
            raise PesfitError(self._not_finite(float(result.sums[0]), odd or shards))
        return result

    def _not_finite(self, loss: float, shards: Sequence[LongArray]) -> str:
        names = [self._in.train.name_of(int(conformer)) for shard in shards for conformer in shard]
        more = f" and {len(names) - _NAMES_IN_MESSAGE} more" if len(names) > _NAMES_IN_MESSAGE else ""
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient of the loss is not finite"
        return (
            f"{what} at step {self._at.step + 1} (epoch {self._at.epoch + 1}); it comes from these conformers: "
            f"{', '.join(names[:_NAMES_IN_MESSAGE])}{more}. Look at their labels, or lower train_learned.learning_rate.peak "
            f"(now {self._in.params.learning_rate.peak:g})"
        )

    def _end_epoch(self, n_batches: int) -> None:
        at, params = self._at, self._in.params
        self._group.copy_from_first(self._in.flat.vector)  # machines of another kind may round another way
        with self._average.in_place_of(self._in.flat.vector):
            validation = evaluate_split(self._in.potential, self._in.validation, params.objective, self._group)
        rate = self._schedule.rate(at.epoch + 1)
        if self._stopping.is_best(at.epoch, validation.loss):
            self._best = self._average.values.clone()
        self._schedule.end_epoch(validation.loss)
        at.stopped = self._stopping.stops_after(at.epoch)
        row = {"epoch": at.epoch + 1, "step": at.step, "learning_rate": rate, "gradient_norm": at.gradient_norm / n_batches}
        row |= {f"train_{name}": value for name, value in _averages(self._sums, n_batches).items()}
        row |= {"validation_loss": validation.loss}
        row |= {f"validation_{name}": value for name, value in pooled(validation.errors).items()}
        self._history.append(row)
        at.epoch, at.batch, at.gradient_norm = at.epoch + 1, 0, 0.0
        self._sums.zero_()
        self._tracker.epoch(at.step, _for_tensorboard(row), _for_bar(row))

    def _save(self) -> None:
        self._saved_at = time.perf_counter()
        if not self._group.is_first:
            return
        tensors = {"weights": self._in.flat.vector, "average": self._average.values, "best": self._best, "sums": self._sums}
        state: Mapping[str, Tensor] = self._optimizer.state_dict()["state"].get(0, {})
        tensors |= {f"optimizer.{name}": value for name, value in state.items()}
        values = {
            "position": asdict(self._at),
            "n_updates": self._average.n_updates,
            "plateau": self._schedule.state,
            "stopping": asdict(self._stopping),
            "history": self._history,
        }
        save_checkpoint(self._path, TrainingCheckpoint(tensors, values))

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self._path, self._group.device)
        if checkpoint is None:
            return
        tensors, values = checkpoint.tensors, checkpoint.values
        with torch.no_grad():
            self._in.flat.vector.copy_(tensors["weights"])
        self._average.values, self._best, self._sums = tensors["average"], tensors["best"], tensors["sums"].cpu()
        prefix = "optimizer."
        state: dict[str, Any] = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: state} if state else {}, "param_groups": groups})
        self._at = _Position(**values["position"])
        self._average.n_updates = values["n_updates"]
        self._schedule.state = dict(values["plateau"])
        self._stopping = EarlyStopping(**values["stopping"])
        self._history = list(values["history"])


def _averages(sums: Tensor, n_batches: int) -> dict[str, float]:
    """Return loss and errors of an epoch's training steps, each with the weights of its own time."""
    values = dict(zip(SUMS, sums.tolist(), strict=True))
    result = {"loss": values["loss"] / n_batches}
    for name, unit, key, count in (
        ("total_energy", "kcal_per_mol", "energy", values["n_energy"]),
        ("total_energy", "kcal_per_mol_per_atom", "energy_per_atom", values["n_energy"]),
        ("force", "kcal_per_mol_per_angstrom", "force", values["n_force"]),
    ):
        if count > 0:
            result[f"{name}_mae_{unit}"] = values[f"{key}_abs"] / count
            result[f"{name}_rmse_{unit}"] = math.sqrt(values[f"{key}_sq"] / count)
    return result


def _for_tensorboard(row: Mapping[str, float]) -> dict[str, float]:
    """Put the numbers of one set under one heading: `train_loss` becomes `train/loss`."""
    values = {}
    for name, value in row.items():
        heading, _, rest = name.partition("_")
        values[f"{heading}/{rest}" if heading in ("train", "validation") else f"epoch/{name}"] = value
    return values


def _for_bar(row: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{row['validation_loss']:.3g}"}
    for label, name in (("F MAE", "force_mae_kcal_per_mol_per_angstrom"), ("E MAE", "energy_mae_kcal_per_mol")):
        if f"validation_{name}" in row:
            shown[label] = f"{row[f'validation_{name}']:.3f}"
    return shown


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The state of a run that was interrupted: tensors and numbers in one safetensors file, replaced atomically.

    Attributes:
        tensors: by name, on the CPU.
        values: anything JSON holds; floats come back to the last bit, infinities too.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a checkpoint, so that a reader sees the old one or the new one and never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    # One key of metadata alone: the library writes several in no fixed order.
    header = {"pesfit": json.dumps({"format_version": CHECKPOINT_FORMAT_VERSION, "values": checkpoint.values})}
    with atomic_write(path, sync=True) as new:
        save_file(tensors, new, header)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> TrainingCheckpoint | None:
    """Read a checkpoint that `save_checkpoint` wrote.

    Returns:
        None where there is none.

    Raises:
        DataError: where it cannot be read or has another format version.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("pesfit", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint ({error}); delete it to train from the start") from error
    version = header.get("format_version")
    if version != CHECKPOINT_FORMAT_VERSION:
        raise DataError(
            f"{path} has checkpoint format version {version}; this version reads {CHECKPOINT_FORMAT_VERSION}; "
            "delete it to train from the start"
        )
    return TrainingCheckpoint(tensors, header["values"])
