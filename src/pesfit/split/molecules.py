"""Rules that divide whole molecules: at random, and by the recipe Espaloma 0.3.0 was published with."""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import pairwise

from pesfit.core.exceptions import ParamsError
from pesfit.data.splits import SPLITS, TEST, TRAIN, UNUSED, VALIDATION
from pesfit.params.preparation import SplitRule
from pesfit.split.rows import Row
from pesfit.split.shares import digest, quotas, shares_of, uniform

ESPALOMA_SEED = 2666
DUPLICATES = "duplicated-isomeric-smiles-merge"
"""Folder of the Espaloma record, and first part of the ids, of molecules that are in several of its subsets."""

_ALL_IN_ONE = {"espaloma/rna-nucleoside": TRAIN, "espaloma/rna-trinucleotide": TEST}


def split_by_molecule(
    rows: Sequence[Row], rule: SplitRule, seed: int, twins: Mapping[str, str], taken: MutableMapping[str, int]
) -> None:
    """Draw sets of twins at random, after those that the data of other rules have settled.

    A set of twins that is in use elsewhere goes where it is closest to training, so that nothing in this source's test set was
    trained or validated on, and nothing in its validation set trained on. The others fill up what is left of the shares, in the order
    of what they draw. Where a share is a count that is exceeded so, the surplus is left unused.

    Args:
        rows: of one source; their `split` is filled in.
        rule: its shares are of the sets of twins in this source; a fraction above 0 gets at least one of three or more.
        seed: of the draws.
        twins: for each `group` the name of its set of twins (`identity.twin_groups`).
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


def split_as_espaloma(rows: Sequence[Row]) -> None:
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
    subsets: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        parts = row.id.split("/")
        is_duplicate = parts[0] == DUPLICATES and len(parts) > 1
        subset, entry = (DUPLICATES, parts[1]) if is_duplicate else (row.source, row.id)
        subsets.setdefault(subset, {}).setdefault(entry, []).append(row)
    for subset, entries in subsets.items():
        if subset in _ALL_IN_ONE:
            codes = [_ALL_IN_ONE[subset]] * len(entries)
        else:
            codes = _espaloma_codes(len(entries), keep_rest=subset == DUPLICATES)
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
