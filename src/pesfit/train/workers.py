"""Processes that train one model together: each takes its shards of every batch, and all take the same step.

What `DistributedDataParallel` does, but for the order of the sum: the shards of a batch are fixed by the parameters, every process
gets the result of every shard, and adds them in the shards' order. So the number of processes does not show in the result.

On one machine the processes are started here. Over several, `torchrun` starts the stage once for each process and says so in `RANK`,
`LOCAL_RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`; all machines then see one file system.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from pesfit.errors import PesfitError
from pesfit.parallel import die_with_parent, n_workers
from pesfit.train.group import Group

Job = TypeVar("Job")
Result = TypeVar("Result")

_TIMEOUT = timedelta(days=1)
"""How long a process waits for the others. One that died is noticed at once; this is for one that writes or reads for long."""
_SECONDS_TO_SAY_WHY = 10.0


def run_together(work: Callable[[Group, Job], Result], job: Job, most: int) -> Result:
    """Run a function in all processes of a group, this one among them, and return what it returned here.

    Args:
        work: a module's function of the group and the job; it makes the same calls to the group in each process.
        job: is sent to the processes.
        most: number of processes at which each has something to do.

    Raises:
        PesfitError: what `work` raised, in this process or another, or a sentence about a process that ended.
    """
    torch.set_num_threads(1)  # so that sums have one order, and processes do not fight for cores
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _under_torchrun(work, job)
    n_processes = min(n_workers(), max(1, most))
    if torch.cuda.is_available():
        n_processes = min(n_processes, torch.cuda.device_count())
    if n_processes == 1:
        return work(Group(device=_device(0)), job)
    return _with_children(work, job, n_processes)


def is_helper() -> bool:
    """Tell whether torchrun started this process as one that helps another, which alone writes outputs."""
    return int(os.environ.get("RANK", "0")) > 0


def _device(local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def _join(rank: int, size: int, local_rank: int, init_method: str, folder: Path | None = None) -> Group:
    device = _device(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=init_method, rank=rank, world_size=size, timeout=_TIMEOUT)
    return Group(rank, size, device, folder if device.type == "cpu" else None)


def _under_torchrun(work: Callable[[Group, Job], Result], job: Job) -> Result:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    group = _join(rank, size, int(os.environ.get("LOCAL_RANK", "0")), "env://")
    try:
        result = work(group, job)
        _wait_for_others(size)
    finally:
        distributed.destroy_process_group()
    return result


def _wait_for_others(size: int) -> None:
    """Keep connections open until all processes are done: gloo takes one that closes for a failure, even after the last message."""
    store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - torch offers no other way to it
    n_done, give_up = store.add("pesfit/done", 1), time.monotonic() + _SECONDS_TO_SAY_WHY
    with contextlib.suppress(RuntimeError):  # the process that keeps the store has seen that all are done, and left
        while n_done < size and time.monotonic() < give_up:
            time.sleep(0.02)
            n_done = store.add("pesfit/done", 0)


@dataclass(frozen=True)
class _Place:
    """Where a process that is started here belongs."""

    rank: int
    size: int
    folder: Path
    parent: int

    def join(self) -> Group:
        return _join(self.rank, self.size, self.rank, f"file://{self.folder}/rendezvous", self.folder)


def _with_children(work: Callable[[Group, Job], Result], job: Job, size: int) -> Result:
    # Spawned, not forked: torch has started threads, and a forked child of a process with threads can hang.
    context = multiprocessing.get_context("spawn")
    children: list[tuple[BaseProcess, Connection]] = []
    # Through a file and the loopback interface: a port would clash with another run's, and a host name may not resolve.
    with tempfile.TemporaryDirectory(prefix="pesfit-") as folder, _environment("GLOO_SOCKET_IFNAME", "lo"):
        place = _Place(0, size, Path(folder), os.getpid())
        try:
            for rank in range(1, size):
                here, there = context.Pipe()
                child: BaseProcess = context.Process(
                    target=_child, args=(work, job, replace(place, rank=rank), there), daemon=True
                )
                child.start()
                there.close()
                children.append((child, here))
            result = work(place.join(), job)
            for child, pipe in children:
                with contextlib.suppress(OSError):  # it has ended
                    pipe.send("done")
                child.join(_SECONDS_TO_SAY_WHY)
        except RuntimeError as error:  # what torch raises when another process has gone
            reason = _why_one_ended(children)
            if reason is None:
                raise
            raise PesfitError(reason) from error
        finally:
            for child, _ in children:
                child.terminate()
                child.join()
            if distributed.is_initialized():
                distributed.destroy_process_group()
    return result


def _child(work: Callable[[Group, Any], object], job: Any, place: _Place, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which ends this one
    die_with_parent(place.parent)
    torch.set_num_threads(1)
    try:
        work(place.join(), job)
    except Exception as error:  # noqa: BLE001 - it is told to the first process, which raises it
        prefix = "" if isinstance(error, PesfitError) else f"{type(error).__name__}: "
        pipe.send(f"{prefix}{error}")
        sys.exit(1)
    with contextlib.suppress(EOFError):
        pipe.recv()  # gloo takes a connection that closes for a failure, even after the last message
    distributed.destroy_process_group()


def _why_one_ended(children: Sequence[tuple[BaseProcess, Connection]]) -> str | None:
    """Say why another process ended, if one did."""
    for child, _ in children:
        if child.sentinel in wait([child.sentinel for child, _ in children], timeout=_SECONDS_TO_SAY_WHY):
            child.join()  # its status is known a moment after its end is
    size = len(children) + 1
    for rank, (_, pipe) in enumerate(children, start=1):
        with contextlib.suppress(EOFError):
            if pipe.poll():
                return f"training process {rank} of {size}: {pipe.recv()}"
    for rank, (child, _) in enumerate(children, start=1):
        if child.exitcode:
            return (
                f"training process {rank} of {size} was ended with status {child.exitcode}; if memory ran out, set PESFIT_WORKERS "
                f"lower (now {n_workers()})"
            )
    return None


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
