"""From the data to the normal equations: one pass in worker processes, and the sum over molecules.

The pass leaves a file of molecules' statistics for each shard, so that a run that was killed resumes, and weights, normalization, and
energy zero (`fit_data`) are applied afterwards. With `energy_zero: none` the constants d = m²/(2k) of harmonic terms stay in the
energy. They are kept as further, constant features, and d(x) is linearized where it is needed (`FitEquations.linearised`); forces and
relative energies do not depend on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.splits import SPLITS, SplitArray
from pesfit.data.topology import ForceField, Topology
from pesfit.params.fit_smirnoff import ConformerWeight, Objective
from pesfit.smirnoff.exact.molecule_statistics import (
    FORMAT_VERSION,
    MoleculeInSplit,
    MoleculeStatistics,
    ShardStatistics,
    load_shard,
    merged,
    save_shard,
)
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows, check_rows, conformer_weights, factors
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations

STAGE = "fit_smirnoff"
WORTH_WORKERS = 2_000_000
"""Conformers times atoms, about 4 s of work, below which starting worker processes takes longer than they save."""


@dataclass(frozen=True)
class PassSettings:
    """Settings of all shards."""

    force_field: ForceField
    layout: Layout
    conformer_weight: ConformerWeight
    datasets: dict[str, Path]


@dataclass(frozen=True)
class _ShardJob:
    """A shard's work: it depends on nothing else, and `digest` stands for all of it."""

    setup: PassSettings
    molecules: Sequence[MoleculeRows]
    topologies: Sequence[Topology]
    splits: Sequence[Sequence[SplitArray]]
    digest: str
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.digest}.pickle"


def accumulate(
    inputs: FitInputs,
    molecules: Sequence[Sequence[MoleculeRows]],
    setup: PassSettings,
    extension: AddedPeriodicities,
    scratch: Path,
) -> list[Path]:
    """Make the statistics of all molecules.

    A shard that a run before has finished, from the very same input, is taken from `scratch`.

    Args:
        inputs: the data.
        molecules: of the data sets, cut into shards (`plan`).
        setup: of all shards.
        extension: gives topologies the periodicities that were added.
        scratch: folder for the shards' files.

    Returns:
        The files, in the order of the shards.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    common = _digest_of(setup, inputs.datasets)

    def jobs() -> Iterator[_ShardJob]:
        for shard in molecules:
            topologies = [extension.extend(inputs.parameterized[molecule.topology]) for molecule in shard]
            splits = [[inputs.splits.of(molecule.dataset, id) for id in molecule.ids] for molecule in shard]  # noqa: A001
            yield _ShardJob(setup, shard, topologies, splits, _digest(common, shard, topologies, splits), scratch)

    if sum(molecule.cost for shard in molecules for molecule in shard) < WORTH_WORKERS:
        return [_run(job) for job in tqdm(jobs(), desc=STAGE, total=len(molecules), unit="shard", dynamic_ncols=True)]
    return list(ordered_map(_run, jobs(), label=STAGE, n_items=len(molecules), unit="shard"))


def _run(job: _ShardJob) -> Path:
    if not job.path.is_file():
        opened = {name: ConformerDataset(path) for name, path in job.setup.datasets.items()}
        entries: list[MoleculeInSplit] = []
        failures: list[Failure] = []
        features: tuple[int, MoleculeFeatures] | None = None
        for molecule, topology, splits in zip(job.molecules, job.topologies, job.splits, strict=True):
            records = [opened[molecule.dataset][row] for row in molecule.rows]
            try:
                if features is None or features[0] != molecule.topology:
                    features = molecule.topology, MoleculeFeatures(topology, job.setup.force_field, job.setup.layout)
                entries.extend(molecule_entries(molecule, records, splits, features[1], job.setup.conformer_weight))
            except (MoleculeError, DataError) as error:
                failures.append(Failure.from_exception(molecule.id, STAGE, error))
        save_shard(job.path, ShardStatistics(tuple(entries), tuple(failures)))
    return job.path


def molecule_entries(
    molecule: MoleculeRows,
    records: Sequence[Record],
    splits: Sequence[SplitArray],
    features: MoleculeFeatures,
    conformer_weight: ConformerWeight,
) -> Iterator[MoleculeInSplit]:
    """Make the statistics of one molecule, for each split that it has conformers in.

    Args:
        molecule: its rows.
        records: the rows.
        splits: of each row's conformers.
        features: of the molecule.
        conformer_weight: weight of each conformer in the objective.

    Raises:
        DataError: naming the row and the conformer, where a label is not finite or there are more splits than conformers.
        MoleculeError: where atoms coincide.
    """
    check_rows(records, splits)
    lowest = min(float(record.energy.min()) for record in records)
    for name, number in SPLITS.items():
        plain, weighted = [], []
        for record, split in zip(records, splits, strict=True):
            part = record.select(np.flatnonzero(split == number))
            if not part.n_conformers:
                continue
            plain.append(_statistics(features, part, None))
            if conformer_weight.kind != "uniform":
                weights = conformer_weights(part.energy - lowest, conformer_weight)
                counting = np.flatnonzero(weights > 0.0)
                if len(counting):
                    weighted.append(_statistics(features, part.select(counting), weights[counting]))
        if plain:
            whole = merged(plain)
            weighed = whole if conformer_weight.kind == "uniform" else merged(weighted) if weighted else None
            yield MoleculeInSplit(molecule.id, molecule.source, name, whole, weighed)


def _statistics(features: MoleculeFeatures, part: Record, weights: FloatArray | None) -> MoleculeStatistics:
    return MoleculeStatistics.of(features, part.coords, part.energy, part.forces, weights)


def read(paths: Sequence[Path]) -> Iterator[ShardStatistics]:
    """Read shards one at a time, in order."""
    for path in paths:
        yield load_shard(path)


def _digest_of(setup: PassSettings, datasets: Mapping[str, ConformerDataset]) -> bytes:
    digest = hashlib.sha256(f"{FORMAT_VERSION} {setup.conformer_weight.model_dump_json()}".encode())
    for table in setup.force_field.tables.values():
        digest.update(table.values.tobytes())
    digest.update(repr((setup.force_field.vdw_scale_14, setup.force_field.electrostatics_scale_14)).encode())
    for field in ("handler", "row", "is_shift"):
        digest.update(getattr(setup.layout, field).tobytes())
    for name, dataset in datasets.items():
        digest.update(f"{name} {(dataset.path / 'state.json').read_text()}".encode())
    return digest.digest()


def _digest(
    common: bytes, molecules: Sequence[MoleculeRows], topologies: Sequence[Topology], splits: Sequence[Sequence[SplitArray]]
) -> str:
    digest = hashlib.sha256(common)
    for molecule, topology, rows in zip(molecules, topologies, splits, strict=True):
        digest.update(repr((molecule.dataset, molecule.rows, molecule.source)).encode())
        for field in fields(topology):
            value: Any = getattr(topology, field.name)
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else str(value).encode())
        for row in rows:
            digest.update(row.tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class FitEquations:
    """The objective of each split, with weights of energies and forces still open.

    Attributes:
        equations: by split; over x, and with `energy_zero: none` over the constants d of the shifts behind it.
        layout: meaning of x.
    """

    equations: Mapping[str, NormalEquations]
    layout: Layout

    @property
    def is_linear(self) -> bool:
        """Whether the energy is linear in x."""
        return all(parts.n_parameters == len(self.layout) for parts in self.equations.values())

    def linearised(self, split: str, x: FloatArray) -> NormalEquations:
        """Return the normal equations of a split over x, exact where the energy is linear and of first order about x elsewhere."""
        if self.is_linear:
            return self.equations[split]
        value, jacobian = constants(self.layout, x)
        matrix = np.vstack([np.eye(len(x)), jacobian])
        return self.equations[split].transformed(matrix, np.concatenate([np.zeros(len(x)), value - jacobian @ x]))

    def sums_of_squares(self, split: str, x: FloatArray) -> dict[str, float]:
        """Return the part of the objective of a split that each kind of rows has, without the kinds' weights."""
        full = x if self.is_linear else np.concatenate([x, constants(self.layout, x)[0]])
        return self.equations[split].sums_of_squares(full)

    def with_rows(self, rows: Mapping[str, NormalEquations]) -> FitEquations:
        """Return the same with kinds of rows added, or put in the place of those of the same name.

        Args:
            rows: by split, over x.
        """
        equations = dict(self.equations)
        for split, more in rows.items():
            columns = np.arange(len(self.layout))
            padded = {kind: Moments.zeros(equations[split].n_parameters).add_at(columns, part) for kind, part in more.items()}
            equations[split] = NormalEquations({**equations[split]} | padded)
        return FitEquations(equations, self.layout)


def constants(layout: Layout, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Evaluate d = m²/(2k) of each shift.

    Returns:
        d [kcal/mol], shape (n_shifts,), and its derivatives by x, shape (n_shifts, n).
    """
    shifts = np.flatnonzero(layout.is_shift)
    partner = layout.partners()[shifts]
    k = layout.k[shifts] + np.where(partner >= 0, x[partner], 0.0)
    k = np.maximum(k, 1e-9 * np.maximum(layout.k[shifts], 1.0))
    m = x[shifts]
    jacobian = np.zeros((len(shifts), len(x)))
    number = np.arange(len(shifts))
    jacobian[number, shifts] = m / k
    with_partner = partner >= 0
    jacobian[number[with_partner], partner[with_partner]] = -0.5 * (m / k)[with_partner] ** 2
    return 0.5 * m**2 / k, jacobian


def assemble(shards: Iterable[ShardStatistics], layout: Layout, objective: Objective, splits: Iterable[str]) -> FitEquations:
    """Add up the normal equations of molecules, in order.

    Args:
        shards: in order.
        layout: meaning of x.
        objective: weights and normalization.
        splits: names of those wanted.
    """
    with_constants = objective.energy_zero == "none" and bool(layout.is_shift.any())
    n = len(layout) + (int(layout.is_shift.sum()) if with_constants else 0)
    number = len(layout) + np.cumsum(layout.is_shift) - 1
    sums = {split: NormalEquations.zeros(n) for split in splits}
    for shard in shards:
        for entry in shard.entries:
            if entry.split not in sums or entry.weighted is None:
                continue
            statistics = entry.weighted
            columns = statistics.columns
            parts = statistics.equations(objective.energy_zero)
            if with_constants:
                shifts = layout.is_shift[columns]
                parts = statistics.equations_with_constants(np.flatnonzero(shifts))
                columns = np.concatenate([columns, number[columns[shifts]]])
            parts = normalized(parts, statistics, entry.source, objective)
            total = sums[entry.split]
            sums[entry.split] = NormalEquations({kind: total[kind].add_at(columns, part) for kind, part in parts.items()})
    return FitEquations(sums, layout)


def normalized(parts: NormalEquations, statistics: MoleculeStatistics, source: str, objective: Objective) -> NormalEquations:
    """Return a molecule's energies and forces as they count in the objective, the weights of kinds still open (`fit_data`)."""
    energy, forces = factors(statistics.n_atoms, statistics.weight, source, objective)
    return NormalEquations({ENERGIES: parts[ENERGIES].scaled(energy), FORCES: parts[FORCES].scaled(forces)})
