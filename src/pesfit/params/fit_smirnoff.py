"""ParamsSection `fit_smirnoff`, for `06_fit_smirnoff`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pesfit.params.section import MaxFailed, ParamsSection

Positive = Annotated[float, Field(gt=0.0, le=1e9)]


class Loss(ParamsSection):
    """Loss, summed over energies and over atoms, instead of the square of the error."""

    kind: Literal["l2", "huber", "l1"] = Field(
        "l2",
        description="l2: e². huber: e² up to δ, 2 δ e - δ² beyond. l1: e, rounded off below 0.001. e is |ΔE| of a conformer, or the "
        "length of ΔF of an atom.",
    )
    energy_delta: Positive = Field(1.0, description="δ of energies, kcal/mol; only for huber.")
    force_delta: Positive = Field(10.0, description="δ of forces, kcal/mol/Å; only for huber.")


class RelativeColumn(ParamsSection):
    """A column of positive numbers, trained as logarithms."""

    train: bool = Field(False, description="Whether it is trained.")
    prior_width: float = Field(
        0.1, gt=0.0, le=10.0, description="Standard deviation of the prior of the logarithm; 0.1 is 10 %."
    )
    largest_factor: float = Field(2.0, gt=1.0, le=1000.0, description="Largest factor by which values may grow or shrink.")


class Sigma(RelativeColumn):
    """Distances, which move less than depths."""

    prior_width: float = Field(
        0.03, gt=0.0, le=10.0, description="Standard deviation of the prior of the logarithm; 0.03 is 3 %."
    )
    largest_factor: float = Field(1.25, gt=1.0, le=1000.0, description="Largest factor by which values may grow or shrink.")


class TrainVdW(ParamsSection):
    """Van der Waals parameters."""

    include: tuple[str, ...] = Field(("*",), description="Ids or SMIRKS of the parameters to train; `*` in an id as in `n1*`.")
    exclude: tuple[str, ...] = Field((), description="Ids or SMIRKS of parameters left as they are, though included.")
    epsilon: RelativeColumn = Field(RelativeColumn(), description="Depth of the well.")
    sigma: Sigma = Field(
        Sigma(), description="Distance at which the energy is zero; rmin_half is 2^(1/6)/2 times it, and is trained with it."
    )


class TrainCharges(ParamsSection):
    """Charges of each molecule: equivalent atoms of a molecule change alike, and its total charge stays."""

    train: bool = Field(False, description="Whether they are trained.")
    prior_width: Positive = Field(0.05, description="Standard deviation of the prior, e.")
    largest_change: Positive = Field(
        0.3, description="Largest change of an equivalence class, before the total is restored, e."
    )


class StepLength(ParamsSection):
    """Step length of Adam."""

    initial: Positive = Field(0.01, description="At first, in prior widths.")
    final: Positive = Field(1e-4, description="In the last epoch; it falls by the same factor each epoch.")


class Gradient(ParamsSection):
    """The gradient fit, for losses that are not squares and parameters that are not linear."""

    optimizer: Literal["adam", "lbfgs", "lm"] = Field(
        "lm",
        description="lm: Levenberg-Marquardt with bounds, for at most 3,000 parameters; lbfgs: L-BFGS-B; adam. The first two take all "
        "data in each step, and converge to the optimum.",
    )
    loss: Loss = Field(Loss(), description="Minimized over energies and forces.")
    vdw: TrainVdW = Field(TrainVdW(), description="Training of van der Waals parameters.")
    charges: TrainCharges = Field(TrainCharges(), description="Training of charges.")
    start: Literal["exact", "force_field"] = Field(
        "exact", description="Start: the exact optimum of the sum of squares, or the starting force field."
    )
    epochs: int = Field(300, ge=1, le=10_000_000, description="Passes over the data at most.")
    batch_size: int | None = Field(None, ge=1, le=10_000_000, description="Molecules in a batch; null for all.")
    learning_rate: StepLength = Field(StepLength(), description="Of Adam.")
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


Weight = Annotated[float, Field(ge=0.0, le=1e9)]
Bound = Annotated[float, Field(ge=-1e9, le=1e9)]
Width = Annotated[float, Field(gt=0.0, le=1e9)]
Periodicity = Annotated[int, Field(ge=1, le=6)]


class TrainedColumn(ParamsSection):
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
    def _ordered(self) -> TrainedColumn:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower = {self.lower:g} and upper = {self.upper:g}: expected lower < upper")
        return self


class BondK(TrainedColumn):
    """Force constant of bonds."""

    lower: Bound | None = Field(0.0, description="Least value allowed, kcal/mol/Å²; null for none.")
    prior_width: Width = Field(200.0, description="Standard deviation of the prior about the starting value, kcal/mol/Å².")


class BondLength(TrainedColumn):
    """Equilibrium length of bonds."""

    lower: Bound | None = Field(0.5, description="Least value allowed, Å; null for none.")
    upper: Bound | None = Field(4.0, description="Largest value allowed, Å; null for none.")
    largest_change: Width | None = Field(0.2, description="Largest change from the starting value, Å; null for any.")
    prior_width: Width = Field(0.05, description="Standard deviation of the prior about the starting value, Å.")


class AngleK(TrainedColumn):
    """Force constant of angles."""

    lower: Bound | None = Field(0.0, description="Least value allowed, kcal/mol/radian²; null for none.")
    prior_width: Width = Field(100.0, description="Standard deviation of the prior about the starting value, kcal/mol/radian².")


class AngleAngle(TrainedColumn):
    """Equilibrium angle."""

    lower: Bound | None = Field(0.0, description="Least value allowed, radian; null for none.")
    upper: Bound | None = Field(
        3.141592653589793, description="Largest value allowed, radian (π is a straight line); null for none."
    )
    largest_change: Width | None = Field(0.17, description="Largest change from the starting value, radian; null for any.")
    prior_width: Width = Field(0.05, description="Standard deviation of the prior about the starting value, radian.")


class TorsionK(TrainedColumn):
    """Amplitude of proper torsions."""

    prior_width: Width = Field(0.15, description="Standard deviation of the prior about the starting value, kcal/mol.")


class ImproperK(TorsionK):
    """Amplitude of improper torsions."""

    prior_width: Width = Field(2.0, description="Standard deviation of the prior about the starting value, kcal/mol.")
    train: bool = Field(False, description="Whether it is trained.")


class TrainedHandler(ParamsSection):
    """Parameters of a handler that are trained."""

    include: tuple[str, ...] = Field(
        ("*",), description="Ids or SMIRKS of the parameters to train; `*` in an id stands for any characters, as in `b1*`."
    )
    exclude: tuple[str, ...] = Field((), description="Ids or SMIRKS of parameters left as they are, though included.")


class TrainBonds(TrainedHandler):
    """Bonds: ½ k (r - length)²."""

    k: BondK = Field(BondK(), description="Force constant, kcal/mol/Å².")
    length: BondLength = Field(BondLength(), description="Equilibrium length, Å.")


class TrainAngles(TrainedHandler):
    """Angles: ½ k (θ - angle)²."""

    k: AngleK = Field(AngleK(), description="Force constant, kcal/mol/radian².")
    angle: AngleAngle = Field(AngleAngle(), description="Equilibrium angle, radian.")


class TrainProperTorsions(TrainedHandler):
    """Proper torsions: k/idivf (1 + cos(n φ - phase))."""

    k: TorsionK = Field(TorsionK(), description="Amplitude, kcal/mol.")
    add_periodicities: tuple[Periodicity, ...] = Field(
        (), description="Periodicities (1 to 6) that each trained torsion is given, at k = 0 and phase 0, where it lacks them."
    )


class TrainImproperTorsions(TrainedHandler):
    """Improper torsions: k/idivf (1 + cos(n φ - phase)), over three permutations."""

    k: ImproperK = Field(ImproperK(), description="Amplitude, kcal/mol.")


class Train(ParamsSection):
    """Trained parameters; everything else stays as it is."""

    bonds: TrainBonds = Field(TrainBonds(), description="Bonds.")
    angles: TrainAngles = Field(TrainAngles(), description="Angles.")
    proper_torsions: TrainProperTorsions = Field(TrainProperTorsions(), description="Proper torsions.")
    improper_torsions: TrainImproperTorsions = Field(TrainImproperTorsions(), description="Improper torsions.")


class ConformerWeight(ParamsSection):
    """Weight of each conformer in the objective (never in reported errors)."""

    kind: Literal["uniform", "window", "boltzmann"] = Field(
        "uniform",
        description="uniform: all alike. window: 1 up to `window` above the molecule's lowest label, 0 above. "
        "boltzmann: exp(-(E - lowest)/kT).",
    )
    window: float = Field(30.0, gt=0.0, le=1e6, description="Width of the window, kcal/mol.")
    temperature_kelvin: float = Field(2000.0, gt=0.0, le=1e6, description="Temperature of the Boltzmann weight, K.")


class Objective(ParamsSection):
    """The sum of squares that is minimized."""

    energy_weight: Weight | Literal["evidence"] = Field(
        5.0,
        description="Weight of (ΔE)², E in kcal/mol; `evidence` chooses it, beside the weight of forces, by marginal likelihood.",
    )
    force_weight: Weight = Field(1.0, description="Weight of |ΔF|², F in kcal/mol/Å.")
    frequency_weight: Weight = Field(
        30.0,
        description="Weight of the mean square error of a molecule's harmonic frequencies, in units of 50 cm⁻¹; 0 for none.",
    )
    displacement_weight: Weight = Field(
        60.0,
        description="Weight of the mean square displacements of a molecule's minima, of bonds, angles and dihedrals, in units of 0.02 Å, "
        "2° and 10°; 0 for none.",
    )
    conformer_energy_weight: Weight = Field(
        20.0, description="Weight of (ΔE)² summed over a molecule's minima, relative to their mean, E in kcal/mol; 0 for none."
    )
    scan_weight: Weight = Field(
        20.0, description="Weight of the mean of (ΔE)² over a molecule's torsion scans, E in kcal/mol; 0 for none."
    )
    rounds: int = Field(
        4,
        ge=1,
        le=100,
        description="Gauss-Newton rounds at most: frequencies, displacements and energies of minima are linearized at the minima of the "
        "force field itself, first of the starting one.",
    )
    energy_zero: Literal["mean", "min", "none"] = Field(
        "mean",
        description="Zero of a molecule's energies: their mean, the conformer whose label is lowest, or none.",
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
        description="exact: normal equations and a bounded solve. gradient: that for energies and forces alone, followed by the fit of "
        "section `gradient`, for other losses, van der Waals parameters and charges.",
    )
    train: Train = Field(Train(), description="Trained parameters, their bounds and priors.")
    objective: Objective = Field(Objective(), description="Function that is minimized.")
    prior_strength: Annotated[float, Field(gt=0.0, le=1e12)] | Literal["evidence", "validation", "molecules"] = Field(
        10.0,
        description="Factor on the sum of squares of (parameter - start)/prior_width, in the unit of the objective; or chosen by marginal "
        "likelihood, by the objective on the validation set, or by that on each training molecule when the others are fitted.",
    )
    molecule_strength: Annotated[float, Field(gt=0.0, le=1e12)] | None = Field(
        3.0,
        description="How alike molecules are: factor on the sum of squares of (a molecule's own parameter - parameter)/prior_width. null, "
        "as always for `method: gradient`: all molecules have the very same parameters.",
    )
    gradient: Gradient = Field(Gradient(), description="The gradient fit, for `method: gradient`.")
    shards: int = Field(64, ge=1, le=100_000, description="Pieces the data are cut into; their sums are added in order.")
