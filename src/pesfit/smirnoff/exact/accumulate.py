"""One pass over the data in worker processes: every shard becomes a file of its molecules' statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError
from pesfit.core.parallel import ordered_map
from pesfit.core.units import BOLTZMANN
from pesfit.data.dataset import ConformerDataset, Record
from pesfit.data.splits import SPLITS, SplitArray, Splits
from pesfit.data.topology import ForceField, ParameterizedSet, Topology
from pesfit.params.fit_smirnoff import ConformerWeight
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics, merged
from pesfit.smirnoff.exact.shard_file import FORMAT_VERSION, Entry, Shard, load_shard, save_shard
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout
from pesfit.smirnoff.periodicities import Extension
from pesfit.smirnoff.plan import MoleculeRows

STAGE = "fit_smirnoff"
WORTH_WORKERS = 2_000_000
"""Conformers times atoms, about 4 s of work, below which starting worker processes takes longer than they save."""


@dataclass(frozen=True)
class Setup:
    """What all shards have in common."""

    force_field: ForceField
    layout: Layout
    conformer_weight: ConformerWeight
    datasets: dict[str, Path]


@dataclass(frozen=True)
class _Job:
    """A shard's work: it depends on nothing else, and `digest` stands for all of it."""

    setup: Setup
    molecules: Sequence[MoleculeRows]
    topologies: Sequence[Topology]
    splits: Sequence[Sequence[SplitArray]]
    digest: str
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.digest}.npz"


@dataclass(frozen=True)
class Inputs:
    """What is fitted to.

    Attributes:
        datasets: by name.
        parameterized: holds the topologies of their molecules.
        splits: of their conformers.
    """

    datasets: Mapping[str, ConformerDataset]
    parameterized: ParameterizedSet
    splits: Splits

    def paths(self) -> dict[str, Path]:
        """Return where the data sets are."""
        return {name: dataset.path.resolve() for name, dataset in self.datasets.items()}


def accumulate(
    inputs: Inputs, molecules: Sequence[Sequence[MoleculeRows]], setup: Setup, extension: Extension, scratch: Path
) -> list[Path]:
    """Make the statistics of all molecules.

    A shard that a run before has finished, from the very same input, is taken from `scratch`.

    Args:
        inputs: the data.
        molecules: of the data sets, cut into shards (`plan`).
        setup: what shards have in common.
        extension: gives topologies the periodicities that were added.
        scratch: folder for the shards' files.

    Returns:
        The files, in the order of the shards.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    common = _digest_of(setup, inputs.datasets)

    def jobs() -> Iterator[_Job]:
        for shard in molecules:
            topologies = [extension.extend(inputs.parameterized[molecule.topology]) for molecule in shard]
            splits = [[inputs.splits.of(molecule.dataset, id) for id in molecule.ids] for molecule in shard]  # noqa: A001
            yield _Job(setup, shard, topologies, splits, _digest(common, shard, topologies, splits), scratch)

    if sum(molecule.cost for shard in molecules for molecule in shard) < WORTH_WORKERS:
        return [_run(job) for job in tqdm(jobs(), desc=STAGE, total=len(molecules), unit="shard", dynamic_ncols=True)]
    return list(ordered_map(_run, jobs(), label=STAGE, n_items=len(molecules), unit="shard"))


def _run(job: _Job) -> Path:
    if not job.path.is_file():
        opened = {name: ConformerDataset(path) for name, path in job.setup.datasets.items()}
        entries: list[Entry] = []
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
        save_shard(job.path, Shard(tuple(entries), tuple(failures)))
    return job.path


def check_rows(records: Sequence[Record], splits: Sequence[SplitArray]) -> None:
    """Check a molecule's rows before anything is made of them.

    Args:
        records: the rows.
        splits: of each row's conformers.

    Raises:
        DataError: naming the row and the conformer, where a label is not finite or there are more splits than conformers.
    """
    for record, split in zip(records, splits, strict=True):
        record.validate()
        if len(split) != record.n_conformers:
            raise DataError(f"{record.id}: {record.n_conformers} conformers, but the splits know {len(split)}; split again")


def molecule_entries(
    molecule: MoleculeRows,
    records: Sequence[Record],
    splits: Sequence[SplitArray],
    features: MoleculeFeatures,
    conformer_weight: ConformerWeight,
) -> Iterator[Entry]:
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
            if conformer_weight.kind == "uniform":
                yield Entry(molecule.id, molecule.source, name, whole, whole)
            else:
                yield Entry(molecule.id, molecule.source, name, whole, merged(weighted) if weighted else whole.nothing())


def conformer_weights(above_lowest: FloatArray, params: ConformerWeight) -> FloatArray:
    """Weigh conformers by their energy.

    Args:
        above_lowest: label minus the molecule's lowest, [kcal/mol], shape (n_conformers,).
        params: the rule.

    Returns:
        Weights from 0 to 1, shape (n_conformers,); below 1e-6 they are 0.
    """
    if params.kind == "window":
        return np.asarray(above_lowest <= params.window, dtype=np.float64)
    if params.kind == "boltzmann":
        weights = np.exp(-above_lowest / (BOLTZMANN * params.temperature_kelvin))
        return np.where(weights < 1e-6, 0.0, weights)
    return np.ones(len(above_lowest))


def _statistics(features: MoleculeFeatures, part: Record, weights: FloatArray | None) -> MoleculeStatistics:
    return MoleculeStatistics.of(features, part.coords, part.energy, part.forces, weights)


def read(paths: Sequence[Path]) -> Iterator[Shard]:
    """Read shards one at a time, in order."""
    for path in paths:
        yield load_shard(path)


def _digest_of(setup: Setup, datasets: Mapping[str, ConformerDataset]) -> bytes:
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
