"""The whole of stage 09: everything that the pipeline left, as one page with its figures and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pesfit.core.files import FAILURES_FILE
from pesfit.core.runtime import METRICS
from pesfit.data.dataset import ConformerDataset, open_datasets
from pesfit.data.rollouts import PROBES
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.errors import summaries
from pesfit.evaluate.out_of_distribution import training_groups
from pesfit.evaluate.predictions import Predictions, predict_test
from pesfit.evaluate.sureness import TrainedOn, judge_models
from pesfit.evaluate.test_rows import count_training_sizes
from pesfit.models.open import LEARNED, SMIRNOFF, open_fitted
from pesfit.painn.model import has_ensemble, open_ensemble
from pesfit.painn.potential import Variant
from pesfit.params.evaluation import PotentialName
from pesfit.params.load import Params
from pesfit.report.page.output import TABLES, write_report
from pesfit.report.parity import parity, write_parity
from pesfit.report.published import count_frames
from pesfit.report.sections import errors, failures, learning, parameters, rollouts, run, summary, uncertainty
from pesfit.report.sections.learning import Training
from pesfit.report.sections.parameter_changes import Fit
from pesfit.report.sections.rollout_measures import Rollouts
from pesfit.report.sections.run import Run
from pesfit.report.sections.summary import ForceError, Headlines
from pesfit.statistics.errors import ALL, FORCE_UNIT, interval_of

TITLE = "Fitted potential-energy surfaces"
FITTED: tuple[PotentialName, ...] = ("smirnoff-initial", "smirnoff", "conservative", "direct")
ENSEMBLE = "ensemble"
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
    found = summaries(predictions)
    if has_ensemble(inputs.learned / "conservative"):
        models[ENSEMBLE] = open_ensemble(inputs.learned / "conservative")
    trained = _trained_on(models, datasets, splits, params.train_learned.sources)
    sureness = judge_models(models, predictions, ConformerDataset(inputs.rollouts / PROBES), trained)
    simulated = Rollouts.read(inputs.rollouts, inputs.metrics / "rollout.json")
    sections = [
        summary.section(
            Headlines("force MAE", _headlines(found), simulated.drifts(), simulated.stable(), [*sureness.sentences()])
        ),
        run.section(Run.read(params, inputs.data / "arrow", inputs.metrics)),
        *errors.sections(
            predictions, found, params.analyse, count_frames(datasets, splits), count_training_sizes(datasets, splits)
        ),
        rollouts.section(simulated),
        uncertainty.section(sureness.judged, sureness.separations, sureness.calibrations),
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
        "uncertainty": sureness.metrics(),
    }


def _trained_on(
    names: Iterable[str], datasets: Mapping[str, ConformerDataset], splits: Splits, networks: Sequence[str]
) -> TrainedOn:
    """Say what was trained on; the networks may have seen some of the sources alone."""
    by_fit, by_networks = training_groups(datasets, splits), training_groups(datasets, splits, networks)
    levels = {level for dataset in datasets.values() for level in dataset.level_of_theory.values()}
    return TrainedOn({name: by_fit if name == "smirnoff" else by_networks for name in names}, levels)


def _headlines(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[ForceError]:
    return [
        ForceError(potential, source, errors[_MAE], *(interval_of(errors, _MAE) or (None, None)))
        for potential, of_sources in found.items()
        for source, errors in of_sources.items()
        if source != ALL and _MAE in errors
    ]


def _training(variant: str, inputs: Inputs) -> Training:
    return Training.read(variant, inputs.learned / variant, inputs.metrics / f"train_learned-{variant}.json")


def _failure_files(inputs: Inputs) -> dict[str, list[Path]]:
    return {
        "02_convert": sorted((inputs.data / "arrow").glob(f"*/{FAILURES_FILE}")),
        "03_parameterize": [inputs.data / "parameterized" / FAILURES_FILE],
        "04_cluster": [inputs.data / "clustered" / FAILURES_FILE],
        "06_fit_smirnoff": [inputs.smirnoff / FAILURES_FILE],
        **{f"07_train_learned@{variant}": [inputs.learned / variant / FAILURES_FILE] for variant in get_args(Variant)},
        "08_rollout": [inputs.rollouts / FAILURES_FILE, inputs.rollouts / PROBES / FAILURES_FILE],
    }


def _write_parity(predictions: Predictions, params: Params, tables: Path) -> None:
    for quantity in ("energy", "forces"):
        points = parity(predictions, quantity)
        write_parity(tables / f"parity-{quantity}.csv", points, params.analyse.parity_points, params.analyse.seed)
