"""Stage 09: evaluate all fitted models on the test set, and write one page with its figures and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pesfit.core.files import FAILURES_FILE
from pesfit.core.runtime import METRICS
from pesfit.data.dataset import ConformerDataset, open_datasets
from pesfit.data.rollouts import PROBES
from pesfit.data.splits import Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.breakdown import count_training_sizes
from pesfit.evaluate.out_of_distribution import training_groups
from pesfit.evaluate.predictions import predict_test, summaries
from pesfit.evaluate.uncertainty_scores import TrainedOn, score_models
from pesfit.models.open import LEARNED, SMIRNOFF, open_fitted
from pesfit.painn.model import has_ensemble, open_ensemble
from pesfit.painn.potential import Variant
from pesfit.params.evaluation import PotentialName
from pesfit.params.load import Params
from pesfit.report.page.blocks import Block, Text
from pesfit.report.page.output import TABLES, write_report
from pesfit.report.reading import read_failures_by_stage
from pesfit.report.sections import (
    benchmark,
    benchmark_figures,
    breakdown,
    errors,
    learning,
    parameters,
    rollouts,
    run,
    summary,
    uncertainty,
)
from pesfit.report.sections.parity import parity, parity_section, write_parity
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT, interval_of

TITLE = "Fitted potential-energy surfaces"
FITTED: tuple[PotentialName, ...] = ("smirnoff-initial", "smirnoff", "conservative", "direct")
ENSEMBLE = "ensemble"
_MAE = f"force_mae_{FORCE_UNIT}"

DATA, ROLLOUTS, BENCHMARK = Path("data"), Path("outputs/rollouts"), Path("outputs/benchmark")
_FAILURES = {
    "03_parameterize": [DATA / "parameterized"],
    "04_cluster": [DATA / "clustered"],
    "06_fit_smirnoff": [SMIRNOFF],
    **{f"07_train_learned@{variant}": [LEARNED / variant] for variant in get_args(Variant)},
    "08_rollout": [ROLLOUTS, ROLLOUTS / PROBES],
    "benchmark": [BENCHMARK],
}
"""Folders with a table of failures."""


def analyse(params: Params, output: Path) -> dict[str, Any]:
    """Evaluate all fitted models on the test set, and write the report.

    Writes to `output` the files of `output.write_report`, and `tables/parity-*.csv` for `dvc plots`.

    Args:
        params: all of params.yaml: the report lists what differs from the defaults.
        output: folder.

    Returns:
        Metrics: test errors of each potential, by source.

    Raises:
        DataError: where an earlier stage has not written its output, or it is damaged.
        TooManyFailuresError: where more than `analyse.max_failed_fraction` of the test set cannot be evaluated.
    """
    datasets = open_datasets(DATA / "clustered")
    splits = Splits.open(DATA / "splits/splits.arrow")
    parameterized = DATA / "parameterized"
    models = open_fitted(FITTED, parameterized, SMIRNOFF, LEARNED)
    limit = params.analyse.max_failed_fraction
    predictions = predict_test(models, datasets, splits, ParameterizedSet.open(parameterized), max_failed_fraction=limit)
    found = summaries(predictions)
    if has_ensemble(LEARNED / "conservative"):
        models[ENSEMBLE] = open_ensemble(LEARNED / "conservative")
    trained = _trained_on(models, datasets, splits, params.train_learned.sources)
    scores = score_models(models, predictions, ConformerDataset(ROLLOUTS / PROBES), trained)
    simulated = rollouts.Rollouts.read(ROLLOUTS, METRICS / "rollout.json")
    points = [parity(predictions, "energy"), parity(predictions, "forces")]
    trainings = [
        learning.Training.read(variant, LEARNED / variant, METRICS / f"train_learned-{variant}.json")
        for variant in get_args(Variant)
    ]
    compared = benchmark.BenchmarkResults.read(BENCHMARK, METRICS / "benchmark.json")
    headlines = summary.Headlines(
        "force MAE",
        _force_errors(found),
        simulated.drifts(),
        simulated.stable(),
        [*uncertainty.sentences(scores)],
        _benchmark_blocks(compared, found),
    )
    failure_files = {"02_convert": sorted((DATA / "arrow").glob(f"*/{FAILURES_FILE}"))}
    failure_files |= {stage: [folder / FAILURES_FILE for folder in folders] for stage, folders in _FAILURES.items()}
    sections = [
        summary.section(headlines),
        benchmark.section(compared, benchmark_figures.figures(compared) if compared.subsets else []),
        run.run_section(run.RunSummary.read(params, DATA / "arrow", METRICS)),
        errors.section(predictions, found, errors.count_frames(datasets, splits)),
        parity_section(points),
        *breakdown.sections(predictions, found, params.analyse, count_training_sizes(datasets, splits)),
        rollouts.section(simulated),
        uncertainty.section(scores),
        learning.section(trainings),
        parameters.section(parameters.SmirnoffFit.read(SMIRNOFF, METRICS / "fit_smirnoff.json")),
        run.failures_section(read_failures_by_stage(failure_files) | {"09_analyse": predictions.failures}),
    ]
    subtitle = f"Profile `{params.profile}`: SMIRNOFF and PaiNN fitted to quantum-chemical energies and forces"
    write_report(output, TITLE, subtitle, sections)
    for each in points:
        path = output / TABLES / f"parity-{each.quantity}.csv"
        write_parity(path, each, params.analyse.parity_points, params.analyse.seed)
    return {"failures": len(predictions.failures), "errors": found, "uncertainty": scores.metrics()}


def _trained_on(
    names: Iterable[str], datasets: Mapping[str, ConformerDataset], splits: Splits, networks: Sequence[str]
) -> TrainedOn:
    """Gather the training molecules of each model; the networks may be trained on some of the sources alone."""
    by_fit, by_networks = training_groups(datasets, splits), training_groups(datasets, splits, networks)
    levels = {level for dataset in datasets.values() for level in dataset.level_of_theory.values()}
    return TrainedOn({name: by_fit if name == "smirnoff" else by_networks for name in names}, levels)


def _benchmark_blocks(
    compared: benchmark.BenchmarkResults, found: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[Block]:
    """Return what the page begins with: the benchmark in words, as a table, and as a figure."""
    of_test = {
        f"{label}, {unit}": {name: of[ALL][key] for name, of in found.items() if key in of.get(ALL, {})}
        for label, unit, key in (
            ("RMSE of forces", "kcal/mol/Å", f"force_rmse_{FORCE_UNIT}"),
            ("RMSE of relative energies", "kcal/mol", f"energy_rmse_{ENERGY_UNIT}"),
        )
    }
    if not compared.subsets:  # published data alone: no molecule has minima
        return []
    figure = benchmark_figures.headline_figure(compared)
    table = benchmark.headline_table(compared, of_test)
    return [*map(Text, benchmark.sentences(compared)), table, *([] if figure is None else [figure])]


def _force_errors(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[summary.ForceError]:
    return [
        summary.ForceError(potential, source, values[_MAE], *(interval_of(values, _MAE) or (None, None)))
        for potential, of_sources in found.items()
        for source, values in of_sources.items()
        if source != ALL and _MAE in values
    ]
