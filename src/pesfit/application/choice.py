"""Which conformers of a data set are labelled: all, some of them evenly, or those a model is least sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow.compute as pc

from pesfit.application.teacher import Teacher, score
from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, Failure, ParamsError
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import ConformerDataset


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        every: take the first conformer of each row and every so-many-th after it.
        max_conformers: of these at most so many in all, evenly spread over the data set; None takes all.
        most_uncertain: of these the so many that `by` is least sure of; None takes all.
        by: a model with a posterior.
    """

    every: int = 1
    max_conformers: int | None = None
    most_uncertain: int | None = None
    by: Teacher | None = None

    def __post_init__(self) -> None:
        """Check what is asked for.

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
class Chosen:
    """Positions of conformers in each row that has any, ascending; and the rows that `by` could not be asked about."""

    conformers: Mapping[int, LongArray]
    failures: Sequence[Failure] = field(default_factory=tuple)

    @property
    def n_conformers(self) -> int:
        """How many there are in all."""
        return sum(map(len, self.conformers.values()))


def choose(dataset: ConformerDataset, choice: Choice) -> Chosen:
    """Choose conformers.

    Raises:
        DataError: if nothing is left to choose from, or `by` has no posterior or cannot be opened.
    """
    counts = pc.list_value_length(dataset.table.column("energy")).to_pylist()
    rows = np.repeat(np.arange(len(counts)), [-(-count // choice.every) for count in counts])
    positions = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(0, count, choice.every) for count in counts)])
    if not len(rows):
        raise DataError(f"{dataset.path} holds no conformer")
    index = np.arange(len(rows))
    failures: Sequence[Failure] = ()
    if choice.max_conformers is not None and choice.max_conformers < len(rows):
        index = (2 * np.arange(choice.max_conformers) + 1) * len(rows) // (2 * choice.max_conformers)
    elif choice.most_uncertain is not None and choice.by is not None:
        index, failures = _least_sure(dataset, _by_row(rows, positions), choice.by, choice.most_uncertain)
    return Chosen(_by_row(rows[index], positions[index]), failures)


def _least_sure(
    dataset: ConformerDataset, candidates: Mapping[int, LongArray], by: Teacher, n_wanted: int
) -> tuple[LongArray, Sequence[Failure]]:
    """Return which of the candidates, counted through, have the highest scores, and the rows that have none."""
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
        raise DataError(f"--most-uncertain: {by.name} can say of no conformer how unsure it is{why}")
    order = np.argsort(
        np.where(np.isfinite(all_scores), -all_scores, np.inf), kind="stable"
    )  # of equals, the first in the data
    return np.sort(order[: min(n_known, n_wanted)]), failures


def _by_row(rows: LongArray, positions: LongArray) -> dict[int, LongArray]:
    """Collect positions by row; both in the order of the data."""
    found, starts = np.unique(rows, return_index=True)
    return {int(row): part for row, part in zip(found, np.split(positions, starts[1:]), strict=True)}
