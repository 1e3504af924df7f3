"""When to stop training before the planned number of epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Stop when the validation loss has not fallen for a while.

    Attributes:
        min_epochs: epochs that are trained in any case.
        patience: epochs without a new lowest loss that are waited for; None never stops early.
        best: lowest validation loss so far.
        best_epoch: when it was reached, from 0; -1 before the first.
    """

    min_epochs: int
    patience: int | None
    best: float = math.inf
    best_epoch: int = -1

    def is_best(self, epoch: int, loss: float) -> bool:
        """Take note of an epoch's validation loss, and tell whether it is the lowest so far."""
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            return True
        return False

    def stops_after(self, epoch: int) -> bool:
        """Tell whether training ends with this epoch, counted from 0."""
        if self.patience is None or epoch + 1 < self.min_epochs:
            return False
        return epoch - self.best_epoch >= self.patience
