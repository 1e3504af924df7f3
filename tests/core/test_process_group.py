"""Items that processes share out and gather: order, shapes, and ways to send them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pesfit.core.launch import run_together, together
from pesfit.core.process_group import ProcessGroup


def gather_some(group: ProcessGroup, numbers: list[int]) -> list[tuple[int, list[float]]]:
    """Gather lists of several lengths, the same place used again and again, and one tensor of another type."""
    results = []
    for n_items in numbers:
        mine = [torch.full((3,), float(100 * n_items + item)) for item in group.share_of(range(n_items))]
        gathered = group.gather(mine, n_items, torch.zeros(3))
        results.append((group.size, [float(tensor[2]) for tensor in gathered]))
    ranks = group.gather([torch.tensor(group.rank)], group.size, torch.tensor(0))
    assert [int(rank) for rank in ranks] == list(range(group.size))
    weights = torch.full((2,), float(group.rank))
    group.copy_from_first(weights)
    with group.first_before_others():
        results.append((group.size, weights.tolist()))
    return results


@pytest.mark.parametrize("n_processes", [1, 3])
@pytest.mark.slow
def test_items_come_in_their_order(n_processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", str(n_processes))
    numbers = [4, 2, 7, 1, 4, 4, 4]
    results = run_together(gather_some, numbers, 8)
    assert results[:-1] == [(n_processes, [float(100 * n + item) for item in range(n)]) for n in numbers]
    assert results[-1] == (n_processes, [0.0, 0.0])
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_items_come_in_their_order_through_sockets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over several machines, which share no memory."""
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    results = run_together(gather_through_sockets, [5, 2, 3], 8)
    assert results[:-1] == [(2, [float(100 * n + item) for item in range(n)]) for n in (5, 2, 3)]


def gather_through_sockets(group: ProcessGroup, numbers: list[int]) -> list[tuple[int, list[float]]]:
    return gather_some(ProcessGroup(group.rank, group.size), numbers)


@pytest.mark.slow
def test_what_goes_to_the_first_alone_comes_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "3")
    with together(take_and_return, None, 3) as group:
        results = take_and_return(group, None)
    letters = "abcdefg"
    assert [int(rank) for rank in results.ranks[:, 1]] == [0, 1, 2, 0, 1, 2, 0]
    assert results.ranks[:, 0].tolist() == list(range(7))
    assert results.objects == list(letters)
    assert results.none == (0, 2)


@dataclass(frozen=True)
class Returned:
    """What `take_and_return` found.

    Attributes:
        ranks: item and the rank that held it, shape (7, 2).
        objects: likewise, letters.
        none: shape of what is gathered where there are no items.
    """

    ranks: Tensor
    objects: list[str]
    none: tuple[int, ...]


def take_and_return(group: ProcessGroup, _: None) -> Returned:
    """Deal seven items to the processes, each of which returns its own."""
    letters = group.deal(group.shares_of("abcdefg") if group.is_first else None)
    mine = [(item, group.rank) for item in group.share_of(range(7))]
    assert len(letters) == len(mine)
    ranks = group.gather_in_first(torch.tensor(mine).reshape(-1, 2), 7)
    objects = group.gather_objects_in_first(list(letters), 7)
    assert group.is_first or (len(ranks), objects) == (0, [])
    return Returned(ranks, objects, tuple(group.gather_in_first(torch.zeros(0, 2), 0).shape))
