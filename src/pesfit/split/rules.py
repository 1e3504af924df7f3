"""Rules that divide the conformers of each molecule, or whole molecules, into training, validation and test set.

Conformers are divided by frame, by stretches of a trajectory, or as rMD17 was published; molecules at random, or by the recipe that
Espaloma 0.3.0 was published with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import DataError, ParamsError
from pesfit.data.sources import MERGED_SUBSET
from pesfit.data.splits import SPLITS, TEST, TRAIN, UNUSED, VALIDATION, SplitArray
from pesfit.params.preparation import SplitRule
from pesfit.split.rows import MoleculeFrames, RowAssignment, by_molecule, digest, quotas, shares_of, uniform

ESPALOMA_SEED = 2666
_ALL_IN_ONE = {"espaloma/rna-nucleoside": TRAIN, "espaloma/rna-trinucleotide": TEST}


def split_by_frame(rows: Sequence[RowAssignment], rule: SplitRule, seed: int) -> None:
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
        frames = MoleculeFrames.of(molecule)
        numbers = quotas(
            len(frames), shares_of(rule), uniform(seed, "frame", source, group), what=f"{source}: conformers of {group}"
        )
        draws = [
            digest(seed, "frame", source, frames.rows[row].id, int(frame))
            for row, frame in zip(frames.row, frames.frame, strict=True)
        ]
        frames.assign(_dealt(_order(draws), numbers))


def split_by_block(rows: Sequence[RowAssignment], rule: SplitRule, seed: int) -> None:
    """Cut the trajectory of each molecule into stretches, and each stretch into training, validation and test frames.

    MoleculeFrames that follow each other are nearly the same, so single frames drawn at random would test on what was trained on. Here
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
        frames = MoleculeFrames.of(molecule)
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


def split_as_rmd17(rows: Sequence[RowAssignment], rule: SplitRule, seed: int, published: Path) -> None:
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
        frames = MoleculeFrames.of(molecule)
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


def split_by_molecule(
    rows: Sequence[RowAssignment], rule: SplitRule, seed: int, twins: Mapping[str, str], taken: MutableMapping[str, int]
) -> None:
    """Draw sets of twins at random, after those that the data of other rules have settled.

    A set of twins that is in use elsewhere goes where it is closest to training, so that nothing in this source's test set was
    trained or validated on, and nothing in its validation set trained on. The others fill up what is left of the shares, in the order
    of what they draw. Where a share is a count that is exceeded so, the surplus is left unused.

    Args:
        rows: of one source; their `split` is filled in.
        rule: its shares are of the sets of twins in this source; a fraction above 0 gets at least one of three or more.
        seed: of the draws.
        twins: for each `group` the name of its set of twins (`twins.twin_groups`).
        taken: for sets of twins that are in use already, the split closest to training that they are in; those that are drawn
            here are added.

    Raises:
        ParamsError: where there are fewer molecules than are asked for, or so many of them are taken that a count cannot be met.
    """
    source = rows[0].source
    names = sorted({twins[row.group] for row in rows}, key=lambda name: digest(seed, "molecule", name))
    draw = uniform(seed, "molecule", source)
    numbers = quotas(len(names), shares_of(rule), draw, what=f"{source}: molecules (twins count as one)", none_empty=True)
    free = [name for name in names if name not in taken]
    settled: list[int] = []
    chosen: dict[str, int] = {}
    for code, share in zip(SPLITS.values(), shares_of(rule), strict=True):
        here = [name for name in names if taken.get(name) == code]
        settled.append(len(here))
        chosen |= dict.fromkeys(here[:share] if isinstance(share, int) else here, code)
    wanted = [max(0, number - there) for number, there in zip(numbers, settled, strict=True)]
    if sum(wanted) > len(free):
        _refuse_unmet_counts(source, rule, wanted, len(free), settled)
        # What is taken exceeds a share: the others give way, each in proportion.
        edges = [len(free) * sum(wanted[:i]) // sum(wanted) for i in range(len(wanted) + 1)]
        wanted = [stop - start for start, stop in pairwise(edges)]
    for code, number in zip(SPLITS.values(), wanted, strict=True):
        chosen |= dict.fromkeys(free[:number], code)
        free = free[number:]
    for name, code in chosen.items():
        taken.setdefault(name, code)
    for row in rows:
        row.split[:] = chosen.get(twins[row.group], UNUSED)


def _refuse_unmet_counts(source: str, rule: SplitRule, wanted: Sequence[int], n_free: int, settled: Sequence[int]) -> None:
    if any(isinstance(share, int) and number for share, number in zip(shares_of(rule), wanted, strict=True)):
        taken = ", ".join(f"{number} {name}" for number, name in zip(settled, SPLITS, strict=True))
        asked = ", ".join(f"{number} {name}" for number, name in zip(wanted, SPLITS, strict=True))
        raise ParamsError(
            f"split.rules: {source}: the data of other rules settle where some molecules go ({taken}); {asked} are still to be drawn, "
            f"{n_free} molecules are left"
        )


def split_as_espaloma(rows: Sequence[RowAssignment]) -> None:
    """Split as K. Takaba et al. did (Chem. Sci. 15, 12861, 2024, doi:10.1039/D4SC00690A; code: choderalab/refit-espaloma).

    The entries of each subset are shuffled by Python's `random.shuffle` after `random.seed(2666)`. The first int(0.8 n) are training,
    the next int(0.1 n) validation, the next int(0.1 n) test, and what rounding leaves over is in none. Of all RNA nucleosides the
    authors trained, and on all trinucleotides they tested. Molecules that are in several subsets were moved to a folder of their own:
    its entries are shuffled by the same seed and divided 0.8, 0.1 and the rest, each with all its subsets.

    The permutation is exactly theirs. The order it is applied to was that of their file system, which nobody has recorded;
    here it is the order of the archive. Where an entry was left out earlier (by the filter of 02_convert, or because 03_parameterize
    failed), the permutation is that of fewer entries. So this is their recipe; molecule for molecule it need not be their split.

    Args:
        rows: of all subsets of the record; their `split` is filled in.
    """
    subsets: dict[str, dict[str, list[RowAssignment]]] = {}
    for row in rows:
        parts = row.id.split("/")
        is_duplicate = parts[0] == MERGED_SUBSET and len(parts) > 1
        subset, entry = (MERGED_SUBSET, parts[1]) if is_duplicate else (row.source, row.id)
        subsets.setdefault(subset, {}).setdefault(entry, []).append(row)
    for subset, entries in subsets.items():
        if subset in _ALL_IN_ONE:
            codes = [_ALL_IN_ONE[subset]] * len(entries)
        else:
            codes = _espaloma_codes(len(entries), keep_rest=subset == MERGED_SUBSET)
        for members, code in zip(entries.values(), codes, strict=True):
            for row in members:
                row.split[:] = code


def _espaloma_codes(n_entries: int, *, keep_rest: bool) -> list[int]:
    """Return the split of each of a subset's entries.

    Args:
        n_entries: how many there are.
        keep_rest: test on what rounding leaves over.
    """
    order = list(range(n_entries))
    random.Random(ESPALOMA_SEED).shuffle(order)  # noqa: S311 - the published recipe
    n_train, n_rest = int(n_entries * 0.8), int(n_entries * 0.1)
    codes = [UNUSED] * n_entries
    for i, entry in enumerate(order):
        if i < n_train:
            codes[entry] = TRAIN
        elif i < n_train + n_rest:
            codes[entry] = VALIDATION
        elif i < n_train + 2 * n_rest or keep_rest:
            codes[entry] = TEST
    return codes
