"""What a run shows while it goes on: TensorBoard, a progress bar, and times; nothing of it is a declared output.

Event files and times hold what differs from run to run, so they go to `outputs/runs/`, which neither git nor DVC tracks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from pesfit.core.files import write_json

_SECONDS_BETWEEN_STEPS = 2.0
"""At most this often a step is logged by itself: event files of long runs stay small."""


class Tracker:
    """Logs of one run; use as a context manager.

    Args:
        folder: for TensorBoard's files and `timing.json`; None logs nothing, as in all processes but the first.
        label: what the progress bar says.
        n_epochs: planned length of the run.
    """

    def __init__(self, folder: Path | None, label: str, n_epochs: int) -> None:
        self._folder = folder
        self._label = label
        self._n_epochs = n_epochs
        self._writer: Any = None
        self._bar: tqdm[Any] | None = None
        self._logged_at = 0.0
        self._started_at = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def start(self, epoch: int, step: int, hyperparameters: Mapping[str, Any]) -> None:
        """Open the logs, of a new run or one that goes on.

        Args:
            epoch: how many are done.
            step: how many are done; what an earlier process logged after it is dropped.
            hyperparameters: nested names and values.
        """
        self._started_at = time.perf_counter()
        if self._folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        if step == 0 and self._folder.is_dir():  # a new run, not the rest of one: the curves of two would be drawn as one
            for path in self._folder.glob("events.out.tfevents.*"):
                path.unlink()
        self._writer = SummaryWriter(str(self._folder), purge_step=step or None)
        if step == 0:
            metrics = {"validation/force_mae_kcal_per_mol_per_angstrom": 0.0}
            for summary in hparams(dict(_flat(hyperparameters)), metrics):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)
        self._bar = tqdm(
            total=self._n_epochs, initial=epoch, desc=self._label, unit="epoch", dynamic_ncols=True, mininterval=0.5
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of one step, if the last that was logged is a while ago."""
        now = time.perf_counter()
        if self._writer is not None and now - self._logged_at >= _SECONDS_BETWEEN_STEPS:
            self._logged_at = now
            self._scalars(step, values)

    def epoch(self, step: int, values: Mapping[str, float], shown: Mapping[str, str]) -> None:
        """Log numbers of one epoch.

        Args:
            step: how many are done.
            values: for TensorBoard, by name.
            shown: for the progress bar.
        """
        if self._writer is not None:
            self._scalars(step, values)
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()

    def write_times(self, times: Mapping[str, Any]) -> None:
        """Write `timing.json`."""
        if self._folder is not None:
            seconds = {"run_s": time.perf_counter() - self._started_at}
            write_json(self._folder / "timing.json", dict(times) | seconds)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str | int | float | bool]]:
    """Give nested hyperparameters dotted names; what TensorBoard cannot hold becomes text."""
    flat: list[tuple[str, str | int | float | bool]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value if isinstance(value, str | int | float | bool) else json.dumps(value)))
    return flat
