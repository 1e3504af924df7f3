"""How the networks learned: curves over epochs, the epoch whose weights were kept, what a step costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from pesfit.evaluate.names import label_of
from pesfit.report.page.blocks import Block, Cell, Column, Figure, Section, Table, Text
from pesfit.report.page.figures import Palette, legend, log_axis, panels
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
        best_epoch: whose weights were kept.
        stopped_early: whether it ended before the epochs it might have had.
        started_from: variant whose weights it began with; None for random ones.
        n_weights: numbers that were trained.
        training_mflop_per_atom: cost of a training step, in millions of operations.
        inference_mflop_per_atom: cost of energy and forces.
        jacobian_asymmetry: |(J - Jᵀ)/2| / |J| of the forces' Jacobian J, mean of a few test conformers; None where not looked at.
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
        """Read what stage 07 left.

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


def section(trainings: Sequence[Training]) -> Section:
    """Return the section of the networks' training."""
    blocks: list[Block] = [
        Text(
            "Both networks see the same conformers in the same order. The conservative one takes forces as the derivative of its energy; "
            "the direct one has a head for them, which makes a step cheaper and leaves nothing that conserves energy."
        ),
        _curves(trainings),
        _table(trainings),
    ]
    unfinished = [
        label_of(each.variant) for each in trainings if each.best_epoch == len(each.epochs) and not each.stopped_early
    ]
    if unfinished:
        who = " and ".join(unfinished)
        blocks.append(
            Text(
                f"{who}: the last epoch was the best, so a longer training would go further (`train_learned.num_epochs`).",
                tone="warning",
            )
        )
    return Section("learning", "Learning curves", blocks)


def _curves(trainings: Sequence[Training]) -> Figure:
    def draw(palette: Palette) -> Canvas:
        canvas, (loss, error) = panels(palette, 2, columns=2, height=3.1)
        for training in trainings:
            _lines(loss, training, "loss", palette)
            _lines(error, training, _MAE, palette)
        loss.set_title("Loss of the training objective")
        error.set_title("Force MAE (kcal/mol/Å)")
        for axes in (loss, error):
            log_axis(axes, "y")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend(canvas, palette)
        return canvas

    ends = "; ".join(
        f"{label_of(each.variant)}: force MAE on validation {each.at_best(f'validation_{_MAE}'):.3g} kcal/mol/Å at epoch {each.best_epoch}"
        for each in trainings
    )
    return Figure(
        "learning-curves",
        "Learning curves of the networks",
        f"Loss and force error of training and validation set over epochs, falling. {ends}.",
        draw,
        note="Circles: the epoch of least validation loss, whose weights were kept. Training values are means over an epoch in which "
        "weights still move; validation uses their moving average, which is why it can lie below.",
    )


def _lines(axes: Axes, training: Training, name: str, palette: Palette) -> None:
    color = palette.color(training.variant)
    label = label_of(training.variant)
    axes.plot(
        training.epochs, training.curves[f"train_{name}"], color=color, linestyle=":", linewidth=1.2, label=f"{label}, training"
    )
    validation = f"validation_{name}"
    axes.plot(training.epochs, training.curves[validation], color=color, label=f"{label}, validation")
    axes.plot(
        training.best_epoch,
        training.at_best(validation),
        "o",
        color=color,
        markerfacecolor=palette.surface,
        markeredgewidth=1.4,
    )


def _table(trainings: Sequence[Training]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "potential": each.variant,
            "network": label_of(each.variant),
            "weights": each.n_weights,
            "epochs": len(each.epochs),
            "best_epoch": each.best_epoch,
            "started_from": each.started_from or "random weights",
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
        "The networks and what they cost",
        (
            Column("network", "network"),
            Column("weights", "weights"),
            Column("epochs", "epochs"),
            Column("best_epoch", "kept epoch"),
            Column("started_from", "began with"),
            Column(f"validation_{_MAE}", "force MAE, validation", "kcal/mol/Å", best="lowest"),
            Column("training_mflop_per_atom", "training step", "MFLOP/atom"),
            Column("inference_mflop_per_atom", "energy and forces", "MFLOP/atom"),
            Column("force_jacobian_asymmetry", "Jacobian asymmetry", digits=2),
        ),
        rows,
        note="Operations are multiplications and additions in matrix products, the same on every machine. The asymmetry is the share of "
        "∂F/∂x that is antisymmetric: 0, up to rounding, for forces that derive from an energy, 1 for a pure rotation.",
    )
