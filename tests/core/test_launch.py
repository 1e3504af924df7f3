"""Processes started here or by torchrun: that they find each other, what is said when one fails, and what they leave."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.core.launch import TorchrunPlace, is_helper, run_together, together, torchrun_place
from pesfit.core.process_group import ProcessGroup
from tests.core.test_process_group import gather_some


def fail(group: ProcessGroup, how: str) -> None:
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
        pytest.param(3, "raise", "^process 2 of 3: ValueError: odd thing$", marks=pytest.mark.slow),
    ],
)
def test_a_failure_in_any_process_is_told(
    n_processes: int, how: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of three, the one that did not fail is lost by its connections too, but is not blamed."""
    monkeypatch.setenv("PESFIT_WORKERS", str(n_processes))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    others = set(multiprocessing.active_children())  # of `worker_pool`
    with pytest.raises(PesfitError, match=message), together(fail, how, 8, memory_param="memory_gib") as group:
        fail(group, how)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert list(tmp_path.iterdir()) == []
    assert set(multiprocessing.active_children()) == others
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


def size_of(group: ProcessGroup, _: object) -> int:
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


@pytest.mark.slow
def test_a_failure_in_a_process_that_torchrun_started_is_told() -> None:
    assert in_two(fail_as_torchrun_does) == ["process 1 of 2: ValueError: odd thing", "odd thing"]


@pytest.mark.slow
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
    for process in processes:
        process.join()
    results = [pipe.recv() if pipe.poll() else None for pipe, _ in pipes]
    assert [process.exitcode for process in processes] == [0, 0]
    return results


def test_without_torchrun_no_process_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun_place() is None
    assert not is_helper()


@pytest.mark.parametrize(("rank", "helps"), [("0", False), ("1", True)])
def test_all_but_the_first_help(rank: str, helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert torchrun_place() == TorchrunPlace(int(rank), 2, 0)
    assert is_helper() == helps


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "one", "RANK = 'one': expected a whole number"),
        ("WORLD_SIZE", "-2", "WORLD_SIZE = '-2': expected a whole number"),
        ("LOCAL_RANK", "", "LOCAL_RANK = '': expected a whole number"),
        ("RANK", "2", "RANK = 2: expected less than WORLD_SIZE = 2"),
    ],
)
def test_what_is_no_place_is_refused(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each, good in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(each, good)
    monkeypatch.setenv(name, value)
    with pytest.raises(ParamsError, match=message):
        is_helper()
