"""What TensorBoard shows of a fit by descent."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from pesfit.core.arrays import FloatArray
from pesfit.data.topology import ForceField

_HISTOGRAMS = 50
"""How often parameters are shown in a run."""


class Board:
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
