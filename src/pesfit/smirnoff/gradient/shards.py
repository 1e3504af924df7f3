"""Shards of the data, evaluated by one process or by several together.

The data are cut into batches, each batch into shards, and each shard's part of a batch into chunks of molecules that are evaluated at
once. The cut depends on the data and the parameters alone; sums run over chunks in order and then over shards in order, so that the
result does not depend on which process has which shard.

The first process leads: it sends the parameters, every process evaluates its shards, and the leader gathers each shard's result and
adds them in the order of the shards. (An all-reduce would add them in an order that depends on the number of processes.)
Every process but the first runs `serve`; of those that torchrun started, by way of `serve_torchrun`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import LostProcessError
from pesfit.core.launch import run_together, together
from pesfit.core.process_group import ProcessGroup
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import TRAIN, SplitArray
from pesfit.data.topology import Topology
from pesfit.params.fit_smirnoff import Loss
from pesfit.smirnoff.errors import ErrorRow
from pesfit.smirnoff.fit_data import MoleculeRows, cut
from pesfit.smirnoff.gradient.objective import LossTerms, MoleculeResiduals, ResidualBlock, losses
from pesfit.smirnoff.gradient.preparation import MoleculePreparation, PreparationSettings

_CHUNK_COST = 20_000
"""Conformers times atoms of a chunk: some MB, which stay in a core's cache between the product and its transpose."""
N_NUMBERS = 4
"""Loss of energies, loss of forces, Σ (ΔE)², Σ |ΔF|²."""
_OPERATIONS = ("stop", "errors", "count", "train", "validate", "curvature")
_COST_WORTH_A_PROCESS = 2e8
"""Conformers times atoms times epochs, some ten seconds of work, below which the start of a process takes longer than it saves."""


@dataclass(frozen=True)
class FitMolecule:
    """A molecule with all that is needed to prepare it.

    Attributes:
        rows: of its data set.
        topology: its terms, with the periodicities that were added.
        splits: of each row's conformers.
    """

    rows: MoleculeRows
    topology: Topology
    splits: tuple[SplitArray, ...]

    @property
    def is_trained_on(self) -> bool:
        """Whether a conformer is in the training set."""
        return any(bool((split == TRAIN).any()) for split in self.splits)


@dataclass(frozen=True)
class Chunk:
    """Molecules that are evaluated at once.

    Attributes:
        batch: the batch they belong to, -1 where none is trained on.
        molecules: in order.
    """

    batch: int
    molecules: tuple[FitMolecule, ...]


@dataclass(frozen=True)
class ShardsJob:
    """Work of one process.

    Attributes:
        setting: of all molecules.
        loss: of errors.
        datasets: where they are, by name.
        shards: the chunks of each of the process's shards.
        memory: bytes that prepared molecules may take.
    """

    setting: PreparationSettings
    loss: Loss
    datasets: Mapping[str, Path]
    shards: tuple[tuple[Chunk, ...], ...]
    memory: float


def divide(molecules: Sequence[FitMolecule], n_shards: int, batch_size: int | None, seed: int) -> tuple[list[list[Chunk]], int]:
    """Cut molecules into batches, shards and chunks.

    Args:
        molecules: all of them.
        n_shards: number of shards.
        batch_size: molecules in a batch; None for a single batch.
        seed: of the order in which molecules are put into batches.

    Returns:
        The chunks of each shard, and the number of batches.
    """
    trained = [molecule for molecule in molecules if molecule.is_trained_on]
    others = [molecule for molecule in molecules if not molecule.is_trained_on]
    if batch_size is not None:
        trained = [trained[i] for i in np.random.default_rng(seed).permutation(len(trained))]
    size = batch_size or max(len(trained), 1)
    batches = [trained[start : start + size] for start in range(0, len(trained), size)]
    shards: list[list[Chunk]] = [[] for _ in range(n_shards)]
    for batch, members in [*enumerate(batches), (-1, others)]:
        by_rows = {molecule.rows: molecule for molecule in members}
        for piece, rows in enumerate(cut([molecule.rows for molecule in members], n_shards)):
            shards[(piece + batch) % n_shards].extend(_chunks(batch, [by_rows[row] for row in rows]))
    return shards, len(batches)


def _chunks(batch: int, molecules: Sequence[FitMolecule]) -> Iterator[Chunk]:
    waiting: list[FitMolecule] = []
    cost = 0
    for molecule in molecules:
        if waiting and cost + molecule.rows.cost > _CHUNK_COST:
            yield Chunk(batch, tuple(waiting))
            waiting, cost = [], 0
        waiting.append(molecule)
        cost += molecule.rows.cost
    if waiting:
        yield Chunk(batch, tuple(waiting))


@dataclass(frozen=True)
class _Prepared:
    """The training and the validation part of a chunk."""

    train: ResidualBlock | None
    validation: ResidualBlock | None


class ShardWork:
    """Evaluates the shards of a job.

    Args:
        job: shards and settings.
    """

    def __init__(self, job: ShardsJob) -> None:
        self._job, self._coefficients = job, job.setting.coefficients
        self._terms = LossTerms(*losses(job.loss), job.setting.objective.energy_zero)
        self._datasets = {name: ConformerDataset(path) for name, path in job.datasets.items()}
        self._kept: dict[tuple[int, int], _Prepared] = {}
        self._free = job.memory
        n = self._coefficients.n_parameters
        self._operations: dict[str, tuple[Callable[[FloatArray, int], FloatArray], int]] = {
            "count": (self._count, N_NUMBERS),
            "train": (self._train, N_NUMBERS + n + len(self._coefficients.shifts)),
            "validate": (self._validate, N_NUMBERS),
            "curvature": (self._curvature, n * n),
        }

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self._job.shards)

    def length(self, operation: str) -> int:
        """Return how many numbers an operation gives for each shard."""
        return self._operations[operation][1]

    def run(self, operation: str, z: FloatArray, batch: int) -> FloatArray:
        """Evaluate all shards.

        Args:
            operation: `count`: numbers of energies and force components that count, of training and of validation set. `train`: the
                four numbers of `ResidualBlock.evaluate`, gradients by z and by m of the harmonics. `validate`: the four numbers.
                `curvature`: half the Gauss-Newton Hessian by z.
            z: the parameters, shape (n_parameters,).
            batch: of `train`.

        Returns:
            Shape (n_shards, `length(operation)`).

        Raises:
            DataError: where a loss is not finite; names molecule and conformer.
        """
        return self._operations[operation][0](z, batch)

    def errors(self, zs: FloatArray) -> list[list[ErrorRow]]:
        """Evaluate force fields on all splits; molecules are prepared for it one at a time.

        Args:
            zs: parameters, shape (n_force_fields, n_parameters).

        Returns:
            For each shard the errors of its molecules.
        """
        values = [self._coefficients.at(z).values for z in zs]
        return [[_errors(part, values) for chunk in chunks for part in self._parts(chunk)] for chunks in self._job.shards]

    def _parts(self, chunk: Chunk) -> Iterator[MoleculeResiduals]:
        ready: tuple[int, MoleculePreparation] | None = None
        for molecule in chunk.molecules:
            rows = molecule.rows
            if ready is None or ready[0] != rows.topology:
                ready = rows.topology, MoleculePreparation(molecule.topology, rows.topology, self._job.setting)
            yield from ready[1].parts(rows, [self._datasets[rows.dataset][row] for row in rows.rows], molecule.splits)

    def _prepared(self, shard: int, number: int) -> _Prepared:
        kept = self._kept.get((shard, number))
        if kept is not None:
            return kept
        by_split: dict[str, list[MoleculeResiduals]] = {"train": [], "validation": [], "test": []}
        for part in self._parts(self._job.shards[shard][number]):
            by_split[part.split].append(part)
        train, validation = (ResidualBlock(by_split[name]) if by_split[name] else None for name in ("train", "validation"))
        prepared = _Prepared(train, validation)
        size = sum(block.n_bytes for block in (train, validation) if block is not None)
        if size <= self._free:
            self._free -= size
            self._kept[shard, number] = prepared
        return prepared

    def _training(self, shard: int, batch: int | None) -> Iterator[ResidualBlock]:
        for number, chunk in enumerate(self._job.shards[shard]):
            if chunk.batch >= 0 and batch in (None, chunk.batch):
                block = self._prepared(shard, number).train
                if block is not None:
                    yield block

    def _validation(self, shard: int) -> Iterator[ResidualBlock]:
        for number in range(len(self._job.shards[shard])):
            block = self._prepared(shard, number).validation
            if block is not None:
                yield block

    def _count(self, _z: FloatArray, _batch: int) -> FloatArray:
        result = np.zeros((self.n_shards, N_NUMBERS))
        for shard in range(self.n_shards):
            for block in self._training(shard, None):
                result[shard, :2] += block.n_energies, block.n_components
            for block in self._validation(shard):
                result[shard, 2:] += block.n_energies, block.n_components
        return result

    def _train(self, z: FloatArray, batch: int) -> FloatArray:
        point, shifts = self._coefficients.at(z), self._coefficients.shifts
        result = np.zeros((self.n_shards, self.length("train")))
        for shard in range(self.n_shards):
            gradient, found = np.zeros(self._coefficients.n_coefficients), False
            for block in self._training(shard, batch):
                numbers, local = block.evaluate(point.values, self._terms)
                result[shard, :N_NUMBERS] += numbers
                gradient[block.columns] += local
                found = True
            if found:
                result[shard, N_NUMBERS : N_NUMBERS + len(z)] = self._coefficients.pulled(point, gradient)
                result[shard, N_NUMBERS + len(z) :] = gradient[shifts]
        return result

    def _validate(self, z: FloatArray, _batch: int) -> FloatArray:
        values = self._coefficients.at(z).values
        result = np.zeros((self.n_shards, N_NUMBERS))
        for shard in range(self.n_shards):
            for block in self._validation(shard):
                result[shard] += block.numbers(values, self._terms)
        return result

    def _curvature(self, z: FloatArray, _batch: int) -> FloatArray:
        point = self._coefficients.at(z)
        slopes = self._coefficients.jacobian(point)
        result = np.zeros((self.n_shards, len(z), len(z)))
        for shard in range(self.n_shards):
            for block in self._training(shard, None):
                result[shard] += block.normal_matrix(point.values, slopes, self._terms)
        return result.reshape(self.n_shards, -1)


def _errors(part: MoleculeResiduals, values: Sequence[FloatArray]) -> ErrorRow:
    block = ResidualBlock([part])
    sums = np.array([block.error_sums(each)[0] for each in values])
    return ErrorRow(part.molecule, part.source, part.split, len(part.labels), len(part.force_target), sums)


@contextlib.contextmanager
def gather_team(job: ShardsJob, n_epochs: int) -> Iterator[Team]:
    """Start as many processes as there are cores, shards, and enough work for; or join those that torchrun started.

    Args:
        job: with all shards.
        n_epochs: how often they may be evaluated.

    Raises:
        PesfitError: where another process failed or was lost.
    """
    cost = sum(molecule.rows.cost for chunks in job.shards for chunk in chunks for molecule in chunk.molecules)
    most = len(job.shards) if cost * n_epochs > _COST_WORTH_A_PROCESS else 1
    with together(serve, None, most, on_gpus=False, memory_param="fit_smirnoff.gradient.memory_gib") as group:
        team = Team(group, job)
        yield team
        team.dismiss()


class Team:
    """Processes that share the shards; the first one leads.

    Args:
        group: the processes.
        job: with all shards, of which each process is sent its own; None in all processes but the first.
    """

    def __init__(self, group: ProcessGroup, job: ShardsJob | None) -> None:
        self._group = group
        shares = None
        if job is not None:
            shares = [(replace(job, shards=tuple(shards)), len(job.shards)) for shards in group.shares_of(job.shards)]
        own, self._n_shards = group.deal(shares)
        self._work = ShardWork(own)

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._group.size

    def run(self, operation: str, z: FloatArray, batch: int = 0) -> FloatArray:
        """Evaluate all shards (`ShardWork.run`); returns shape (n_shards, n)."""
        self._exchange(operation, batch, z)
        return self._evaluate(operation, z, batch)

    def errors(self, zs: FloatArray) -> list[ErrorRow]:
        """Evaluate force fields on all molecules (`ShardWork.errors`), in the order of the shards."""
        self._exchange("errors", len(zs), zs.ravel())
        return [row for rows in self._errors(zs) for row in rows]

    def dismiss(self) -> None:
        """End the others."""
        with contextlib.suppress(LostProcessError):  # they have done their work
            self._exchange("stop", 0, np.zeros(0))

    def serve(self) -> None:
        """Work for the first process until it ends this one."""
        while True:
            operation, batch, z = self._exchange("stop", 0, np.zeros(0))
            if operation == "stop":
                return
            if operation == "errors":
                self._errors(z.reshape(batch, -1))
            else:
                self._evaluate(operation, z, batch)

    def _evaluate(self, operation: str, z: FloatArray, batch: int) -> FloatArray:
        """Evaluate the shards of this process; returns the results of all, in the first process."""
        own = torch.from_numpy(self._work.run(operation, z, batch))
        return self._group.gather_in_first(own, self._n_shards).numpy()

    def _errors(self, zs: FloatArray) -> list[list[ErrorRow]]:
        return self._group.gather_objects_in_first(self._work.errors(zs), self._n_shards)

    def _exchange(self, operation: str, batch: int, z: FloatArray) -> tuple[str, int, FloatArray]:
        """Send the operation of the first process to all; the arguments of the others are ignored."""
        header = torch.tensor([_OPERATIONS.index(operation), batch, len(z)])
        self._group.copy_from_first(header)
        number, batch, n = header.tolist()
        parameters = torch.tensor(z, dtype=torch.float64) if self._group.is_first else torch.empty(n, dtype=torch.float64)
        self._group.copy_from_first(parameters)
        return _OPERATIONS[number], batch, parameters.numpy()


def serve(group: ProcessGroup, _: None = None) -> None:
    """Work for the first process until it ends this one."""
    Team(group, None).serve()


def serve_torchrun() -> None:
    """Work for the first process that torchrun started, as one of the others."""
    run_together(serve, None, 1, on_gpus=False)
