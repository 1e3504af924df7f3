"""Who trains together: batches of an epoch, and the shards a batch is cut into. Neither knows how many processes there are."""

from __future__ import annotations

import numpy as np

from pesfit.core.arrays import LongArray
from pesfit.params.train_learned import Batching


def epoch_batches(n_atoms: LongArray, params: Batching, seed: int, epoch: int) -> list[LongArray]:
    """Shuffle conformers and cut them into batches; the last may be smaller.

    Args:
        n_atoms: of each conformer, shape (n_conformers,).
        params: how large a batch is.
        seed: of the run.
        epoch: from 0. The order depends on the seed and the epoch alone, so that a run can be resumed at any of them.

    Returns:
        Indices of conformers; each occurs once. Counted by atoms, a batch holds no more than `size`, or one conformer.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(n_atoms))
    if params.by == "conformers":
        return [order[start : start + params.size] for start in range(0, len(order), params.size)]
    ends = np.cumsum(n_atoms[order])
    batches, start = [], 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + params.size, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


def cut_into_shards(n_pairs: LongArray, batch: LongArray, n_shards: int) -> list[LongArray]:
    """Cut a batch into pieces of about equal cost: dealt out from the largest conformer to the smallest, back and forth.

    Args:
        n_pairs: of each conformer, shape (n_conformers,); cost grows with it.
        batch: indices of conformers.
        n_shards: how many pieces; fewer where the batch is smaller.
    """
    n_shards = min(n_shards, len(batch))
    by_cost = batch[np.argsort(-n_pairs[batch], kind="stable")]
    turn = np.arange(len(batch)) % (2 * n_shards)
    player = np.where(turn < n_shards, turn, 2 * n_shards - 1 - turn)
    return [by_cost[player == i] for i in range(n_shards)]
