"""Processes that work together: start, rendezvous, failures and end.

On one machine they are started here, and are joined through a file and the loopback interface: a port would clash with another run's,
and a host name may not resolve. Over several machines `torchrun` starts the stage once for each process and says so in the environment
(`torchrun_place`); all machines then see one file system.

What they share besides is torch's store, a few keys and values: in it each says that it is there, that it is done, or why it failed.
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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from pesfit.core.exceptions import LostProcessError, ParamsError, PesfitError
from pesfit.core.parallel import die_with_parent, n_workers, use_one_thread
from pesfit.core.process_group import ProcessGroup, with_others

Job = TypeVar("Job")
Result = TypeVar("Result")

_TIMEOUT = timedelta(days=1)
"""How long a process waits for the others. One that died is noticed at once; this is for one that writes or reads for long."""
_SECONDS_TO_SAY_WHY = 10.0
_SECONDS_BETWEEN_LOOKS = 0.02
_THERE, _DONE, _WHY = "pesfit/there", "pesfit/done", "pesfit/why"


def run_together(work: Callable[[ProcessGroup, Job], Result], job: Job, most: int, *, on_gpus: bool = True) -> Result:
    """Run a function in all processes of a group, this one among them, and return what it returned here.

    Args:
        work: a module's function of the group and the job; it makes the same calls to the group in each process.
        job: is sent to the processes.
        most: number of processes at which each has something to do.
        on_gpus: see `together`.

    Raises:
        PesfitError: what `work` raised, in this process or another, or a sentence about a process that ended.
    """
    with together(work, job, most, on_gpus=on_gpus) as group:
        return work(group, job)


@contextlib.contextmanager
def together(
    others: Callable[[ProcessGroup, Job], object], job: Job, most: int, *, on_gpus: bool = True, memory_param: str | None = None
) -> Iterator[ProcessGroup]:
    """Have other processes run a function while this one runs the block, which makes the same calls to the group.

    Where torchrun started this process, no other is started: those that help have to come here too.

    Args:
        others: a module's function of the group and the job.
        job: is sent to the other processes.
        most: number of processes at which each has something to do; torchrun's number holds all the same.
        on_gpus: whether each process takes a GPU where there are any; there are no more processes then than GPUs.
        memory_param: a parameter that says how much memory a process takes, for the message where one is ended.

    Raises:
        PesfitError: what another process raised, or a sentence about one that ended; besides what the block raises.
    """
    use_one_thread()
    on_gpus = on_gpus and torch.cuda.is_available()
    started = torchrun_place()
    n_here = min(n_workers(), most, torch.cuda.device_count() if on_gpus else most)
    size = max(1, n_here) if started is None else started.size
    if size == 1:
        yield ProcessGroup(device="cuda:0" if on_gpus else "cpu")
    elif started is not None:
        place = _Process(started.rank, size, started.local_rank if on_gpus else None)
        with _joined_and_told(place, (), memory_param) as group:
            yield group
    else:
        with tempfile.TemporaryDirectory(prefix="pesfit-") as folder:
            place = _Process(0, size, 0 if on_gpus else None, Path(folder), os.getpid())
            with _children(others, job, place) as children, _joined_and_told(place, children, memory_param) as group:
                yield group


@dataclass(frozen=True)
class TorchrunPlace:
    """A process among those that torchrun started.

    Attributes:
        rank: of this process, from 0.
        size: number of processes, on all machines.
        local_rank: among those on this machine.
    """

    rank: int
    size: int
    local_rank: int


def torchrun_place() -> TorchrunPlace | None:
    """Return this process's place among those that torchrun started; None where it did not, which leaves `RANK` or `WORLD_SIZE` unset.

    Raises:
        ParamsError: where `RANK`, `WORLD_SIZE` or `LOCAL_RANK` is not a whole number, or there are fewer processes than the rank says.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    place = TorchrunPlace(_number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0)
    if place.rank >= place.size:
        raise ParamsError(f"RANK = {place.rank}: expected less than WORLD_SIZE = {place.size}, as torchrun sets it")
    return place


def is_helper() -> bool:
    """Tell whether torchrun started this process as one that helps another, which alone writes outputs.

    Raises:
        ParamsError: see `torchrun_place`.
    """
    place = torchrun_place()
    return place is not None and place.rank > 0


def _number(name: str) -> int:
    value = os.environ[name]
    if not (value.isascii() and value.isdigit()):
        raise ParamsError(f"{name} = {value!r}: expected a whole number, as torchrun sets it")
    return int(value)


@dataclass(frozen=True)
class _Process:
    """Where a process belongs.

    Attributes:
        rank: its own.
        size: how many processes there are.
        gpu: its GPU; None for the CPU.
        folder: shared by those that are started here; None of torchrun's.
        parent: process id of the first; None of torchrun's.
    """

    rank: int
    size: int
    gpu: int | None
    folder: Path | None = None
    parent: int | None = None

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size}"

    def open_store(self) -> Store:
        """Open what all processes share: a file, or memory of torchrun or the first process."""
        method = "env://" if self.folder is None else f"file://{self.folder}/store"
        store: Store = next(rendezvous(method, self.rank, self.size, timeout=_TIMEOUT))[0]
        store.set_timeout(_TIMEOUT)
        return store


@contextlib.contextmanager
def _joined(place: _Process, store: Store) -> Iterator[ProcessGroup]:
    """Be one of the group in the block; tell the others if it fails."""
    backend, device = ("gloo", torch.device("cpu")) if place.gpu is None else ("nccl", torch.device("cuda", place.gpu))
    if place.gpu is not None:
        torch.cuda.set_device(device)
    try:
        with _loopback() if place.folder is not None else contextlib.nullcontext():
            with_others(
                distributed.init_process_group, backend, store=store, rank=place.rank, world_size=place.size, timeout=_TIMEOUT
            )
        yield ProcessGroup(place.rank, place.size, device, place.folder if place.gpu is None else None)
        _wait_for_others(store, place.size)
    except LostProcessError:
        raise  # the cause is known to the other process alone
    except Exception as error:
        words = f"{error}" if isinstance(error, PesfitError) else f"{place}: {type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):
            store.compare_set(_WHY, "", words)  # the first failure is the cause of others
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextlib.contextmanager
def _joined_and_told(place: _Process, children: Sequence[BaseProcess], memory_param: str | None) -> Iterator[ProcessGroup]:
    """Be one of the group in the block, and explain the failure of another."""
    store = place.open_store()
    try:
        _wait_for_children(store, children)
        with _joined(place, store) as group:
            yield group
    except LostProcessError as error:
        besides = "" if memory_param is None else f", or lower {memory_param}"
        unknown = f"{error}; if memory ran out, start fewer processes{besides}"
        raise PesfitError(_cause(store, place, children, besides) or unknown) from error


def _wait_for_children(store: Store, children: Sequence[BaseProcess]) -> None:
    """Wait until children are there, because torch would wait for one that died on its way."""
    while children and store.add(_THERE, 0) < len(children):
        if any(child.exitcode is not None for child in children):
            raise LostProcessError("a process ended before it began to work")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _wait_for_others(store: Store, size: int) -> None:
    """Keep connections open until all processes are done: gloo takes one that closes for a failure, even after the last message."""
    with contextlib.suppress(RuntimeError):  # the process that keeps the store has seen that all are done, and left
        store.add(_DONE, 1)
        for _ in _looks():
            if store.add(_DONE, 0) == size:
                return


def _cause(store: Store, place: _Process, children: Sequence[BaseProcess], besides: str) -> str | None:
    """Return why another process ended, where that comes to be known."""
    for _ in _looks():
        statuses = [child.exitcode for child in children]
        with contextlib.suppress(RuntimeError):  # the process that keeps the store has gone
            if store.check([_WHY]):
                return store.get(_WHY).decode()
        for rank, status in enumerate(statuses, start=1):
            if status:
                return (
                    f"{replace(place, rank=rank)} was ended with status {status}; if memory ran out, set PESFIT_WORKERS lower "
                    f"(now {n_workers()}){besides}"
                )
        if children and None not in statuses:
            break
    return None


def _looks() -> Iterator[None]:
    """Yield now and then, for as long as a process may take to say something."""
    give_up = time.monotonic() + _SECONDS_TO_SAY_WHY
    while time.monotonic() < give_up:
        yield
        time.sleep(_SECONDS_BETWEEN_LOOKS)


@contextlib.contextmanager
def _children(work: Callable[[ProcessGroup, Job], object], job: Job, place: _Process) -> Iterator[list[BaseProcess]]:
    """Start the other processes; they are gone when the block ends."""
    # Spawned, not forked: torch has started threads, and a forked child of a process with threads can hang.
    context = multiprocessing.get_context("spawn")
    children: list[BaseProcess] = []
    try:
        for rank in range(1, place.size):
            child: BaseProcess = context.Process(target=_child, args=(work, job, replace(place, rank=rank)), daemon=True)
            child.start()
            children.append(child)
        yield children
        for child in children:
            child.join(_SECONDS_TO_SAY_WHY)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _child(work: Callable[[ProcessGroup, Job], object], job: Job, place: _Process) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which ends this one
    if place.parent is not None:
        die_with_parent(place.parent)
    use_one_thread()
    store = place.open_store()
    store.add(_THERE, 1)
    try:
        with _joined(place, store) as group:
            work(group, job)
    except LostProcessError:
        sys.exit(0)  # another status would be taken for the cause
    except PesfitError:
        sys.exit(1)  # its words are in the store


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Have gloo use the loopback interface in the block, unless the environment names another."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
