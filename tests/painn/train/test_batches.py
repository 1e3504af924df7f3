"""Batches and shards: everyone once, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.painn.train.batches import cut_into_shards, epoch_batches
from pesfit.params.train_learned import Batching


@pytest.mark.parametrize("by", ["conformers", "atoms"])
def test_an_epoch_holds_everyone_once(by: str) -> None:
    n_atoms = np.random.default_rng(1).integers(1, 60, size=203)
    batches = epoch_batches(n_atoms, Batching(size=50, by=by), seed=3, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(203))
    if by == "conformers":
        assert [len(batch) for batch in batches] == [50, 50, 50, 50, 3]
    else:
        sizes = [int(n_atoms[batch].sum()) for batch in batches]
        assert all(size <= 50 or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
        firsts = [int(n_atoms[batch[0]]) for batch in batches[1:]]
        assert all(size + first > 50 for size, first in zip(sizes, firsts, strict=False)), "a batch could have held more"


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    n_atoms, params = np.full(40, 9), Batching(size=7)
    orders = [np.concatenate(epoch_batches(n_atoms, params, *key)) for key in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


@settings(deadline=None)
@given(n=st.integers(1, 60), n_shards=st.integers(1, 9), seed=st.integers(0, 100))
def test_shards_hold_everyone_once_and_cost_about_the_same(n: int, n_shards: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    n_pairs = generator.integers(0, 300, size=100)
    batch = generator.permutation(100)[:n]
    shards = cut_into_shards(n_pairs, batch, n_shards)
    assert len(shards) == min(n, n_shards)
    assert sorted(np.concatenate(shards)) == sorted(batch)
    sizes = [len(shard) for shard in shards]
    costs = [int(n_pairs[shard].sum()) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert max(costs) - min(costs) <= int(n_pairs[batch].max())
