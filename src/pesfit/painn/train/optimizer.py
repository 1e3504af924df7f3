"""The optimization of the weights: one vector, optimizer, learning rate schedule, moving average and early stopping."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pesfit.params.train_learned import LearningRate, Optimizer

_ADAM_BETAS = (0.9, 0.999)


class FlatParameters:
    """All weights of a model as one vector, of which they are views: optimizer, averages, clipping and checkpoints are single operations.

    Args:
        model: its parameters become views of the vector, and stay so as long as they are changed in place.

    Attributes:
        vector: all weights, in the order of `model.parameters()`, shape (n_parameters,).
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        self.vector = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        parts = torch.split(self.vector.detach(), [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.data = part.view(parameter.shape)

    @torch.no_grad()
    def set(self, values: Tensor) -> None:
        """Overwrite all weights; values of shape (n_parameters,)."""
        self.vector.copy_(values)


def make_optimizer(weights: nn.Parameter, choice: Optimizer, peak: float) -> torch.optim.Optimizer:
    """Make the optimizer of the weights; `peak` is the highest learning rate."""
    if choice.kind == "adamw":
        return torch.optim.AdamW([weights], lr=peak, betas=_ADAM_BETAS, weight_decay=choice.weight_decay, fused=True)
    return torch.optim.Adam([weights], lr=peak, betas=_ADAM_BETAS, amsgrad=True, fused=True)


class LearningRateSchedule:
    """The learning rate schedule.

    ::

        r(x) = peak x / w                                                       x < w, warm-up
        r(x) = peak (f + (1 - f) (1 + cos π (x - w)/(n - w)) / 2)               cosine
        r(x) = peak max(f, factor^(number of reductions so far))                plateau
        r(x) = peak                                                             constant

    with x the epochs done after the step, w = `warmup_epochs`, n the epochs of the whole run and f = `final_fraction`. The cosine is that
    of I. Loshchilov and F. Hutter (ICLR 2017, arXiv:1608.03983) without restarts; it goes by the planned length, also where early
    stopping ends a run before that.

    Args:
        params: section `train_learned.learning_rate`.
        n_epochs: planned length of the run.

    Attributes:
        state: of `plateau`: lowest validation loss so far (`best`), epochs without improvement since it was reached or since the last
            reduction (`epochs_since_best`), and the product of the reductions (`factor`).
    """

    def __init__(self, params: LearningRate, n_epochs: int) -> None:
        self._params = params
        self._n_epochs = n_epochs
        self.state = {"best": math.inf, "epochs_since_best": 0, "factor": 1.0}

    def rate(self, epochs_done: float) -> float:
        """Return the learning rate of the step after which so many epochs are done, such as 2.25 a quarter into the third."""
        params, warmup = self._params, min(self._params.warmup_epochs, float(self._n_epochs))
        if epochs_done < warmup:
            return params.peak * epochs_done / warmup
        if params.decay == "cosine" and self._n_epochs > warmup:
            done = min(1.0, (epochs_done - warmup) / (self._n_epochs - warmup))
            least = params.final_fraction
            return params.peak * (least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * done)))
        if params.decay == "plateau":
            return params.peak * max(params.final_fraction, self.state["factor"])
        return params.peak

    def end_epoch(self, validation_loss: float) -> None:
        """Take the validation loss of an epoch; more than `plateau_patience` epochs without improvement reduce the rate of `plateau`."""
        state, params = self.state, self._params
        if validation_loss < state["best"] * (1.0 - params.plateau_threshold):
            state |= {"best": validation_loss, "epochs_since_best": 0}
            return
        state["epochs_since_best"] += 1
        if state["epochs_since_best"] > params.plateau_patience:
            state |= {"factor": state["factor"] * params.plateau_factor, "epochs_since_best": 0}


class MovingAverage:
    """The exponential moving average of the weights, which is validated and saved.

    ::

        a_0 = w_0        a_t = a_(t-1) + (1 - d_t) (w_t - a_(t-1))        d_t = min(decay, (1 + t)/(10 + t))

    The smaller d_t of the first steps lets the average leave the random start at once. (B. T. Polyak and A. B. Juditsky, SIAM J. Control
    Optim. 30, 838, 1992; the ramp of d_t is that of TensorFlow's `ExponentialMovingAverage` with `num_updates`.)

    Args:
        weights: of the model, shape (n_parameters,); the average starts as a copy.
        decay: 0 follows the weights exactly, 0.999 averages over about the last thousand steps.

    Attributes:
        values: the average, shape (n_parameters,).
        n_updates: t.
    """

    def __init__(self, weights: Tensor, decay: float) -> None:
        self.decay = decay
        self.values = weights.detach().clone()
        self.n_updates = 0

    @torch.no_grad()
    def update(self, weights: Tensor) -> None:
        """Add the weights after a step."""
        self.n_updates += 1
        decay = min(self.decay, (1.0 + self.n_updates) / (10.0 + self.n_updates))
        self.values.lerp_(weights.detach(), 1.0 - decay)

    @contextlib.contextmanager
    def in_place_of(self, weights: Tensor) -> Iterator[None]:
        """Replace the model's weights by the average while the block runs."""
        kept = weights.detach().clone()
        with torch.no_grad():
            weights.copy_(self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                weights.copy_(kept)


@dataclass
class EarlyStopping:
    """Early stopping when the validation loss has not fallen for `patience` epochs.

    Attributes:
        min_epochs: smallest number of epochs.
        patience: epochs without a new lowest loss after which training stops; None never stops early.
        best: lowest validation loss so far.
        best_epoch: when it was reached, from 0; -1 before the first.
    """

    min_epochs: int
    patience: int | None
    best: float = math.inf
    best_epoch: int = -1

    def is_best(self, epoch: int, loss: float) -> bool:
        """Take the validation loss of an epoch, and return whether it is the lowest so far."""
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            return True
        return False

    def stops_after(self, epoch: int) -> bool:
        """Return whether training ends with this epoch, counted from 0."""
        if self.patience is None or epoch + 1 < self.min_epochs:
            return False
        return epoch - self.best_epoch >= self.patience
