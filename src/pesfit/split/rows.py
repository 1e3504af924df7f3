"""Names and frames of the rows that are split, and exact draws among them: SHA-256 and fractions, the same on every platform.

Numbers are drawn from hashes and not from a generator: what a molecule draws depends on the seed and its name alone, so that
adding others moves few, and no library's version matters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import ParamsError
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import UNUSED, SplitArray
from pesfit.params.preparation import Share, SplitRule


@dataclass(frozen=True)
class RowAssignment:
    """One row of a data set.

    Attributes:
        dataset: name of the data set.
        id: of the record.
        source: of the record.
        group: of the record: identity of its molecule.
        smiles: of the record.
        frame: of the record, shape (n_conformers,).
        split: number of each conformer's split, filled in by the rules, shape (n_conformers,).
    """

    dataset: str
    id: str
    source: str
    group: str
    smiles: str | None
    frame: LongArray
    split: SplitArray

    @property
    def n_conformers(self) -> int:
        """Number of conformers."""
        return len(self.split)


@dataclass(frozen=True)
class MoleculeFrames:
    """The conformers of one molecule of one source, over all its rows, in the order of the source.

    Attributes:
        rows: the molecule's rows.
        frame: of each conformer, ascending, shape (n_frames,).
        row: which row each is in, shape (n_frames,).
        position: where in that row, shape (n_frames,).
    """

    rows: tuple[RowAssignment, ...]
    frame: LongArray
    row: LongArray
    position: LongArray

    @classmethod
    def of(cls, rows: Iterable[RowAssignment]) -> MoleculeFrames:
        """Put the conformers of rows in order; of equal frames, the earlier row's comes first."""
        rows = tuple(rows)
        frame = np.concatenate([row.frame for row in rows])
        row = np.repeat(np.arange(len(rows)), [one.n_conformers for one in rows])
        position = np.concatenate([np.arange(one.n_conformers) for one in rows])
        order = np.argsort(frame, kind="stable")
        return cls(rows, frame[order], row[order], position[order])

    def __len__(self) -> int:
        return len(self.frame)

    def assign(self, split: SplitArray) -> None:
        """Write splits into the rows.

        Args:
            split: for each frame, shape (n_frames,).
        """
        for i, row in enumerate(self.rows):
            mine = self.row == i
            row.split[self.position[mine]] = split[mine]


def read_rows(datasets: Mapping[str, ConformerDataset]) -> list[RowAssignment]:
    """Read the rows of all data sets, with nothing assigned yet."""
    rows = []
    for name, dataset in datasets.items():
        columns = [dataset.table.column(column).to_pylist() for column in ("id", "source", "group", "smiles")]
        frames = (scalar.values.to_numpy() for chunk in dataset.table.column("frame").chunks for scalar in chunk)
        for id_, source, group, smiles, frame in zip(*columns, frames, strict=True):
            rows.append(RowAssignment(name, id_, source, group, smiles, frame, np.full(len(frame), UNUSED, dtype=np.uint8)))
    return rows


def by_molecule(rows: Iterable[RowAssignment]) -> dict[str, list[RowAssignment]]:
    """Collect the rows of each molecule (`group`), molecules in alphabetical order."""
    molecules: dict[str, list[RowAssignment]] = {}
    for row in rows:
        molecules.setdefault(row.group, []).append(row)
    return dict(sorted(molecules.items()))


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
