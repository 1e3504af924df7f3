"""All that is judged of deviations, for every model that has them: on the test set, on probes, on molecules that were not trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pesfit.data.dataset import ConformerDataset
from pesfit.evaluate.names import label_of
from pesfit.evaluate.out_of_distribution import OTHER_MOLECULES, Separation, probe_rows, scored_sets, separate
from pesfit.evaluate.predictions import Predictions, predict_rows
from pesfit.evaluate.uncertainty import Judged, judge_predictions
from pesfit.potentials.model import Model
from pesfit.statistics.errors import ALL
from pesfit.uncertainty.calibration import Calibration


@dataclass(frozen=True)
class TrainedOn:
    """What models were fitted to.

    Attributes:
        groups: for each model the molecules (`domain.training_groups`).
        levels: levels of theory of their labels.
    """

    groups: Mapping[str, Collection[str]]
    levels: Collection[str]


@dataclass(frozen=True, eq=False)
class Sureness:
    """What deviations are worth.

    Attributes:
        judged: on the test set, by potential, quantity and source.
        separations: of what is inside of the training domain from what is outside.
        calibrations: of the models that have deviations.
    """

    judged: Sequence[Judged]
    separations: Sequence[Separation]
    calibrations: Mapping[str, Calibration | None]

    def metrics(self) -> dict[str, Any]:
        """Return what `dvc metrics diff` compares: for each potential how well it is calibrated, and what it tells apart."""
        found: dict[str, Any] = {}
        for each in self.judged:
            if each.source == ALL:
                found.setdefault(each.potential, {})[each.quantity] = {
                    "negative_log_likelihood": each.judgement.nll,
                    "expected_calibration_error": each.judgement.ece,
                    "coverage_95": each.judgement.coverage_95,
                    "rank_correlation": each.judgement.rank_correlation,
                }
        for separation in self.separations:
            if separation.auroc is not None:
                found.setdefault(separation.potential, {}).setdefault("auroc", {})[separation.name] = separation.auroc
        return found

    def sentences(self) -> Iterator[str]:
        """Yield what the first screen says of it."""
        covered = [
            f"{100.0 * each.judgement.coverage_95:.0f} % ({label_of(each.potential)})"
            for each in self.judged
            if each.source == ALL and each.quantity == "forces"
        ]
        apart = [
            f"{each.auroc:.2f} ({label_of(each.potential)})"
            for each in self.separations
            if each.name == OTHER_MOLECULES and each.auroc is not None
        ]
        if covered:
            yield f"Intervals of 95 % hold {' and '.join(covered)} of the force components of the test set."
        if apart:
            yield f"Deviations tell molecules that were not trained on from those that were with an AUROC of {' and '.join(apart)}."


def judge_models(
    models: Mapping[str, Model],
    test: Predictions,
    probes: ConformerDataset,
    trained: TrainedOn,
) -> Sureness:
    """Judge the deviations of all models that have a posterior.

    Args:
        models: by name.
        test: what they say of the test set; models that are not in it are asked.
        probes: from stage 08.
        trained: what the models were fitted to.
    """
    sure = {name: model for name, model in models.items() if model.has_posterior}
    calibrations = {name: model.calibration for name, model in sure.items()}
    unasked = {name: model for name, model in sure.items() if name not in test.predicted}
    if unasked:
        said = predict_rows(unasked, test.rows, label=" ".join(unasked))
        test = replace(test, predicted={**test.predicted, **said.predicted})
    of_probes = predict_rows(sure, probe_rows(probes), label="probes")
    same_level = set(trained.levels) == set(probes.level_of_theory.values())
    separations: list[Separation] = []
    for name, calibration in calibrations.items():
        sets = scored_sets(name, test, of_probes, trained.groups[name], calibration, same_level=same_level)
        separations += separate(name, sets)
    return Sureness(judge_predictions(test, calibrations), separations, calibrations)
