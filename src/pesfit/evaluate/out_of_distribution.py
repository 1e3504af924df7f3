"""Detection of conformers that are out of distribution, from scores of the test set, of other molecules, and of probes.

The score of a conformer is the standard deviation of the force on its least certain atom (`StandardDeviations.score`). AUROC compares the
scores of a set from outside with those of the test conformers of molecules that have training conformers, which are inside.
`Calibration.threshold_of` flags conformers; of those inside, hardly any should be flagged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray
from pesfit.data.dataset import ConformerDataset
from pesfit.data.sources import covers
from pesfit.data.splits import Splits
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.predictions import Predicted, Predictions, force_pairs
from pesfit.statistics.errors import numbers_of
from pesfit.statistics.resampling import Interval, Units, units_of
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.scores import auroc, auroc_interval, half_width

INSIDE, OTHER_MOLECULES = "in distribution", "another molecule"
"""Names of sets: test conformers of molecules with training conformers, and of molecules without."""
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the conformers of one set by a model with a posterior.

    Attributes:
        score: [kcal/mol/Å], shape (n_conformers,).
        errors, std: prediction minus label and predicted standard deviation of labeled force components [kcal/mol/Å], shape
            (n_components,).
        n_molecules: number of molecules.
        units: of resampling, of each conformer; None where there are too few.
        flagged: whether the score is above the threshold of the molecule; empty where there is none, shape (n_conformers,).
    """

    score: FloatArray
    errors: FloatArray
    std: FloatArray
    n_molecules: int
    units: Units | None
    flagged: BoolArray


@dataclass(frozen=True)
class Separation:
    """Separation of one set from what is in distribution, by the scores of a model.

    Attributes:
        potential: name of the model.
        name: of the set: `INSIDE`, `OTHER_MOLECULES`, or the source of probes.
        n_conformers, n_molecules: in it.
        auroc: against `INSIDE`; None for that set itself, or where nothing is inside.
        auroc_interval: over resamples of both sets; None where either has too few units.
        flagged: share of conformers above the threshold of their molecule; None without one.
        coverage_95: share of force components within the interval of nominal coverage 0.95; None without labels that can be compared.
        median_score: [kcal/mol/Å].
        force_rmse: [kcal/mol/Å]; None where `coverage_95` is.
    """

    potential: str
    name: str
    n_conformers: int
    n_molecules: int
    auroc: float | None
    auroc_interval: Interval | None
    flagged: float | None
    coverage_95: float | None
    median_score: float
    force_rmse: float | None


def training_groups(datasets: Mapping[str, ConformerDataset], splits: Splits, sources: Sequence[str] = ()) -> frozenset[str]:
    """Return the groups of molecules that have training conformers.

    Args:
        datasets: by name.
        splits: of these data sets.
        sources: that are trained on (`data.sources.covers`); without any, all.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    return frozenset(
        group
        for name, dataset in datasets.items()
        for id_, group, source in zip(
            *(dataset.table.column(key).to_pylist() for key in ("id", "group", "source")), strict=True
        )
        if len(splits.conformers(name, id_, "train")) and (not sources or any(covers(wanted, source) for wanted in sources))
    )


def probe_rows(dataset: ConformerDataset, name: str = "probes") -> list[LabeledRow]:
    """Return all conformers of a data set of probes, with the charges that it holds.

    Args:
        dataset: as `simulate.probes.write_probes` writes it.
        name: in messages.
    """
    return [LabeledRow.of(name, record, record.charges) for record in dataset]


def scored_sets(  # noqa: PLR0913 - two sets of predictions, and what they are sorted by
    potential: str,
    test: Predictions,
    probes: Predictions,
    trained: Collection[str],
    calibration: Calibration | None,
    *,
    same_level: bool,
) -> dict[str, Scored]:
    """Sort the predictions of a model with a posterior into sets; those that are empty are left out.

    Args:
        potential: name of the model.
        test: predictions for the test set.
        probes: predictions for probes. Those of molecules that it was not trained on show nothing of heat or stretched bonds, and are left
            out.
        trained: groups with training conformers.
        calibration: of the model, with its thresholds.
        same_level: whether the probes' labels are of the level of theory that the model was trained on; only then errors count.
    """
    sets: dict[str, list[tuple[LabeledRow, Predicted]]] = {INSIDE: [], OTHER_MOLECULES: []}
    for row, predicted in test.of(potential):
        sets[INSIDE if row.group in trained else OTHER_MOLECULES].append((row, predicted))
    for row, predicted in probes.of(potential):
        if row.group in trained:
            sets.setdefault(row.source, []).append((row, predicted))
    return {
        name: _scored(rows, calibration or Calibration(), with_errors=same_level or name in (INSIDE, OTHER_MOLECULES))
        for name, rows in sets.items()
        if rows
    }


def separate(potential: str, sets: Mapping[str, Scored]) -> list[Separation]:
    """Compare each set with what is inside.

    Args:
        potential: name of the model.
        sets: from `scored_sets`.
    """
    inside = sets.get(INSIDE)
    found = []
    for name, scored in sets.items():
        reference = None if inside is None or name == INSIDE else inside.score
        errors = np.abs(scored.errors)
        found.append(
            Separation(
                potential=potential,
                name=name,
                n_conformers=len(scored.score),
                n_molecules=scored.n_molecules,
                auroc=None if reference is None else auroc(reference, scored.score),
                auroc_interval=None
                if inside is None or reference is None
                else auroc_interval(reference, scored.score, inside.units, scored.units),
                flagged=float(np.mean(scored.flagged)) if len(scored.flagged) else None,
                coverage_95=float(np.mean(errors <= half_width(_LEVEL) * scored.std)) if len(errors) else None,
                median_score=float(np.median(scored.score)),
                force_rmse=float(np.sqrt(np.mean(errors**2))) if len(errors) else None,
            )
        )
    return found


def _scored(rows: Sequence[tuple[LabeledRow, Predicted]], calibration: Calibration, *, with_errors: bool) -> Scored:
    scored = [(row, predicted, predicted.std.score) for row, predicted in rows if predicted.std is not None]
    scores = np.concatenate([np.zeros(0), *(score for *_, score in scored)])
    thresholds = [calibration.threshold_of(row.group) for row, *_ in scored]
    flagged = [score > threshold for (*_, score), threshold in zip(scored, thresholds, strict=True) if threshold is not None]
    pairs = [force_pairs(row, predicted) for row, predicted, _ in scored if with_errors]
    molecules = [(row.dataset, row.group) for row, *_ in scored for _ in range(row.n_conformers)]
    return Scored(
        score=scores,
        errors=np.concatenate([np.zeros(0), *(errors for errors, _ in pairs)]),
        std=np.concatenate([np.zeros(0), *(std for _, std in pairs)]),
        n_molecules=len({row.group for row, _ in rows}),
        units=units_of(numbers_of(molecules), scores[:, None]),
        flagged=np.concatenate([np.zeros(0, dtype=np.bool_), *flagged]),
    )
