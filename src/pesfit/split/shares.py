"""How many go where, and in which order they are drawn: exact arithmetic and SHA-256, the same on every platform.

Numbers are drawn from hashes and not from a generator: what a molecule draws depends on the seed and its name alone, so that
adding others moves few, and no library's version matters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

from pesfit.core.exceptions import ParamsError
from pesfit.params.preparation import Share, SplitRule


def digest(seed: int, *names: str | int) -> bytes:
    """Return what something draws: 32 bytes that depend on the seed and on its names alone."""
    return hashlib.sha256("\0".join(str(name) for name in (seed, *names)).encode()).digest()


def uniform(seed: int, *names: str | int) -> Fraction:
    """Return a number in [0, 1) drawn like `digest`."""
    return Fraction(int.from_bytes(digest(seed, *names)[:8], "big"), 2**64)


def shares_of(rule: SplitRule) -> tuple[Share, Share, Share]:
    """Return the shares of training, validation and test set."""
    return rule.train, rule.validation, rule.test


def quotas(n_items: int, shares: Sequence[Share], draw: Fraction, *, what: str, none_empty: bool = False) -> tuple[int, ...]:
    """Turn shares of a number of items into whole numbers.

    Counts are taken as they are. Fractions are rounded together, all by the same draw (systematic sampling): each is off by less
    than one, has the right mean over draws, and fractions that add up to 1 leave nothing over.

    Args:
        n_items: how many there are.
        shares: fractions (float) of `n_items` and counts (int).
        draw: in [0, 1).
        what: whose shares these are, for the message, such as `xtb/conformers: molecules`.
        none_empty: give a fraction above 0 at least one item, from what is left or else from the largest, where that has several.

    Returns:
        one number for each share; their sum is at most `n_items`.

    Raises:
        ParamsError: where they ask for more than there is.
    """
    result, edge = [], Fraction(0)
    for share in shares:
        if isinstance(share, int):
            result.append(share)
            continue
        start, edge = edge, edge + Fraction(repr(share)) * n_items
        result.append(math.floor(edge + draw) - math.floor(start + draw))
    if sum(result) > n_items:
        asked = " + ".join(str(number) for number in result)
        raise ParamsError(f"split.rules: {what}: {asked} = {sum(result)} are asked for, {n_items} are there")
    if none_empty:
        for i, share in enumerate(shares):
            if isinstance(share, float) and share > 0.0 and result[i] == 0:
                largest = max(range(len(shares)), key=lambda other: isinstance(shares[other], float) and result[other])
                if sum(result) < n_items:
                    result[i] = 1
                elif isinstance(shares[largest], float) and result[largest] > 1:
                    result[i], result[largest] = 1, result[largest] - 1
    return tuple(result)
