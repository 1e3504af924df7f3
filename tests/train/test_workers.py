"""Groups of processes: order of what is gathered, and what is said when one of them fails."""

from __future__ import annotations

import multiprocessing
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from pesfit.errors import DataError, PesfitError
from pesfit.train.group import Group
from pesfit.train.workers import is_helper, run_together


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


def fail(group: Group, how: str) -> None:
    group.gather([torch.zeros(1)], group.size, torch.zeros(1))
    if how == "all":
        raise DataError("the data are odd")
    if group.rank == 1 and how == "raise":
        raise ValueError("odd thing")
    if group.rank == 1 and how == "exit":
        os._exit(9)
    group.gather([torch.zeros(1)], group.size, torch.zeros(1))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "training process 1 of 2: ValueError: odd thing"),
        ("exit", r"training process 1 of 2 was ended with status 9; if memory ran out, set PESFIT_WORKERS lower \(now 2\)"),
        ("all", "the data are odd"),
    ],
)
def test_a_failure_in_any_process_is_told(how: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    with pytest.raises(PesfitError, match=message):
        run_together(fail, how, 8)


def test_no_more_processes_than_have_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "64")
    assert run_together(size_of, None, 1) == 1


def size_of(group: Group, _: None) -> int:
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
    monkeypatch.setenv("RANK", "1")
    assert is_helper()


def as_torchrun_does(rank: int, port: int, pipe: Connection) -> None:
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    pipe.send((is_helper(), run_together(gather_some, [4, 3], 1)))


def test_processes_that_torchrun_started_find_each_other() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=as_torchrun_does, args=(rank, port, pipes[rank][1])) for rank in range(2)]
    for process in processes:
        process.start()
    results = [pipe.recv() if pipe.poll(60.0) else None for pipe, _ in pipes]
    for process in processes:
        process.join(30.0)
    assert [process.exitcode for process in processes] == [0, 0]
    assert results[0] is not None
    assert results[1] is not None
    assert [is_one for is_one, _ in results] == [False, True]
    assert results[0][1] == results[1][1]
    assert results[0][1][:2] == [(2, [400.0, 401.0, 402.0, 403.0]), (2, [300.0, 301.0, 302.0])]
