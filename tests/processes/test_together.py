"""Processes started here or by torchrun: what they gather, what is said when one of them fails, and what they leave."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pesfit.errors import DataError, PesfitError
from pesfit.processes.group import Group
from pesfit.processes.together import run_together, together
from pesfit.processes.torchrun import is_helper


def gather_some(group: Group, numbers: list[int]) -> list[tuple[int, list[float]]]:
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


def gather_through_sockets(group: Group, numbers: list[int]) -> list[tuple[int, list[float]]]:
    return gather_some(Group(group.rank, group.size), numbers)


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


def take_and_return(group: Group, _: None) -> Returned:
    """Deal seven items to the processes, each of which returns its own."""
    letters = group.deal(group.shares_of("abcdefg") if group.is_first else None)
    mine = [(item, group.rank) for item in group.share_of(range(7))]
    assert len(letters) == len(mine)
    ranks = group.gather_in_first(torch.tensor(mine).reshape(-1, 2), 7)
    objects = group.gather_objects_in_first(list(letters), 7)
    assert group.is_first or (len(ranks), objects) == (0, [])
    return Returned(ranks, objects, tuple(group.gather_in_first(torch.zeros(0, 2), 0).shape))


def fail(group: Group, how: str) -> None:
    group.gather([torch.zeros(1)], group.size, torch.zeros(1))
    if how == "all":
        raise DataError("the data are odd")
    if group.rank == group.size - 1 and how == "raise":
        raise ValueError("odd thing")
    if group.rank == group.size - 1 and how == "refuse":
        raise DataError("these data are odd")
    if group.rank == group.size - 1 and how == "exit":
        os._exit(9)
    group.gather([torch.zeros(1)], group.size, torch.zeros(1))


ENDED = r"^process 1 of 2 was ended with status 9; if memory ran out, set PESFIT_WORKERS lower \(now 2\), or lower memory_gib$"


@pytest.mark.parametrize(
    ("n_processes", "how", "message"),
    [
        (2, "refuse", "^these data are odd$"),
        (2, "exit", ENDED),
        (2, "all", "^the data are odd$"),
        (3, "raise", "^process 2 of 3: ValueError: odd thing$"),
    ],
)
def test_a_failure_in_any_process_is_told(
    n_processes: int, how: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of three, the one that did not fail is lost by its connections too, but is not blamed."""
    monkeypatch.setenv("PESFIT_WORKERS", str(n_processes))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with pytest.raises(PesfitError, match=message), together(fail, how, 8, memory_param="memory_gib") as group:
        fail(group, how)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []
    assert not torch.distributed.is_initialized()


class Fatal:
    """Cannot be received."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (7,)


def test_a_process_that_does_not_come_to_work_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    with pytest.raises(PesfitError, match="process 1 of 2 was ended with status 7"):
        run_together(size_of, Fatal(), 2)


def test_no_more_processes_than_have_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "64")
    assert run_together(size_of, None, 1) == 1


def size_of(group: Group, _: object) -> int:
    return group.size


def test_torchrun_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not is_helper()
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    assert run_together(size_of, None, 8) == 1
    assert not torch.distributed.is_initialized()


def as_torchrun_does(rank: int, port: int, pipe: Connection) -> None:
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    pipe.send((is_helper(), run_together(gather_some, [4, 3], 1)))


def fail_as_torchrun_does(rank: int, port: int, pipe: Connection) -> None:
    environment = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        run_together(fail, "raise", 1)
    except (PesfitError, ValueError) as error:
        pipe.send(f"{error}")


def test_a_failure_in_a_process_that_torchrun_started_is_told() -> None:
    assert in_two(fail_as_torchrun_does) == ["process 1 of 2: ValueError: odd thing", "odd thing"]


def test_processes_that_torchrun_started_find_each_other() -> None:
    (first_helps, first), (second_helps, second) = in_two(as_torchrun_does)
    assert (first_helps, second_helps) == (False, True)
    assert first == second
    assert first[:2] == [(2, [400.0, 401.0, 402.0, 403.0]), (2, [300.0, 301.0, 302.0])]


def in_two(function: Callable[[int, int, Connection], None]) -> list[Any]:
    """Run a function of rank, port, and a pipe in two processes; return what they sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=function, args=(rank, port, pipes[rank][1])) for rank in range(2)]
    for process in processes:
        process.start()
    results = [pipe.recv() if pipe.poll(60.0) else None for pipe, _ in pipes]
    for process in processes:
        process.join(30.0)
    assert [process.exitcode for process in processes] == [0, 0]
    return results
