"""The progress of a run: TensorBoard, progress bar, times and the picture of the learning curve.

Event files and times differ from run to run, so they go to `outputs/runs/`, which neither git nor DVC tracks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from tqdm import tqdm

from pesfit.core.files import write_json
from pesfit.core.plotting import GREEN, SKY_BLUE, VERMILION, new_figure, save_png

_COLORS = {"training, each step's own weights": SKY_BLUE, "validation, mean weights": VERMILION}
_PANELS = (
    ("force_mae_kcal_per_mol_per_angstrom", "MAE of forces (kcal/mol/Å)"),
    ("total_energy_mae_kcal_per_mol", "MAE of energy (kcal/mol)"),
    ("loss", "loss"),
)
_SECONDS_BETWEEN_STEPS = 2.0
"""Shortest time between logged steps, which keeps event files of long runs small."""


class Tracker:
    """Logs of one run; to be closed.

    Args:
        folder: for TensorBoard's files and `timing.json`; None logs nothing, as in all processes but the first.
        label: of the progress bar.
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

    def close(self) -> None:
        """End progress bar and logs."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def start(self, epoch: int, step: int, hyperparameters: Mapping[str, Any]) -> None:
        """Open the logs, of a new run or one that goes on.

        Args:
            epoch: number of epochs done.
            step: number of steps done; what an earlier process logged after it is dropped.
            hyperparameters: nested names and values.
        """
        self._started_at = time.perf_counter()
        if self._folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        if step == 0 and self._folder.is_dir():  # a new run: its curve must not continue that of an earlier one
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
        """Log numbers of one step, if the last logged one is `_SECONDS_BETWEEN_STEPS` ago."""
        now = time.perf_counter()
        if self._writer is not None and now - self._logged_at >= _SECONDS_BETWEEN_STEPS:
            self._logged_at = now
            self._scalars(step, values)

    def epoch(self, step: int, values: Mapping[str, float], shown: Mapping[str, str]) -> None:
        """Log numbers of one epoch.

        Args:
            step: number of steps done.
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
    """Give nested hyperparameters dotted names; values that TensorBoard cannot hold become text."""
    flat: list[tuple[str, str | int | float | bool]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value if isinstance(value, str | int | float | bool) else json.dumps(value)))
    return flat


def plot_learning_curve(path: Path, history: Sequence[Mapping[str, float]], title: str) -> None:
    """Draw errors of training and validation set, and the learning rate, by epoch.

    The file's bytes depend on the arguments alone.

    Args:
        path: PNG to write.
        history: of `loop.Trained`.
        title: of the picture.
    """
    figure = new_figure(10.5, 6.4, title)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for panel, (name, label) in zip(axes, _PANELS, strict=False):
        panel.set_ylabel(label)
        for (legend, color), split in zip(_COLORS.items(), ("train", "validation"), strict=True):
            points = [(row["epoch"], row[f"{split}_{name}"]) for row in history if row.get(f"{split}_{name}", 0.0) > 0.0]
            if points:
                panel.plot(
                    *zip(*points, strict=True), color=color, label=legend, linewidth=1.4, marker="o" if len(points) == 1 else ""
                )
        if panel.lines:
            _logarithmic(panel)
        else:
            panel.text(0.5, 0.5, "no labels", ha="center", va="center", transform=panel.transAxes)
    axes[2].legend(frameon=False, fontsize=9)
    axes[3].plot([row["epoch"] for row in history], [row["learning_rate"] for row in history], color=GREEN, linewidth=1.4)
    axes[3].set_ylabel("learning rate")
    for panel in axes:
        panel.grid(color="0.9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[2:]:
        panel.set_xlabel("epoch")
    save_png(figure, path)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    if high < 20.0 * low:  # less than about a decade: the powers of ten alone would leave the axis bare
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="y", which="minor", labelsize=7)
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())
