"""The section on the networks' training: learning curves, the epoch whose weights were kept, and the cost of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from pesfit.report.page.blocks import Block, Cell, Figure, Layout, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import SURFACE, color_of, label_of, legend, log_axis, panels
from pesfit.report.reading import read_json, read_rows

_MAE = "force_mae_kcal_per_mol_per_angstrom"
_CURVES = ("train_loss", "validation_loss", f"train_{_MAE}", f"validation_{_MAE}")


@dataclass(frozen=True)
class Training:
    """One trained network.

    Attributes:
        variant: its name among potentials.
        epochs: numbers from 1.
        curves: for each name such as `validation_loss` a value for each epoch.
        best_epoch: the epoch whose weights were kept.
        stopped_early: whether training ended before the maximum number of epochs.
        started_from: variant whose weights it was initialized with; None for random ones.
        n_weights: number of trained weights.
        training_mflop_per_atom: cost of a training step, in millions of operations.
        inference_mflop_per_atom: cost of energy and forces.
        jacobian_asymmetry: |(J - Jᵀ)/2| / |J| of the forces' Jacobian J, mean of a few test conformers; None where not computed.
    """

    variant: str
    epochs: Sequence[int]
    curves: dict[str, list[float]]
    best_epoch: int
    stopped_early: bool
    started_from: str | None
    n_weights: int
    training_mflop_per_atom: float
    inference_mflop_per_atom: float
    jacobian_asymmetry: float | None

    @classmethod
    def read(cls, variant: str, folder: Path, metrics: Path) -> Training:
        """Read the output of stage 07.

        Args:
            variant: `conservative` or `direct`.
            folder: such as `outputs/learned/direct`.
            metrics: such as `outputs/metrics/train_learned-direct.json`.

        Raises:
            DataError: if a file is missing or lacks a column.
        """
        rows = read_rows(folder / "history.csv", ("epoch", *_CURVES))
        values = read_json(metrics)
        return cls(
            variant=variant,
            epochs=[int(row["epoch"]) for row in rows],
            curves={name: [float(row[name]) for row in rows] for name in _CURVES},
            best_epoch=values["best_epoch"],
            stopped_early=values["stopped_early"],
            started_from=values["started_from"],
            n_weights=values["weights"],
            training_mflop_per_atom=values["cost"]["training_mflop_per_atom"],
            inference_mflop_per_atom=values["cost"]["inference_mflop_per_atom"],
            jacobian_asymmetry=values["force_jacobian_asymmetry"],
        )

    def at_best(self, curve: str) -> float:
        """Return the value of a curve at the epoch whose weights were kept."""
        return self.curves[curve][list(self.epochs).index(self.best_epoch)]


def section(trainings: Sequence[Training]) -> PageSection:
    """Return the section of the networks' training."""
    blocks: list[Block] = [
        Text(
            "Both networks are trained on the same conformers in the same order. The forces of the conservative one are the gradient of "
            "its energy; the direct one predicts them by a head of its own, which is cheaper and does not conserve energy."
        ),
        _curves(trainings),
        _table(trainings),
    ]
    unfinished = [
        label_of(each.variant) for each in trainings if each.best_epoch == len(each.epochs) and not each.stopped_early
    ]
    if unfinished:
        words = f"{' and '.join(unfinished)}: the validation loss was lowest in the last epoch, so training had not converged"
        blocks.append(Text(f"{words} (raise `train_learned.num_epochs`).", tone="warning"))
    return PageSection("learning", "Learning curves", blocks)


def _curves(trainings: Sequence[Training]) -> Figure:
    def draw(layout: Layout) -> Canvas:
        canvas, (loss, error) = panels(layout, 2, columns=2, height=3.1)
        for training in trainings:
            _lines(loss, training, "loss")
            _lines(error, training, _MAE)
        loss.set_title("Loss")
        error.set_title("Force MAE (kcal/mol/Å)")
        for axes in (loss, error):
            log_axis(axes, "y")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend(canvas)
        return canvas

    ends = "; ".join(
        f"{label_of(each.variant)}: force MAE on validation {each.at_best(f'validation_{_MAE}'):.3g} kcal/mol/Å at epoch {each.best_epoch}"
        for each in trainings
    )
    return Figure(
        "learning-curves",
        "Learning curves: training and validation",
        f"Loss and force error of training and validation set over epochs. {ends}.",
        draw,
        note="Circles: the epoch with the lowest validation loss, whose weights were kept. Training values are means over an epoch, during "
        "which the weights change; validation uses their exponential moving average, so it can be lower.",
    )


def _lines(axes: Axes, training: Training, name: str) -> None:
    color, label = color_of(training.variant), label_of(training.variant)
    train, validation = training.curves[f"train_{name}"], training.curves[f"validation_{name}"]
    axes.plot(training.epochs, train, color=color, linestyle=":", linewidth=1.2, label=f"{label}, training")
    axes.plot(training.epochs, validation, color=color, label=f"{label}, validation")
    best = training.at_best(f"validation_{name}")
    axes.plot(training.best_epoch, best, "o", color=color, markerfacecolor=SURFACE, markeredgewidth=1.4)


def _table(trainings: Sequence[Training]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "potential": each.variant,
            "network": label_of(each.variant),
            "weights": each.n_weights,
            "epochs": len(each.epochs),
            "best_epoch": each.best_epoch,
            "started_from": each.started_from or "random",
            "best_validation_loss": each.at_best("validation_loss"),
            f"validation_{_MAE}": each.at_best(f"validation_{_MAE}"),
            "training_mflop_per_atom": each.training_mflop_per_atom,
            "inference_mflop_per_atom": each.inference_mflop_per_atom,
            "force_jacobian_asymmetry": each.jacobian_asymmetry,
        }
        for each in trainings
    ]
    return Table(
        "networks",
        "Networks: size, training and cost",
        (
            TableColumn("network", "network"),
            TableColumn("weights", "weights"),
            TableColumn("epochs", "epochs"),
            TableColumn("best_epoch", "best epoch"),
            TableColumn("started_from", "initial weights"),
            TableColumn(f"validation_{_MAE}", "force MAE, validation", "kcal/mol/Å", best="lowest"),
            TableColumn("training_mflop_per_atom", "training step", "MFLOP/atom"),
            TableColumn("inference_mflop_per_atom", "energy and forces", "MFLOP/atom"),
            TableColumn("force_jacobian_asymmetry", "Jacobian asymmetry", digits=2),
        ),
        rows,
        note="Operations are multiplications and additions in matrix products, the same on every machine. Jacobian asymmetry: share of "
        "∂F/∂x that is antisymmetric; 0, up to rounding, for forces that are the gradient of an energy, 1 for a pure rotation.",
    )
