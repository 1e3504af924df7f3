"""Section `fit_smirnoff.gradient`: the fit by descent, for what is not a quadratic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pesfit.params.base import Section

Positive = Annotated[float, Field(gt=0.0, le=1e9)]


class Loss(Section):
    """What is summed over energies and over atoms, instead of the square of the error."""

    kind: Literal["l2", "huber", "l1"] = Field(
        "l2",
        description="l2: e². huber: e² up to δ, 2 δ e - δ² beyond. l1: e, rounded off below 0.001. e is |ΔE| of a conformer, or the "
        "length of ΔF of an atom.",
    )
    energy_delta: Positive = Field(1.0, description="δ of energies, kcal/mol; only for huber.")
    force_delta: Positive = Field(10.0, description="δ of forces, kcal/mol/Å; only for huber.")


class RelativeColumn(Section):
    """A column of positive numbers, trained as logarithms."""

    train: bool = Field(False, description="Whether it is trained.")
    prior_width: float = Field(
        0.1, gt=0.0, le=10.0, description="Standard deviation of the prior of the logarithm; 0.1 is 10 %."
    )
    largest_factor: float = Field(2.0, gt=1.0, le=1000.0, description="By which factor values may grow or shrink at most.")


class Sigma(RelativeColumn):
    """Distances, which move less than depths."""

    prior_width: float = Field(
        0.03, gt=0.0, le=10.0, description="Standard deviation of the prior of the logarithm; 0.03 is 3 %."
    )
    largest_factor: float = Field(1.25, gt=1.0, le=1000.0, description="By which factor values may grow or shrink at most.")


class TrainVdW(Section):
    """Van der Waals parameters."""

    include: tuple[str, ...] = Field(("*",), description="Ids or SMIRKS of the parameters to train; `*` in an id as in `n1*`.")
    exclude: tuple[str, ...] = Field((), description="Ids or SMIRKS of parameters left as they are, though included.")
    epsilon: RelativeColumn = Field(RelativeColumn(), description="Depth of the well.")
    sigma: Sigma = Field(
        Sigma(), description="Distance at which the energy is zero; rmin_half is 2^(1/6)/2 times it, and is trained with it."
    )


class TrainCharges(Section):
    """Charges of each molecule: equivalent atoms of a molecule change alike, and its total charge stays."""

    train: bool = Field(False, description="Whether they are trained.")
    prior_width: Positive = Field(0.05, description="Standard deviation of the prior, e.")
    largest_change: Positive = Field(
        0.3, description="Largest change of an equivalence class, before the total is restored, e."
    )


class LearningRate(Section):
    """Step length of Adam."""

    initial: Positive = Field(0.01, description="At first, in prior widths.")
    final: Positive = Field(1e-4, description="In the last epoch; it falls by the same factor each epoch.")


class Gradient(Section):
    """The fit by descent."""

    optimizer: Literal["adam", "lbfgs", "lm"] = Field(
        "lm",
        description="lm: Levenberg-Marquardt with bounds, for at most 3,000 parameters; lbfgs: L-BFGS-B; adam. The first two take all "
        "data in each step, and go all the way to the optimum.",
    )
    loss: Loss = Field(Loss(), description="What is minimised over energies and forces.")
    vdw: TrainVdW = Field(TrainVdW(), description="Training of van der Waals parameters.")
    charges: TrainCharges = Field(TrainCharges(), description="Training of charges.")
    start: Literal["exact", "force_field"] = Field(
        "exact", description="Where it starts: at the exact optimum of the sum of squares, or at the starting force field."
    )
    epochs: int = Field(300, ge=1, le=10_000_000, description="Passes over the data at most.")
    batch_size: int | None = Field(None, ge=1, le=10_000_000, description="Molecules in a batch; null for all.")
    learning_rate: LearningRate = Field(LearningRate(), description="Of Adam.")
    patience: int | None = Field(
        50,
        ge=1,
        le=10_000_000,
        description="Epochs without a lower loss on the validation set after which it stops; the parameters of the lowest are kept. "
        "null: no stopping, and the last parameters are kept.",
    )
    tolerance: float = Field(
        1e-9, ge=0.0, le=1.0, description="lbfgs and lm stop when a step lowers the objective by less than this fraction of it."
    )
    shards: int = Field(
        8,
        ge=1,
        le=4096,
        description="Pieces that each batch is cut into and whose sums are added in order; more workers have no use.",
    )
    memory_gib: Positive = Field(
        2.0, description="GiB that a worker may keep prepared data in; what is beyond is prepared anew in each epoch."
    )
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the batches and of their order.")

    @model_validator(mode="after")
    def _consistent(self) -> Gradient:
        if self.optimizer != "adam" and self.batch_size is not None:
            raise ValueError(
                f"batch_size = {self.batch_size}: expected null beside optimizer = {self.optimizer}, which takes all data"
            )
        if self.learning_rate.final > self.learning_rate.initial:
            raise ValueError(
                f"learning_rate.final = {self.learning_rate.final:g}: expected at most learning_rate.initial = "
                f"{self.learning_rate.initial:g}"
            )
        return self
