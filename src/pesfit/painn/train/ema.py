"""An exponential moving average of the weights: smoother than the last step's, and what is validated and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class MovingAverage:
    """The average of all weights of a model.

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
        """Take the weights after a step into the average."""
        self.n_updates += 1
        decay = min(self.decay, (1.0 + self.n_updates) / (10.0 + self.n_updates))
        self.values.lerp_(weights.detach(), 1.0 - decay)

    @contextlib.contextmanager
    def in_place_of(self, weights: Tensor) -> Iterator[None]:
        """Put the average where the model's weights are while the block runs."""
        kept = weights.detach().clone()
        with torch.no_grad():
            weights.copy_(self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                weights.copy_(kept)
