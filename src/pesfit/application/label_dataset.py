"""New labels for all or some conformers of a data set, from GFN2-xTB or any model: a trajectory becomes training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pesfit.application.labeler import Labeler, label, score
from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, Failure, ParamsError
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.core.runtime import output_folder
from pesfit.data.dataset import ConformerDataset, DatasetWriter, write_failures

PREFIX = "labeled"
"""`source` of a labeled row is this, a slash and its old source, where no other name is asked for."""


@dataclass(frozen=True)
class Selection:
    """Conformers of a data set to label.

    Attributes:
        every: take the first conformer of each row and every `every`-th after it.
        max_conformers: of these at most this number, evenly spread over the data set; None takes all.
        most_uncertain: of these this number with the largest score of `by`; None takes all.
        by: a model with a posterior.
    """

    every: int = 1
    max_conformers: int | None = None
    most_uncertain: int | None = None
    by: Labeler | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ParamsError: naming the option, its value and what is allowed.
        """
        for option, value in (
            ("--every", self.every),
            ("--max-conformers", self.max_conformers),
            ("--most-uncertain", self.most_uncertain),
        ):
            if value is not None and value < 1:
                raise ParamsError(f"{option} {value}: at least 1 is needed")
        if self.max_conformers is not None and self.most_uncertain is not None:
            raise ParamsError("--max-conformers and --most-uncertain choose in different ways; expected one of them")
        if self.most_uncertain is None and self.by is not None:
            raise ParamsError(f"--by {self.by.name}: only --most-uncertain asks a model which conformers to take")


@dataclass(frozen=True)
class LabelSummary:
    """Numbers of rows and conformers that were written or left out.

    Attributes:
        n_rows: rows.
        n_conformers: conformers.
        n_left_out: selected conformers without labels.
        failures: the reasons, one for each row concerned.
    """

    n_rows: int
    n_conformers: int
    n_left_out: int
    failures: tuple[Failure, ...]


def label_dataset(
    labeler: Labeler,
    dataset: ConformerDataset,
    output: Path,
    selection: Selection | None = None,
    source: str | None = None,
) -> LabelSummary:
    """Write a data set like another, with a model's energies and forces, and `failures.csv` in its folder.

    Everything else is kept: id, SMILES, group, frames, charges. Rows without a conformer that has labels are left out. Files do not
    depend on the number of worker processes. The folder appears when it is whole.

    Args:
        labeler: the model.
        dataset: with any labels.
        output: folder that does not exist yet.
        selection: of conformers; None for all. Where it names no model for the scores, they are those of the labeler.
        source: of all rows; `labeled/<the old source>` where None.

    Raises:
        ParamsError: if `output` exists or lies in the data set's folder, or `source` is empty.
        DataError: if the model cannot be opened, or labels none of the conformers.
        ForceFieldError: if its force field cannot be read.
    """
    _check(dataset, output, source)
    labeler.open()  # so that a model that cannot be opened is one error, before processes start
    selection = selection or Selection()
    if selection.most_uncertain is not None and selection.by is None:
        selection = replace(selection, by=labeler)
    selected, failures = select(dataset, selection)
    records = (
        replace(record, source=source or f"{PREFIX}/{record.source}")
        for record in (dataset[row].select(positions) for row, positions in selected.items())
    )
    sources = {source or f"{PREFIX}/{name}" for name in dataset.table.column("source").unique().to_pylist()}
    n_conformers, n_left_out = 0, 0
    with output_folder(output) as folder:
        with DatasetWriter(folder, dict.fromkeys(sources, labeler.level_of_theory)) as writer:
            for labeled in ordered_map(partial(label, labeler), records, label="label", n_items=len(selected), unit="row"):
                n_left_out += labeled.n_left_out
                if labeled.failure is not None:
                    failures.append(labeled.failure)
                if labeled.record is not None:
                    n_conformers += labeled.record.n_conformers
                    writer.write(labeled.record)
            if not n_conformers:
                raise DataError(
                    f"{labeler.name} labels none of the {sum(map(len, selected.values()))} conformers of {dataset.path}; the first "
                    f"failed: {failures[0].id}: {failures[0].message}"
                )
        write_failures(folder / FAILURES_FILE, failures)
    return LabelSummary(writer.n_records, n_conformers, n_left_out, tuple(failures))


def _check(dataset: ConformerDataset, output: Path, source: str | None) -> None:
    if source is not None and not source.strip():
        raise ParamsError(f"--source {source!r}: expected a name that is not empty")
    if output.exists() or output.is_symlink():
        raise ParamsError(f"{output} exists already; expected the name of a folder to be made")
    if output.resolve().is_relative_to(dataset.path.resolve()):
        raise ParamsError(f"{output} lies in {dataset.path}, which is read; expected a folder elsewhere")


def select(dataset: ConformerDataset, selection: Selection) -> tuple[dict[int, LongArray], list[Failure]]:
    """Select conformers.

    Returns:
        Positions of conformers in each row that has any, ascending, and a failure for each row that `by` could not evaluate.

    Raises:
        DataError: if the data set has no conformer, or `by` has no posterior or cannot be opened.
    """
    counts = pc.list_value_length(dataset.table.column("energy")).to_pylist()
    rows = np.repeat(np.arange(len(counts)), [-(-count // selection.every) for count in counts])
    positions = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(0, count, selection.every) for count in counts)])
    if not len(rows):
        raise DataError(f"{dataset.path} holds no conformer")
    index = np.arange(len(rows))
    failures: list[Failure] = []
    if selection.max_conformers is not None and selection.max_conformers < len(rows):
        index = (2 * np.arange(selection.max_conformers) + 1) * len(rows) // (2 * selection.max_conformers)
    elif selection.most_uncertain is not None and selection.by is not None:
        index, failures = _most_uncertain(dataset, _by_row(rows, positions), selection.by, selection.most_uncertain)
    return _by_row(rows[index], positions[index]), failures


def _most_uncertain(
    dataset: ConformerDataset, candidates: Mapping[int, LongArray], by: Labeler, n_wanted: int
) -> tuple[LongArray, list[Failure]]:
    """Return the indices of the candidates with the highest scores, and the failures of rows that have none."""
    if not by.open().has_posterior:
        raise DataError(
            f"--most-uncertain: {by.name} has no posterior; name a model that has one with --by, such as outputs/smirnoff"
        )
    records = (dataset[row].select(positions) for row, positions in candidates.items())
    scores, failures = [], []
    answers = ordered_map(partial(score, by), records, label="score", n_items=len(candidates), unit="row")
    for answer, positions in zip(answers, candidates.values(), strict=True):
        if isinstance(answer, Failure):
            failures.append(answer)
        scores.append(np.full(len(positions), np.nan) if isinstance(answer, Failure) else answer)
    all_scores = np.concatenate(scores)
    n_known = int(np.isfinite(all_scores).sum())
    if not n_known:
        why = f"; the first failed: {failures[0].message}" if failures else ""
        raise DataError(f"--most-uncertain: {by.name} has no standard deviations for any conformer{why}")
    order = np.argsort(
        np.where(np.isfinite(all_scores), -all_scores, np.inf), kind="stable"
    )  # of equals, the first in the data
    return np.sort(order[: min(n_known, n_wanted)]), failures


def _by_row(rows: LongArray, positions: LongArray) -> dict[int, LongArray]:
    """Collect positions by row; both in the order of the data."""
    found, starts = np.unique(rows, return_index=True)
    return {int(row): part for row, part in zip(found, np.split(positions, starts[1:]), strict=True)}
