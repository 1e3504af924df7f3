"""The sets of one run: what is trained on, what it is validated by, and what it is tested on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pesfit.core.exceptions import Failure, UnknownElementError
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.sources import covers
from pesfit.data.splits import Splits
from pesfit.painn.train.graphs import TrainingData, load_training_data
from pesfit.params.train_learned import TrainLearned


@dataclass(frozen=True, eq=False)
class Sets:
    """What a run looks at.

    Attributes:
        data: by split; `test` where it has conformers.
        failures: records that no network of the training set can evaluate.
    """

    data: dict[str, TrainingData]
    failures: list[Failure]


def load_sets(
    datasets: Mapping[str, ConformerDataset], splits: Splits, params: TrainLearned, stage: str, device: torch.device | str
) -> Sets:
    """Load all splits that have conformers; training and validation set must.

    Args:
        datasets: by name.
        splits: of all conformers.
        params: whose sources, cutoff, `subset_size` and seed say what is taken.
        stage: what failures are failures of.
        device: to compute on.

    Raises:
        DataError: where the training or the validation set is empty.
    """
    cutoff = params.network.cutoff_angstrom

    def is_chosen(record: Record) -> bool:
        return not params.sources or any(covers(name, record.source) for name in params.sources)

    data = {
        "train": load_training_data(
            datasets, splits, "train", cutoff, uses=is_chosen, subset_size=params.subset_size, seed=params.seed
        )
    }
    known = set(data["train"].elements)
    failures: dict[str, Failure] = {}

    def can_be_evaluated(record: Record) -> bool:
        unknown = sorted(set(record.atomic_numbers.tolist()) - known)
        if unknown and is_chosen(record):
            message = f"atomic numbers {', '.join(str(number) for number in unknown)} are not in the training set"
            failures[record.id] = Failure(record.id, stage, UnknownElementError.__name__, message)
        return is_chosen(record) and not unknown

    data["validation"] = load_training_data(datasets, splits, "validation", cutoff, uses=can_be_evaluated)
    if _has_conformers(datasets, splits, "test", can_be_evaluated):
        data["test"] = load_training_data(datasets, splits, "test", cutoff, uses=can_be_evaluated)
    return Sets({split: part.to(device) for split, part in data.items()}, list(failures.values()))


def _has_conformers(
    datasets: Mapping[str, ConformerDataset], splits: Splits, split: str, uses: Callable[[Record], bool]
) -> bool:
    return any(
        len(splits.conformers(name, record.id, split)) > 0
        for name, dataset in datasets.items()
        for record in dataset
        if uses(record)
    )
