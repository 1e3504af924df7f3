"""Shards evaluated by one process or by several together.

The first process leads: it sends the parameters, every process evaluates its shards, and the leader gathers each shard's result and
adds them in the order of the shards. (An all-reduce would add them in an order that depends on the number of processes.)

Every process but the first runs `serve`; of those that torchrun started, by way of `serve_torchrun`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import LostProcessError
from pesfit.core.launch import run_together, together
from pesfit.core.process_group import ProcessGroup
from pesfit.smirnoff.gradient.shard_work import ErrorRow, Job, ShardWork

_OPERATIONS = ("stop", "errors", "count", "train", "validate", "curvature")
_COST_WORTH_A_PROCESS = 2e8
"""Conformers times atoms times epochs, some ten seconds of work, below which the start of a process takes longer than it saves."""


@contextlib.contextmanager
def gather_team(job: Job, n_epochs: int) -> Iterator[Team]:
    """Put as many processes to work as there are cores, shards, and enough to do; or those that torchrun started.

    Args:
        job: with all shards.
        n_epochs: how often they may be evaluated.

    Raises:
        PesfitError: what another process raised, or that one was lost.
    """
    cost = sum(molecule.rows.cost for chunks in job.shards for chunk in chunks for molecule in chunk.molecules)
    most = len(job.shards) if cost * n_epochs > _COST_WORTH_A_PROCESS else 1
    with together(serve, None, most, on_gpus=False, memory_param="fit_smirnoff.gradient.memory_gib") as group:
        team = Team(group, job)
        yield team
        team.dismiss()


class Team:
    """Processes that have the shards among them, as the first sees them.

    Args:
        group: the processes.
        job: with all shards; each process is sent its own.
    """

    def __init__(self, group: ProcessGroup, job: Job) -> None:
        self._group = group
        shares = group.shares_of(job.shards)
        self._member = _Member(group, [(replace(job, shards=tuple(shards)), len(job.shards)) for shards in shares])

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._group.size

    def run(self, operation: str, z: FloatArray, batch: int = 0) -> FloatArray:
        """Evaluate all shards (`ShardWork.run`); returns shape (n_shards, n)."""
        _exchange(self._group, operation, batch, z)
        return self._member.evaluate(operation, batch, z)

    def errors(self, zs: FloatArray) -> list[ErrorRow]:
        """Evaluate force fields on all molecules (`ShardWork.errors`), in the order of the shards."""
        _exchange(self._group, "errors", len(zs), zs.ravel())
        return [row for rows in self._member.errors(zs) for row in rows]

    def dismiss(self) -> None:
        """Let the others go."""
        with contextlib.suppress(LostProcessError):  # they have done what they were for
            _exchange(self._group, "stop", 0, np.zeros(0))


def serve(group: ProcessGroup, _: None = None) -> None:
    """Work for the first process until it is done."""
    member = _Member(group, None)
    while True:
        operation, batch, z = _exchange(group, "stop", 0, np.zeros(0))
        if operation == "stop":
            return
        if operation == "errors":
            member.errors(z.reshape(batch, -1))
        else:
            member.evaluate(operation, batch, z)


def serve_torchrun() -> None:
    """Work for the first process that torchrun started, as one of the others."""
    run_together(serve, None, 1, on_gpus=False)


class _Member:
    """One of the processes, with its shards: what each does in the same way.

    Args:
        group: the processes.
        shares: for each process a job with its shards, and the number of all shards; None in all but the first.
    """

    def __init__(self, group: ProcessGroup, shares: Sequence[tuple[Job, int]] | None) -> None:
        self._group = group
        job, self._n_shards = group.deal(shares)
        self._work = ShardWork(job)

    def evaluate(self, operation: str, batch: int, z: FloatArray) -> FloatArray:
        """Evaluate its shards; returns the results of all, in the first process."""
        mine = torch.from_numpy(self._work.run(operation, z, batch))
        return self._group.gather_in_first(mine, self._n_shards).numpy()

    def errors(self, zs: FloatArray) -> list[list[ErrorRow]]:
        """Evaluate force fields on its molecules; returns the errors in all shards, in the first process."""
        return self._group.gather_objects_in_first(self._work.errors(zs), self._n_shards)


def _exchange(group: ProcessGroup, operation: str, batch: int, z: FloatArray) -> tuple[str, int, FloatArray]:
    """Tell all processes what the first is to do; what the others give is of no account."""
    header = torch.tensor([_OPERATIONS.index(operation), batch, len(z)])
    group.copy_from_first(header)
    number, batch, n = header.tolist()
    parameters = torch.tensor(z, dtype=torch.float64) if group.is_first else torch.empty(n, dtype=torch.float64)
    group.copy_from_first(parameters)
    return _OPERATIONS[number], batch, parameters.numpy()
