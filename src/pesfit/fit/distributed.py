"""Shards evaluated in one process or in several, which are joined by torch.distributed.

The first process leads: it sends the parameters, every process evaluates its shards, and the leader gathers each shard's result and
adds them in the order of the shards. (An all-reduce would add them in an order that depends on the number of processes.)

Either we start the others, on this machine, or all are started by torchrun, on any number of machines that see the same files. Then
`RANK` and `WORLD_SIZE` are set, and every process but the first runs `serve_torchrun`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.distributed as dist

from pesfit.arrays import FloatArray
from pesfit.errors import DataError, ParamsError, PesfitError
from pesfit.fit.shard_work import ErrorRow, Job, ShardWork
from pesfit.parallel import die_with_parent, n_workers

_OPERATIONS = ("stop", "explain", "errors", "count", "train", "validate", "curvature")
_TIMEOUT = dt.timedelta(hours=12)
_COST_WORTH_A_PROCESS = 2e8
"""Conformers times atoms times epochs, some ten seconds of work, below which the start of a process takes longer than it saves."""


class Team(Protocol):
    """Processes that have the shards among them."""

    def run(self, operation: str, z: FloatArray, batch: int = 0) -> FloatArray:
        """Evaluate all shards (`ShardWork.run`); returns shape (n_shards, n)."""

    def errors(self, zs: FloatArray) -> list[ErrorRow]:
        """Evaluate force fields on all molecules (`ShardWork.errors`), in the order of the shards."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def gather_team(job: Job, n_epochs: int) -> Team:
    """Put as many processes to work as there are cores, shards, and enough to do.

    Args:
        job: with all shards.
        n_epochs: how often they may be evaluated.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return Leader(job, int(os.environ["WORLD_SIZE"]), started_by_torchrun=True)
    cost = sum(molecule.rows.cost for chunks in job.shards for chunk in chunks for molecule in chunk.molecules)
    n = min(n_workers(), len(job.shards)) if cost * n_epochs > _COST_WORTH_A_PROCESS else 1
    return Alone(job) if n == 1 else Leader(job, n)


class Alone:
    """A team of one."""

    def __init__(self, job: Job) -> None:
        self._work = ShardWork(job)

    def run(self, operation: str, z: FloatArray, batch: int = 0) -> FloatArray:
        """See `Team`."""
        return self._work.run(operation, z, batch)

    def errors(self, zs: FloatArray) -> list[ErrorRow]:
        """See `Team`."""
        return [row for rows in self._work.errors(zs) for row in rows]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class _Member:
    """One of several processes, with its shards.

    Attributes:
        work: on its shards.
        error: what befell it in the last operation.
    """

    def __init__(self, assignment: tuple[Job, int]) -> None:
        job, self._n_rows = assignment
        self.work = ShardWork(job)
        self.error: Exception | None = None

    def answer(self, operation: str, z: FloatArray, batch: int) -> torch.Tensor:
        """Evaluate the shards; returns their results, padded to as many rows as any process has, and a row that says whether it failed."""
        buffer = torch.zeros((self._n_rows + 1, self.work.length(operation)), dtype=torch.float64)
        self.error = None
        try:
            buffer[: self.work.n_shards] = torch.from_numpy(self.work.run(operation, z, batch))
        except Exception as error:  # noqa: BLE001 - the leader raises it
            self.error = error
            buffer[-1, 0] = 1.0
        return buffer

    @property
    def message(self) -> str | None:
        """What befell it, in words."""
        return None if self.error is None else f"{self.error}"


class Leader:
    """The first of several processes.

    Args:
        job: with all shards.
        n_processes: how many there are, or are to be started, with this one.
        started_by_torchrun: whether they are there.
    """

    def __init__(self, job: Job, n_processes: int, *, started_by_torchrun: bool = False) -> None:
        self._n = n_processes
        self._processes: list[BaseProcess] = []
        self._folder = Path(tempfile.mkdtemp(prefix="pesfit-"))
        if started_by_torchrun:
            _join(None, 0, n_processes)
        else:
            self._start(self._folder / "rendezvous")
        self._owned = [shards.tolist() for shards in np.array_split(np.arange(len(job.shards)), n_processes)]
        n_rows = max(len(shards) for shards in self._owned)
        jobs = [(replace(job, shards=tuple(job.shards[i] for i in shards)), n_rows) for shards in self._owned]
        self._member = _Member(_scatter(jobs))

    def _start(self, rendezvous: Path) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in range(1, self._n):
            process = context.Process(target=_serve, args=(rendezvous, rank, self._n, os.getpid()), daemon=True)
            process.start()
            self._processes.append(process)
        _join(rendezvous, 0, self._n)

    def run(self, operation: str, z: FloatArray, batch: int = 0) -> FloatArray:
        """See `Team`."""
        try:
            _send(operation, batch, z)
            own = self._member.answer(operation, z, batch)
            buffers = [torch.empty_like(own) for _ in range(self._n)]
            dist.gather(own, buffers, dst=0)
            if any(bool(buffer[-1, 0] != 0.0) for buffer in buffers):
                self._raise()
        except RuntimeError as error:
            raise _lost(error) from error
        return np.concatenate([buffer[: len(shards)].numpy() for buffer, shards in zip(buffers, self._owned, strict=True)])

    def errors(self, zs: FloatArray) -> list[ErrorRow]:
        """See `Team`."""
        try:
            _send("errors", len(zs), zs.ravel())
            found = _gather_objects(self._member.work.errors(zs), self._n)
        except RuntimeError as error:
            raise _lost(error) from error
        return [row for rows in found for of_shard in rows for row in of_shard]

    def _raise(self) -> None:
        _send("explain", 0, np.zeros(0))
        messages = _gather_objects(self._member.message, self._n)
        raise DataError(next(message for message in messages if message is not None)) from self._member.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(RuntimeError):  # of a process that was lost
            _send("stop", 0, np.zeros(0))
        for process in self._processes:
            process.join(timeout=10.0)
            if process.is_alive():
                process.terminate()
        dist.destroy_process_group()
        shutil.rmtree(self._folder, ignore_errors=True)


def _lost(error: RuntimeError) -> PesfitError:
    return PesfitError(
        f"a process of the fit was lost ({' '.join(str(error).split())[:200]}); if memory ran out, lower "
        "fit_smirnoff.gradient.memory_gib or PESFIT_WORKERS"
    )


def torchrun_rank() -> int:
    """Return this process's place among those that torchrun started; 0 where it did not.

    Raises:
        ParamsError: where `RANK` is not a whole number.
    """
    rank = os.environ.get("RANK", "0")
    if not (rank.isascii() and rank.isdigit()):
        raise ParamsError(f"RANK = {rank!r}: expected a whole number, as torchrun sets it")
    return int(rank)


def serve_torchrun() -> None:
    """Work for the first process that torchrun started, until it is done."""
    _serve(None, torchrun_rank(), int(os.environ["WORLD_SIZE"]), None)


def _join(rendezvous: Path | None, rank: int, n_processes: int) -> None:
    method = "env://" if rendezvous is None else f"file://{rendezvous}"
    choose_loopback = rendezvous is not None and "GLOO_SOCKET_IFNAME" not in os.environ
    if choose_loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # all are on this machine, whose name need not resolve
    try:
        dist.init_process_group("gloo", init_method=method, rank=rank, world_size=n_processes, timeout=_TIMEOUT)
    finally:
        if choose_loopback:
            del os.environ["GLOO_SOCKET_IFNAME"]


def _serve(rendezvous: Path | None, rank: int, n_processes: int, parent: int | None) -> None:
    if parent is not None:
        die_with_parent(parent)
    torch.set_num_threads(1)
    _join(rendezvous, rank, n_processes)
    member = _Member(_scatter(None))
    while True:
        operation, batch, z = _receive()
        if operation == "stop":
            break
        if operation == "explain":
            _gather_objects(member.message, None)
        elif operation == "errors":
            _gather_objects(member.work.errors(z.reshape(batch, -1)), None)
        else:
            dist.gather(member.answer(operation, z, batch), None, dst=0)
    dist.destroy_process_group()


def _scatter(assignments: Sequence[tuple[Job, int]] | None) -> tuple[Job, int]:
    received: list[Any] = [None]
    dist.scatter_object_list(received, None if assignments is None else list(assignments), src=0)
    found: tuple[Job, int] = received[0]
    return found


def _send(operation: str, batch: int, z: FloatArray) -> None:
    dist.broadcast(torch.tensor([_OPERATIONS.index(operation), batch, len(z)]), 0)
    dist.broadcast(torch.tensor(z, dtype=torch.float64), 0)


def _receive() -> tuple[str, int, FloatArray]:
    header = torch.zeros(3, dtype=torch.int64)
    dist.broadcast(header, 0)
    operation, batch, n = header.tolist()
    z = torch.empty(n, dtype=torch.float64)
    dist.broadcast(z, 0)
    return _OPERATIONS[operation], batch, z.numpy()


def _gather_objects(own: object, n_processes: int | None) -> list[Any]:
    """Gather an object of each process in the leader, which says how many there are."""
    gathered: list[Any] | None = None if n_processes is None else [None] * n_processes
    dist.gather_object(own, gathered, dst=0)
    return gathered or []
