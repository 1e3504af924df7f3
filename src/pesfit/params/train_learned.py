"""ParamsSection `train_learned`, for `07_train_learned`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pesfit.params.section import ParamsSection


class Network(ParamsSection):
    """The shape of the network."""

    n_features: int = Field(128, ge=1, le=4096, description="Features of an atom: as many scalars and as many vectors.")
    n_interactions: int = Field(3, ge=1, le=20, description="Rounds in which atoms exchange messages with their neighbors.")
    n_rbf: int = Field(20, ge=2, le=1000, description="Radial functions that a distance is expanded in.")
    cutoff_angstrom: float = Field(5.0, gt=0.0, le=100.0, description="Atoms farther apart than this, in Å, exchange nothing.")
    precision: Literal["float32", "float64"] = Field(
        "float32", description="Numbers the network computes with; energies are summed in float64 either way."
    )


class LearnedObjective(ParamsSection):
    """Training loss: energy_weight · mean h(ΔE) + force_weight · mean h(ΔF), means over a batch."""

    loss: Literal["mse", "huber"] = Field(
        "mse",
        description="h(x): x², or x² up to the delta and 2·delta·|x| - delta² above, which is less sensitive to outliers.",
    )
    energy_weight: float = Field(0.05, ge=0.0, le=1e9, description="Weight of energies, E in kcal/mol; mean over conformers.")
    force_weight: float = Field(0.95, ge=0.0, le=1e9, description="Weight of forces, F in kcal/mol/Å; mean over components.")
    energy_per: Literal["molecule", "atom"] = Field(
        "molecule", description="atom: ΔE is divided by the number of atoms, so that large molecules do not dominate."
    )
    huber_delta_energy: float = Field(1.0, gt=0.0, le=1e9, description="delta for energies, in the unit of ΔE.")
    huber_delta_force: float = Field(1.0, gt=0.0, le=1e9, description="delta for components of forces, kcal/mol/Å.")


class Batching(ParamsSection):
    """Minibatches of the training data."""

    size: int = Field(10, ge=1, le=1_000_000, description="Size of a batch, in the unit that `by` names.")
    by: Literal["conformers", "atoms"] = Field(
        "conformers", description="Unit of `size`; with atoms, batches of small and of large molecules take equally long."
    )
    n_shards: int = Field(
        2,
        ge=1,
        le=1024,
        description="Pieces a batch is cut into, whose gradients are added in order: at most so many processes share the work, and "
        "results depend on this number, never on that of the processes.",
    )


class LearningRate(ParamsSection):
    """Learning rate schedule."""

    peak: float = Field(1e-3, gt=0.0, le=10.0, description="Learning rate after the warm-up.")
    warmup_epochs: float = Field(1.0, ge=0.0, le=1e6, description="Epochs over which it rises evenly from 0.")
    decay: Literal["cosine", "plateau", "constant"] = Field(
        "cosine",
        description="cosine: half a period over num_epochs. plateau: reduced when the validation loss stops falling. "
        "constant: none.",
    )
    final_fraction: float = Field(
        0.01, ge=0.0, le=1.0, description="Last rate of cosine and least of plateau, as a fraction of peak."
    )
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0, description="plateau: factor of a reduction.")
    plateau_patience: int = Field(10, ge=0, le=1_000_000, description="plateau: epochs without improvement before a reduction.")
    plateau_threshold: float = Field(
        0.001, ge=0.0, lt=1.0, description="plateau: relative decrease of the loss that counts as an improvement."
    )


class Optimizer(ParamsSection):
    """Optimizer of the weights."""

    kind: Literal["adamw", "adam_amsgrad"] = Field(
        "adamw",
        description="adamw: Adam with decoupled weight decay. adam_amsgrad: Adam whose steps never grow, without decay.",
    )
    weight_decay: float = Field(
        0.01, ge=0.0, le=1e3, description="adamw: decay of weights, times the learning rate, at each step."
    )
    max_gradient_norm: float | None = Field(
        10.0, gt=0.0, le=1e12, description="Longer gradients are scaled down to this length; null for never."
    )
    ema_decay: float = Field(
        0.999,
        ge=0.0,
        lt=1.0,
        description="Moving average of the weights that is validated and saved: 0.999 averages over about 1,000 steps, 0 not at all.",
    )


class TrainLearned(ParamsSection):
    """Training of the network, in both variants.

    Keys taken over from the project's predecessor: subset_size, num_epochs, early_stopping_min_epochs and early_stopping_patience under
    their own names, batch_size_train as batching.size, and splits in section split, since all stages share one division of the data.
    """

    network: Network = Field(Network(), description="The shape of the network.")
    objective: LearnedObjective = Field(LearnedObjective(), description="Training loss.")
    batching: Batching = Field(
        Batching(), description="Minibatches of the training data (batch_size_train of the predecessor)."
    )
    optimizer: Optimizer = Field(Optimizer(), description="Optimizer of the weights.")
    learning_rate: LearningRate = Field(LearningRate(), description="Learning rate schedule.")
    sources: tuple[str, ...] = Field(
        (), description="Sources that are trained on (`espaloma` stands for all its subsets); an empty list takes all."
    )
    subset_size: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Train on so many conformers of the training set, drawn by seed; null for all.",
    )
    num_epochs: int = Field(500, ge=1, le=10_000_000, description="Passes over the training set at most.")
    early_stopping_min_epochs: int = Field(50, ge=0, le=10_000_000, description="Passes that are always made.")
    early_stopping_patience: int | None = Field(
        100,
        ge=1,
        le=10_000_000,
        description="Stop after so many passes in which the validation loss reached no new low; null for never.",
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Compile the training step: always, never, or where it pays and there is a C++ compiler (else eagerly).",
    )
    last_layer_conformers: int = Field(
        20_000,
        ge=1,
        le=1_000_000_000,
        description="Conformers, at most, for the posterior of the last layer of the conservative network; of a larger set evenly "
        "spaced ones. Fewer cost less time and give larger uncertainties, in nearly the same order.",
    )
    ensemble: int = Field(
        0,
        ge=0,
        le=20,
        description="Further networks trained like the conservative one, from seeds seed + 1, seed + 2, ..., whose spread is shown beside "
        "the uncertainty of the last layer; each costs another training, and fewer than 3 give no error bars.",
    )
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the first weights and the order of batches.")


RANDOM_WEIGHTS = "inputs/random-weights"
"""An empty folder: DVC cannot depend on nothing."""


class InitialWeights(ParamsSection):
    """Weights that training starts from. Not in profiles: dvc.yaml makes each folder a dependency of its stage."""

    conservative: str = Field(
        RANDOM_WEIGHTS,
        min_length=1,
        description="Folder of a trained network whose weights the conservative variant starts from; inputs/random-weights for "
        "random ones. outputs/learned/direct trains the direct variant first, in half the time, and starts from what it learned.",
    )
    direct: str = Field(RANDOM_WEIGHTS, min_length=1, description="The same for the direct variant.")

    @field_validator("conservative", "direct")
    @classmethod
    def _inside(cls, folder: str) -> str:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ValueError("expected a folder of this repository, named from its top, such as outputs/learned/direct")
        return folder

    @model_validator(mode="after")
    def _no_circle(self) -> Self:
        own = {"conservative": self.conservative, "direct": self.direct}
        after = {name: folder for name, folder in own.items() if _is_in(folder, "outputs/learned")}
        for name, folder in after.items():
            if _is_in(folder, f"outputs/learned/{name}") or len(after) == len(own):
                raise ValueError(
                    f"{name} would start from weights that are trained after it; expected one that is trained before"
                )
        return self


def _is_in(folder: str, parent: str) -> bool:
    return Path(folder).is_relative_to(parent)
