"""The whole of stage 09: everything that the pipeline left, as one page with its figures and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pesfit.analyse.domain import Separation, probe_rows, scored_sets, separate, training_groups
from pesfit.analyse.errors import ALL, FORCE_UNIT, summaries
from pesfit.analyse.output import TABLES, write_report
from pesfit.analyse.parity import parity, write_parity
from pesfit.analyse.predictions import Predictions, predict_rows, predict_test
from pesfit.analyse.published import count_frames
from pesfit.analyse.rows import count_training_sizes
from pesfit.analyse.sections import errors, failures, learning, parameters, rollouts, run, summary, uncertainty
from pesfit.analyse.sections.learning import Training
from pesfit.analyse.sections.parameter_changes import Fit
from pesfit.analyse.sections.rollout_measures import Rollouts
from pesfit.analyse.sections.run import Run
from pesfit.analyse.sections.summary import ForceError, Headlines
from pesfit.analyse.uncertainty import Judged, judge_predictions
from pesfit.dataset import ConformerDataset, open_datasets
from pesfit.models.base import Model
from pesfit.models.fitted import LEARNED, SMIRNOFF, open_fitted
from pesfit.params.load import Params
from pesfit.params.rollout import PotentialName
from pesfit.potentials.painn import Variant
from pesfit.runtime import METRICS
from pesfit.simulate.rollout import PROBES
from pesfit.splits import Splits
from pesfit.topology import ParameterizedSet
from pesfit.train.metrics import Bootstrap

TITLE = "Fitted potential-energy surfaces"
FITTED: tuple[PotentialName, ...] = ("smirnoff-initial", "smirnoff", "conservative", "direct")
_MAE = f"force_mae_{FORCE_UNIT}"


@dataclass(frozen=True)
class Inputs:
    """Where the report reads; by default as the stages write it.

    Attributes:
        data: with `arrow`, `parameterized`, `clustered` and `splits`.
        smirnoff: output of stage 06.
        learned: outputs of stage 07, by variant.
        rollouts: output of stage 08.
        metrics: of all stages.
    """

    data: Path = Path("data")
    smirnoff: Path = SMIRNOFF
    learned: Path = LEARNED
    rollouts: Path = Path("outputs/rollouts")
    metrics: Path = METRICS


def analyse(params: Params, output: Path, inputs: Inputs = Inputs()) -> dict[str, Any]:
    """Evaluate what was fitted on the test set, and write the report.

    Writes to `output` what `output.write_report` says, and `tables/parity-*.csv` for `dvc plots`.

    Args:
        params: all of params.yaml: the report says what was run.
        output: folder.
        inputs: what earlier stages left.

    Returns:
        Metrics: test errors of each potential, by source.

    Raises:
        DataError: where an earlier stage has not written its output, or it is damaged.
        TooManyFailuresError: where more than `analyse.max_failed_fraction` of the test set cannot be evaluated.
    """
    datasets = open_datasets(inputs.data / "clustered")
    splits = Splits.open(inputs.data / "splits/splits.arrow")
    models = open_fitted(FITTED, inputs.data / "parameterized", inputs.smirnoff, inputs.learned)
    predictions = predict_test(
        models,
        datasets,
        splits,
        ParameterizedSet.open(inputs.data / "parameterized"),
        max_failed_fraction=params.analyse.max_failed_fraction,
    )
    found = summaries(predictions, Bootstrap(params.analyse.bootstrap, params.analyse.seed))
    judged, separations = _uncertainty(predictions, models, datasets, splits, params, inputs)
    simulated = Rollouts.read(inputs.rollouts, inputs.metrics / "rollout.json")
    sections = [
        summary.section(Headlines("force MAE", _headlines(found), simulated.drifts(), simulated.stable())),
        run.section(Run.read(params, inputs.data / "arrow", inputs.metrics)),
        *errors.sections(
            predictions, found, params.analyse, count_frames(datasets, splits), count_training_sizes(datasets, splits)
        ),
        rollouts.section(simulated),
        uncertainty.section(judged, separations, {name: model.calibration for name, model in models.items()}),
        learning.section([_training(variant, inputs) for variant in get_args(Variant)]),
        parameters.section(Fit.read(inputs.smirnoff, inputs.metrics / "fit_smirnoff.json", params.fit_smirnoff)),
        failures.section(failures.read_all(_failure_files(inputs)) | {"09_analyse": predictions.failures}),
    ]
    write_report(
        output,
        TITLE,
        f"Profile `{params.profile}`: SMIRNOFF and PaiNN fitted to quantum-chemical energies and forces",
        sections,
    )
    _write_parity(predictions, params, output / TABLES)
    return {
        "failures": len(predictions.failures),
        "errors": found,
        "uncertainty": _uncertainty_metrics(judged, separations),
    }


def _uncertainty(  # noqa: PLR0913, PLR0917 - all that the stage has read
    test: Predictions,
    models: Mapping[str, Model],
    datasets: Mapping[str, ConformerDataset],
    splits: Splits,
    params: Params,
    inputs: Inputs,
) -> tuple[list[Judged], list[Separation]]:
    """Judge the deviations of all potentials that have a posterior, on the test set and on probes."""
    bootstrap = Bootstrap(params.analyse.bootstrap, params.analyse.seed)
    sure = {name: model for name, model in models.items() if model.has_posterior}
    calibrations = {name: model.calibration for name, model in sure.items()}
    made = ConformerDataset(inputs.rollouts / PROBES)
    probes = predict_rows(sure, probe_rows(made), label=PROBES)
    levels = {level for dataset in datasets.values() for level in dataset.level_of_theory.values()}
    separations: list[Separation] = []
    for name, calibration in calibrations.items():
        sources = params.train_learned.sources if name in get_args(Variant) else ()
        sets = scored_sets(
            name,
            test,
            probes,
            training_groups(datasets, splits, sources),
            calibration,
            same_level=levels == set(made.level_of_theory.values()),
        )
        separations += separate(name, sets, bootstrap)
    return judge_predictions(test, calibrations, bootstrap), separations


def _uncertainty_metrics(judged: Sequence[Judged], separations: Sequence[Separation]) -> dict[str, Any]:
    """Return what `dvc metrics diff` compares: for each potential how well it is calibrated, and what it tells apart."""
    found: dict[str, Any] = {}
    for each in judged:
        if each.source == ALL:
            found.setdefault(each.potential, {})[each.quantity] = {
                "negative_log_likelihood": each.judgement.nll,
                "expected_calibration_error": each.judgement.ece,
                "coverage_95": each.judgement.coverage_95,
                "rank_correlation": each.judgement.rank_correlation,
            }
    for separation in separations:
        if separation.auroc is not None:
            found.setdefault(separation.potential, {}).setdefault("auroc", {})[separation.name] = separation.auroc
    return found


def _headlines(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[ForceError]:
    return [
        ForceError(potential, source, errors[_MAE], *(errors[f"{_MAE}_interval_95"] or (None, None)))
        for potential, of_sources in found.items()
        for source, errors in of_sources.items()
        if source != ALL and _MAE in errors
    ]


def _training(variant: str, inputs: Inputs) -> Training:
    return Training.read(variant, inputs.learned / variant, inputs.metrics / f"train_learned-{variant}.json")


def _failure_files(inputs: Inputs) -> dict[str, list[Path]]:
    return {
        "02_convert": sorted((inputs.data / "arrow").glob("*/failures.csv")),
        "03_parameterize": [inputs.data / "parameterized/failures.csv"],
        "04_cluster": [inputs.data / "clustered/failures.csv"],
        "06_fit_smirnoff": [inputs.smirnoff / "failures.csv"],
        **{f"07_train_learned@{variant}": [inputs.learned / variant / "failures.csv"] for variant in get_args(Variant)},
        "08_rollout": [inputs.rollouts / "failures.csv", inputs.rollouts / PROBES / "failures.csv"],
    }


def _write_parity(predictions: Predictions, params: Params, tables: Path) -> None:
    for quantity in ("energy", "forces"):
        points = parity(predictions, quantity)
        write_parity(tables / f"parity-{quantity}.csv", points, params.analyse.parity_points, params.analyse.seed)
