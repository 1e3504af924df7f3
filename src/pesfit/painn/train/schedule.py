"""The learning rate over a run: warm-up, then a cosine, a staircase down at plateaus, or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pesfit.params.train_learned import LearningRate


@dataclass
class PlateauState:
    """What a plateau schedule remembers.

    Attributes:
        best: lowest validation loss so far.
        epochs_since_best: epochs that did not improve on it, since it was reached or since the last stair.
        factor: product of the stairs so far.
    """

    best: float = math.inf
    epochs_since_best: int = 0
    factor: float = 1.0


class Schedule:
    """The learning rate of every step.

    ::

        r(x) = peak x / w                                                       x < w, warm-up
        r(x) = peak (f + (1 - f) (1 + cos π (x - w)/(n - w)) / 2)               cosine
        r(x) = peak max(f, factor^(number of stairs so far))                    plateau
        r(x) = peak                                                             constant

    with x the epochs done when the step is, w = `warmup_epochs`, n the epochs of the whole run and f = `final_fraction`. The cosine is that
    of I. Loshchilov and F. Hutter (ICLR 2017, arXiv:1608.03983) without restarts; it goes by the planned length, also where early
    stopping ends a run before that.

    Args:
        params: section `train_learned.learning_rate`.
        n_epochs: planned length of the run.
    """

    def __init__(self, params: LearningRate, n_epochs: int) -> None:
        self._params = params
        self._n_epochs = n_epochs
        self.plateau = PlateauState()

    def rate(self, epochs_done: float) -> float:
        """Return the learning rate of the step that makes it so many epochs, such as 2.25 for one a quarter into the third."""
        params, warmup = self._params, min(self._params.warmup_epochs, float(self._n_epochs))
        if epochs_done < warmup:
            return params.peak * epochs_done / warmup
        if params.decay == "cosine" and self._n_epochs > warmup:
            done = min(1.0, (epochs_done - warmup) / (self._n_epochs - warmup))
            least = params.final_fraction
            return params.peak * (least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * done)))
        if params.decay == "plateau":
            return params.peak * max(params.final_fraction, self.plateau.factor)
        return params.peak

    def end_epoch(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss; plateau goes down one stair after `plateau_patience` epochs in vain."""
        state, params = self.plateau, self._params
        if validation_loss < state.best * (1.0 - params.plateau_threshold):
            state.best, state.epochs_since_best = validation_loss, 0
            return
        state.epochs_since_best += 1
        if state.epochs_since_best > params.plateau_patience:
            state.factor *= params.plateau_factor
            state.epochs_since_best = 0
