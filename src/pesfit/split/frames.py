"""Rules that divide the conformers of each molecule: by frame, by stretches of a trajectory, and as rMD17 was published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, ParamsError
from pesfit.data.splits import SPLITS, TEST, TRAIN, UNUSED, VALIDATION, SplitArray
from pesfit.params.preparation import SplitRule
from pesfit.split.rows import Frames, Row, by_molecule
from pesfit.split.shares import digest, quotas, shares_of, uniform


def split_by_frame(rows: Sequence[Row], rule: SplitRule, seed: int) -> None:
    """Draw the conformers of each molecule at random.

    Args:
        rows: of one source; their `split` is filled in.
        rule: its shares are of the conformers of each molecule.
        seed: of the draws.

    Raises:
        ParamsError: where a molecule has fewer conformers than are asked for.
    """
    for group, molecule in by_molecule(rows).items():
        source = molecule[0].source
        frames = Frames.of(molecule)
        numbers = quotas(
            len(frames), shares_of(rule), uniform(seed, "frame", source, group), what=f"{source}: conformers of {group}"
        )
        draws = [
            digest(seed, "frame", source, frames.rows[row].id, int(frame))
            for row, frame in zip(frames.row, frames.frame, strict=True)
        ]
        frames.assign(_dealt(_order(draws), numbers))


def split_by_block(rows: Sequence[Row], rule: SplitRule, seed: int) -> None:
    """Cut the trajectory of each molecule into stretches, and each stretch into training, validation and test frames.

    Frames that follow each other are nearly the same, so single frames drawn at random would test on what was trained on. Here
    each set is a run of frames in every stretch, in an order drawn anew for each, and where runs of different sets meet, frames are
    left out: `rule.gap` of the trajectory, and whatever the shares leave over, evenly.

    Args:
        rows: of one source; their `split` is filled in.
        rule: its shares are of the frames of each molecule that the gaps leave.
        seed: of the order in each stretch.

    Raises:
        ParamsError: where a trajectory has fewer frames than are asked for.
    """
    for group, molecule in by_molecule(rows).items():
        source = molecule[0].source
        frames = Frames.of(molecule)
        n_usable = len(frames) - int(rule.gap * len(frames))
        what = f"{source}: frames of {group} that gap = {rule.gap:g} leaves of {len(frames)}"
        numbers = quotas(n_usable, shares_of(rule), uniform(seed, "block", source, group), what=what)
        orders = [
            sorted(SPLITS.values(), key=lambda split: digest(seed, "block", source, group, stretch, split))
            for stretch in range(rule.stretches)
        ]
        frames.assign(_runs(len(frames), numbers, orders))


def _runs(n_frames: int, numbers: Sequence[int], orders: Sequence[Sequence[int]]) -> SplitArray:
    """Lay out runs of frames: in each stretch its part of each set, in its order, with the frames left over in between.

    Args:
        n_frames: length of the trajectory.
        numbers: frames of training, validation and test set; their sum is at most `n_frames`.
        orders: for each stretch the order of the three sets.

    Returns:
        the split of each frame, shape (n_frames,).
    """
    runs: list[tuple[int, int]] = []
    for stretch, order in enumerate(orders):
        for split in order:
            length = numbers[split] * (stretch + 1) // len(orders) - numbers[split] * stretch // len(orders)
            if runs and runs[-1][0] == split:
                runs[-1] = (split, runs[-1][1] + length)
            elif length:
                runs.append((split, length))
    n_left_over, n_gaps = n_frames - sum(numbers), max(1, len(runs) - 1)
    result = np.full(n_frames, UNUSED, dtype=np.uint8)
    start = 0
    for i, (split, length) in enumerate(runs):
        result[start : start + length] = split
        start += length + n_left_over * (i + 1) // n_gaps - n_left_over * i // n_gaps
    return result


def split_as_rmd17(rows: Sequence[Row], rule: SplitRule, seed: int, published: Path) -> None:
    """Take the training and test frames of a published rMD17 split.

    The publication (A. S. Christensen and O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018, 2020,
    doi:10.1088/2632-2153/abba6f) gives 1,000 training and 1,000 test frames; validation frames are drawn from the training ones.

    Args:
        rows: of one source; their `split` is filled in.
        rule: train and validation are shares of the published training frames, test of the test frames, that are in the data.
        seed: of the draws among them.
        published: JSON file, `{"1": {"train": [...], "test": [...]}, ...}`, that 02_convert puts beside the data.

    Raises:
        DataError: where the file is missing or malformed.
        ParamsError: where fewer of the published frames are in the data than are asked for.
    """
    train, test = _read_published(published, rule.number)
    for group, molecule in by_molecule(rows).items():
        source = molecule[0].source
        frames = Frames.of(molecule)
        split = np.full(len(frames), UNUSED, dtype=np.uint8)
        for name, listed, shares in (("training", train, shares_of(rule)[:2]), ("test", test, shares_of(rule)[2:])):
            there = np.flatnonzero(np.isin(frames.frame, listed))
            what = f"{source}: of the {len(listed)} {name} frames of split {rule.number}, {group}"
            draw = uniform(seed, "rmd17", rule.number, name, source, group)
            numbers = quotas(len(there), shares, draw, what=what)
            order = _order([digest(seed, "rmd17", rule.number, source, group, int(frame)) for frame in frames.frame[there]])
            split[there] = _dealt(order, numbers, (TRAIN, VALIDATION) if name == "training" else (TEST,))
        frames.assign(split)


def _read_published(path: Path, number: int) -> tuple[LongArray, LongArray]:
    try:
        entry = json.loads(path.read_text())[str(number)]
        train, test = (np.asarray(entry[name], dtype=np.int64) for name in ("train", "test"))
    except FileNotFoundError as error:
        raise ParamsError(f"split.rules: by: rmd17 needs {path}, which only the rmd17 source has; use another rule") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not hold training and test frames of split {number}: {type(error).__name__}: {error}"
        ) from error
    both = np.intersect1d(train, test)
    if len(both):
        raise DataError(f"{path}: split {number} has frame {both[0]} both in training and in test")
    return train, test


def _order(draws: Sequence[bytes]) -> LongArray:
    return np.asarray(sorted(range(len(draws)), key=draws.__getitem__), dtype=np.int64)


def _dealt(order: LongArray, numbers: Sequence[int], splits: Sequence[int] = (TRAIN, VALIDATION, TEST)) -> SplitArray:
    """Give the first items of an order to the first split, the next to the second, and leave the rest unused."""
    result = np.full(len(order), UNUSED, dtype=np.uint8)
    edges = np.cumsum([0, *numbers])
    for split, (start, stop) in zip(splits, pairwise(edges), strict=True):
        result[order[start:stop]] = split
    return result
