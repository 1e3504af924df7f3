"""Scores of predicted standard deviations, for every model that has them: on the test set, and out of distribution."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.dataset import ConformerDataset
from pesfit.evaluate.out_of_distribution import Separation, probe_rows, scored_sets, separate
from pesfit.evaluate.predictions import Predictions, force_pairs, predict_rows, relative_energy_pairs
from pesfit.potentials.model import Model
from pesfit.statistics.errors import ALL, numbers_of
from pesfit.statistics.resampling import Units, units_of
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.scores import Judgment, Sample, judge

Quantity: TypeAlias = Literal["forces", "relative_energy"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True)
class TrainedOn:
    """Data that models were fitted to.

    Attributes:
        groups: for each model the molecules (`out_of_distribution.training_groups`).
        levels: levels of theory of their labels.
    """

    groups: Mapping[str, Collection[str]]
    levels: Collection[str]


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of the standard deviations of one model.

    Attributes:
        potential: name of the model.
        source: of the rows, or `ALL`.
        quantity: force components, or energies relative to the row's first test conformer.
        sample: errors and standard deviations.
        judgment: scores.
    """

    potential: str
    source: str
    quantity: Quantity
    sample: Sample
    judgment: Judgment


@dataclass(frozen=True, eq=False)
class UncertaintyScores:
    """Scores of the standard deviations of all models.

    Attributes:
        judged: on the test set, by model, quantity and source.
        separations: of what is in distribution from what is not.
        calibrations: of the models.
    """

    judged: Sequence[Judged]
    separations: Sequence[Separation]
    calibrations: Mapping[str, Calibration | None]

    def metrics(self) -> dict[str, Any]:
        """Return scores on the whole test set and AUROCs, by model."""
        found: dict[str, Any] = {}
        for each in self.judged:
            if each.source == ALL:
                found.setdefault(each.potential, {})[each.quantity] = {
                    "negative_log_likelihood": each.judgment.nll,
                    "expected_calibration_error": each.judgment.ece,
                    "coverage_95": each.judgment.coverage_95,
                    "rank_correlation": each.judgment.rank_correlation,
                }
        for separation in self.separations:
            if separation.auroc is not None:
                found.setdefault(separation.potential, {}).setdefault("auroc", {})[separation.name] = separation.auroc
        return found


def score_models(
    models: Mapping[str, Model], test: Predictions, probes: ConformerDataset, trained: TrainedOn
) -> UncertaintyScores:
    """Score the standard deviations of all models that have a posterior.

    Args:
        models: by name.
        test: their predictions for the test set; models that are not in it are evaluated.
        probes: from stage 08.
        trained: data that the models were fitted to.
    """
    with_posterior = {name: model for name, model in models.items() if model.has_posterior}
    calibrations = {name: model.calibration for name, model in with_posterior.items()}
    missing = {name: model for name, model in with_posterior.items() if name not in test.predicted}
    if missing:
        test = replace(
            test, predicted={**test.predicted, **predict_rows(missing, test.rows, label=" ".join(missing)).predicted}
        )
    of_probes = predict_rows(with_posterior, probe_rows(probes), label="probes")
    same_level = set(trained.levels) == set(probes.level_of_theory.values())
    separations: list[Separation] = []
    for name, calibration in calibrations.items():
        sets = scored_sets(name, test, of_probes, trained.groups[name], calibration, same_level=same_level)
        separations += separate(name, sets)
    return UncertaintyScores(judge_predictions(test, calibrations), separations, calibrations)


def judge_predictions(predictions: Predictions, calibrations: Mapping[str, Calibration | None]) -> list[Judged]:
    """Score every model with standard deviations, for each quantity by source and for `ALL`.

    Args:
        predictions: on the test set.
        calibrations: of the models, by name, which the standard deviations were corrected by.
    """
    found = []
    for potential in predictions.potentials:
        calibration = calibrations.get(potential) or Calibration()
        for quantity in QUANTITIES:
            for source in (ALL, *predictions.sources):
                sample = _sample(predictions, potential, None if source == ALL else source, quantity, calibration)
                judgment = None if sample is None else judge(sample)
                if sample is not None and judgment is not None:
                    found.append(Judged(potential, source, quantity, sample, judgment))
    return found


def _sample(
    predictions: Predictions, potential: str, source: str | None, quantity: Quantity, calibration: Calibration
) -> Sample | None:
    """Return errors and standard deviations of one quantity; None where there are none."""
    pairs_of, scale = (
        (force_pairs, calibration.forces) if quantity == "forces" else (relative_energy_pairs, calibration.relative_energy)
    )
    rows = [(row, predicted) for row, predicted in predictions.of(potential, source) if predicted.std is not None]
    if not rows:
        return None
    errors, stds = (np.concatenate(column) for column in zip(*(pairs_of(*one) for one in rows), strict=True))
    conformers: list[LongArray] = []
    molecules: list[tuple[str, str]] = []
    for row, _ in rows:
        first = len(molecules)
        if quantity == "relative_energy":
            conformers.append(first + np.arange(1, row.n_conformers))
        elif row.forces is not None:
            conformers.append(first + np.repeat(np.arange(row.n_conformers), 3 * row.n_atoms))
        molecules += [(row.dataset, row.group)] * row.n_conformers
    conformer = np.concatenate([np.zeros(0, dtype=np.int64), *conformers])
    squares: FloatArray = np.bincount(conformer, errors**2, len(molecules)).astype(np.float64)
    units = units_of(numbers_of(molecules), squares[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = stds / scale.factor
    of_values = None if units is None else Units(units.kind, units.number[conformer])
    return Sample.of(errors, stds, np.sqrt(raw**2 + scale.noise**2), of_values)
