"""Section `fit_smirnoff`, for `06_fit_smirnoff`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pesfit.params.base import MaxFailed, Section
from pesfit.params.fit_gradient import Gradient

Weight = Annotated[float, Field(ge=0.0, le=1e9)]
Bound = Annotated[float, Field(ge=-1e9, le=1e9)]
Width = Annotated[float, Field(gt=0.0, le=1e9)]
Periodicity = Annotated[int, Field(ge=1, le=6)]


class Column(Section):
    """One trained column of a handler."""

    train: bool = Field(True, description="Whether it is trained.")
    lower: Bound | None = Field(None, description="Least value allowed, in the column's unit; null for none.")
    upper: Bound | None = Field(None, description="Largest value allowed, in the column's unit; null for none.")
    largest_change: Width | None = Field(
        None, description="Largest change from the starting value, in the column's unit; null for any."
    )
    prior_width: Width = Field(
        1.0, description="Standard deviation of the prior about the starting value, in the column's unit."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Column:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower = {self.lower:g} and upper = {self.upper:g}: expected lower < upper")
        return self

    def bounds(self, start: float) -> tuple[float, float]:
        """Return the least and the largest value allowed to a parameter that starts at `start`, ∓inf where there is none."""
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        change = math.inf if self.largest_change is None else self.largest_change
        return max(low, start - change), min(high, start + change)


class BondK(Column):
    """Force constant of bonds."""

    lower: Bound | None = Field(0.0, description="Least value allowed, kcal/mol/Å²; null for none.")
    prior_width: Width = Field(200.0, description="Standard deviation of the prior about the starting value, kcal/mol/Å².")


class BondLength(Column):
    """Equilibrium length of bonds."""

    lower: Bound | None = Field(0.5, description="Least value allowed, Å; null for none.")
    upper: Bound | None = Field(4.0, description="Largest value allowed, Å; null for none.")
    largest_change: Width | None = Field(0.2, description="Largest change from the starting value, Å; null for any.")
    prior_width: Width = Field(0.05, description="Standard deviation of the prior about the starting value, Å.")


class AngleK(Column):
    """Force constant of angles."""

    lower: Bound | None = Field(0.0, description="Least value allowed, kcal/mol/radian²; null for none.")
    prior_width: Width = Field(100.0, description="Standard deviation of the prior about the starting value, kcal/mol/radian².")


class AngleAngle(Column):
    """Equilibrium angle."""

    lower: Bound | None = Field(0.0, description="Least value allowed, radian; null for none.")
    upper: Bound | None = Field(
        3.141592653589793, description="Largest value allowed, radian (π is a straight line); null for none."
    )
    largest_change: Width | None = Field(0.35, description="Largest change from the starting value, radian; null for any.")
    prior_width: Width = Field(0.15, description="Standard deviation of the prior about the starting value, radian.")


class TorsionK(Column):
    """Amplitude of proper torsions."""

    prior_width: Width = Field(2.0, description="Standard deviation of the prior about the starting value, kcal/mol.")


class ImproperK(TorsionK):
    """Amplitude of improper torsions."""

    train: bool = Field(False, description="Whether it is trained.")


class Chosen(Section):
    """Which parameters of a handler are trained."""

    include: tuple[str, ...] = Field(
        ("*",), description="Ids or SMIRKS of the parameters to train; `*` in an id stands for any characters, as in `b1*`."
    )
    exclude: tuple[str, ...] = Field((), description="Ids or SMIRKS of parameters left as they are, though included.")


class TrainBonds(Chosen):
    """Bonds: ½ k (r - length)²."""

    k: BondK = Field(BondK(), description="Force constant, kcal/mol/Å².")
    length: BondLength = Field(BondLength(), description="Equilibrium length, Å.")


class TrainAngles(Chosen):
    """Angles: ½ k (θ - angle)²."""

    k: AngleK = Field(AngleK(), description="Force constant, kcal/mol/radian².")
    angle: AngleAngle = Field(AngleAngle(), description="Equilibrium angle, radian.")


class TrainProperTorsions(Chosen):
    """Proper torsions: k/idivf (1 + cos(n φ - phase))."""

    k: TorsionK = Field(TorsionK(), description="Amplitude, kcal/mol.")
    add_periodicities: tuple[Periodicity, ...] = Field(
        (), description="Periodicities (1 to 6) that each trained torsion is given, at k = 0 and phase 0, where it lacks them."
    )


class TrainImproperTorsions(Chosen):
    """Improper torsions: k/idivf (1 + cos(n φ - phase)), over three permutations."""

    k: ImproperK = Field(ImproperK(), description="Amplitude, kcal/mol.")


class Train(Section):
    """What is trained; everything else stays as it is."""

    bonds: TrainBonds = Field(TrainBonds(), description="Bonds.")
    angles: TrainAngles = Field(TrainAngles(), description="Angles.")
    proper_torsions: TrainProperTorsions = Field(TrainProperTorsions(), description="Proper torsions.")
    improper_torsions: TrainImproperTorsions = Field(TrainImproperTorsions(), description="Improper torsions.")


class ConformerWeight(Section):
    """How much each conformer counts in the objective (never in reported errors)."""

    kind: Literal["uniform", "window", "boltzmann"] = Field(
        "uniform",
        description="uniform: all alike. window: 1 up to `window` above the molecule's lowest label, 0 above. "
        "boltzmann: exp(-(E - lowest)/kT).",
    )
    window: float = Field(30.0, gt=0.0, le=1e6, description="Width of the window, kcal/mol.")
    temperature_kelvin: float = Field(2000.0, gt=0.0, le=1e6, description="Temperature of the Boltzmann weight, K.")


class Objective(Section):
    """The sum of squares that is minimised."""

    energy_weight: Weight | Literal["evidence"] = Field(
        1.0,
        description="Weight of (ΔE)², E in kcal/mol; `evidence` chooses it, beside the weight of forces, by marginal likelihood.",
    )
    force_weight: Weight = Field(1.0, description="Weight of |ΔF|², F in kcal/mol/Å.")
    energy_zero: Literal["mean", "min", "none"] = Field(
        "mean",
        description="What energies of a molecule are relative to: their mean, the conformer whose label is lowest, or nothing.",
    )
    normalization: Literal["sum", "component", "molecule"] = Field(
        "molecule",
        description="sum: plain sums over entries. component: |ΔF|² divided by 3 n_atoms. molecule: that, and both divided by the "
        "molecule's number of conformers, so that molecules count alike.",
    )
    source_weights: dict[str, Weight] = Field(
        {}, description="Factor on all rows of a source (`espaloma` stands for all its subsets); 1 where none is given."
    )
    conformer_weight: ConformerWeight = Field(ConformerWeight(), description="Weight of each conformer.")


class FitSmirnoff(MaxFailed):
    """The fit of SMIRNOFF parameters."""

    method: Literal["exact", "gradient"] = Field(
        "exact",
        description="exact: normal equations and a bounded solve. gradient: that, and then descent as section `gradient` says, for other "
        "losses, van der Waals parameters and charges.",
    )
    train: Train = Field(Train(), description="What is trained, within which bounds, under which prior.")
    objective: Objective = Field(Objective(), description="What is minimised.")
    prior_strength: Annotated[float, Field(gt=0.0, le=1e12)] | Literal["evidence", "validation"] = Field(
        "evidence",
        description="Factor on the sum of squares of (parameter - start)/prior_width, in the unit of the objective; or chosen by "
        "marginal likelihood, or by the objective on the validation set.",
    )
    gradient: Gradient = Field(Gradient(), description="The fit by descent, for `method: gradient`.")
    shards: int = Field(64, ge=1, le=100_000, description="Pieces the data are cut into; their sums are added in order.")
    bootstrap: int = Field(1000, ge=10, le=1_000_000, description="Resamples of the molecules for the intervals of errors.")
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the resamples.")
