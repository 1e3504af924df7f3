"""What deviations are worth: calibration on the test set, and whether they tell what a model was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pesfit.evaluate.names import label_of
from pesfit.evaluate.out_of_distribution import INSIDE, Separation
from pesfit.evaluate.uncertainty import QUANTITIES, Judged, Quantity
from pesfit.report.page.blocks import Block, Cell, Column, Section, Table, Text
from pesfit.report.sections.uncertainty_figures import auroc_figure, binned_figure, curve_figure
from pesfit.statistics.errors import ALL
from pesfit.statistics.resampling import Interval
from pesfit.uncertainty.calibration import Calibration

QUANTITY_LABELS: dict[Quantity, str] = {"forces": "force components", "relative_energy": "relative energies"}
_UNITS: dict[Quantity, tuple[str, str]] = {
    "forces": ("kcal/mol/Å", "kcal_per_mol_per_angstrom"),
    "relative_energy": ("kcal/mol", "kcal_per_mol"),
}
_NONE = (
    "No potential of this run has a posterior, so there are no deviations to judge: a SMIRNOFF fit with `method: exact` and the "
    "conservative network have one."
)
_ABOUT = (
    "The posterior of the SMIRNOFF parameters, and that of the network's last layer, give a standard deviation for every energy and "
    "force component. By itself it says what the data leave open about the parameters, so it is multiplied by one factor, fitted on the "
    "validation set. NLL is the mean negative log-likelihood of the test errors (nats; lower is better), with the corrected deviations, "
    "with the posterior plus a homoscedastic noise instead, and with one number for all: deviations that tell errors apart beat that "
    "number."
)
_DOMAIN = (
    "The score of a conformer is the deviation of its least certain atom's force. AUROC is the probability that a conformer from outside "
    "has a higher score than a test conformer of a molecule that was trained on (0.5: no idea). Flagged: score above what 0.1 % of the "
    "molecule's own training conformers exceed where it has at least a hundred, and of all training conformers where it has fewer; that is "
    "high where some molecules of the training set are hardly known. Probes are of molecules that "
    "were trained on, labelled with GFN2-xTB. Intervals are over resamples of molecules, or of blocks of the frames of a "
    "single one, where each of the two sets has ten at least."
)
_NOTES: dict[Quantity, str] = {
    "forces": "",
    "relative_energy": " Energies are relative to the first test conformer of the row, as their deviations are.",
}


def section(
    judged: Sequence[Judged], separations: Sequence[Separation], calibrations: Mapping[str, Calibration | None]
) -> Section:
    """Return the section on uncertainty.

    Args:
        judged: from `uncertainty.judge_predictions`.
        separations: from `domain.separate`, of all models.
        calibrations: of the models, by name.
    """
    blocks: list[Block] = [Text(_ABOUT)] if judged else [Text(_NONE)]
    if judged:
        pooled = [each for each in judged if each.source == ALL]
        for quantity in QUANTITIES:
            of_quantity = [each for each in judged if each.quantity == quantity]
            blocks += [judgement_table(of_quantity, quantity)] if of_quantity else []
        blocks += [curve_figure(pooled), binned_figure(pooled)]
    if any(calibration is not None for calibration in calibrations.values()):
        blocks.append(factor_table(calibrations))
    if separations:
        blocks.append(separation_table(separations))
    if any(each.auroc is not None for each in separations):
        blocks.append(auroc_figure(separations))
    return Section("uncertainty", "How sure the potentials are", blocks)


def judgement_table(judged: Sequence[Judged], quantity: Quantity) -> Table:
    """Return the table of one quantity, by source and potential."""
    unit, key = _UNITS[quantity]
    several = len({each.source for each in judged}) > 2
    shown = [each for each in judged if several or each.source != ALL]
    sources = list(dict.fromkeys(each.source for each in shown))
    rows: list[dict[str, Cell]] = []
    for each in sorted(shown, key=lambda one: sources.index(one.source)):
        found = each.judgement
        rows.append(
            {
                "source": each.source,
                "potential": each.potential,
                "label": label_of(each.potential),
                "n_values": found.n_values,
                f"rmse_{key}": found.rmse,
                "nll": found.nll,
                **_ends("nll", found.nll_interval),
                "nll_with_noise": found.nll_with_noise,
                **_ends("nll_with_noise", found.nll_with_noise_interval),
                "nll_constant": found.nll_constant,
                **_ends("nll_constant", found.nll_constant_interval),
                "expected_calibration_error": found.ece,
                "expected_calibration_error_with_noise": found.ece_with_noise,
                "expected_calibration_error_constant": found.ece_constant,
                "coverage_95": found.coverage_95,
                **_ends("coverage_95", found.coverage_95_interval),
                "rank_correlation": found.rank_correlation,
                "resampled": found.resampled,
            }
        )
    return Table(
        name=f"uncertainty-{quantity.replace('_', '-')}",
        title=f"Deviations of {QUANTITY_LABELS[quantity]} on the test set",
        columns=[
            Column("label", "potential"),
            Column(f"rmse_{key}", "RMSE", unit),
            Column("nll", "NLL", interval="nll"),
            Column("nll_with_noise", "NLL, with noise"),
            Column("nll_constant", "NLL, one number"),
            Column("expected_calibration_error", "calibration error", digits=2),
            Column("coverage_95", "95 % covers", interval="coverage_95"),
            Column("rank_correlation", "rank correlation", digits=2),
        ],
        rows=rows,
        note="Calibration error: mean distance of observed from nominal coverage. Rank correlation: of |error| and deviation."
        + _NOTES[quantity],
        group="source",
    )


def factor_table(calibrations: Mapping[str, Calibration | None]) -> Table:
    """Return what the validation set corrects deviations by."""
    rows: list[dict[str, Cell]] = []
    for potential, calibration in calibrations.items():
        for quantity in QUANTITIES if calibration is not None else ():
            scale = getattr(calibration, quantity)
            rows.append(
                {
                    "potential": potential,
                    "label": label_of(potential),
                    "quantity": QUANTITY_LABELS[quantity],
                    "factor": scale.factor,
                    "noise": scale.noise,
                    "unit": _UNITS[quantity][0],
                    "n_values": scale.n_values,
                }
            )
    columns = [
        Column("label", "potential"),
        Column("quantity", "of"),
        Column("factor", "factor"),
        Column("noise", "noise instead"),
        Column("unit", "unit"),
        Column("n_values", "validation errors"),
    ]
    return Table("uncertainty-factors", "What the validation set corrects deviations by", columns, rows, folded=True)


def separation_table(separations: Sequence[Separation]) -> Table:
    """Return how well each model tells each set from what is inside."""
    rows: list[dict[str, Cell]] = [
        {
            "potential": each.potential,
            "label": label_of(each.potential),
            "set": each.name,
            "n_conformers": each.n_conformers,
            "n_molecules": each.n_molecules,
            "auroc": each.auroc,
            **_ends("auroc", each.auroc_interval),
            "flagged_percent": None if each.flagged is None else 100.0 * each.flagged,
            "median_score_kcal_per_mol_per_angstrom": each.median_score,
            "force_rmse_kcal_per_mol_per_angstrom": each.force_rmse,
            "coverage_95": each.coverage_95,
        }
        for each in separations
    ]
    columns = [
        Column("set", "conformers"),
        Column("n_conformers", "how many"),
        Column("auroc", "AUROC", interval="auroc"),
        Column("flagged_percent", "flagged", "%", digits=2),
        Column("median_score_kcal_per_mol_per_angstrom", "median score", "kcal/mol/Å"),
        Column("force_rmse_kcal_per_mol_per_angstrom", "force RMSE", "kcal/mol/Å"),
        Column("coverage_95", "95 % covers", digits=2),
    ]
    note = f"{_DOMAIN} “{INSIDE}”: test conformers of molecules that were trained on."
    return Table("uncertainty-domain", "Outside of the training domain", columns, rows, note, group="label")


def _ends(key: str, interval: Interval | None) -> dict[str, Cell]:
    low, high = (None, None) if interval is None else interval
    return {f"{key}_low": low, f"{key}_high": high}
