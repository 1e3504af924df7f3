"""Ask GFN2-xTB about frames of a trajectory: how wrong were the forces that made it, and what would it teach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pesfit.arrays import FloatArray
from pesfit.dataset import ConformerDataset, DatasetWriter, Record, write_failures
from pesfit.errors import Failure, MoleculeError
from pesfit.gfn2 import LEVEL_OF_THEORY
from pesfit.parallel import ordered_map
from pesfit.potentials.base import Conformers, Potential, collate
from pesfit.potentials.build import build_gfn2
from pesfit.simulate.replicas import Molecule


def relabel(records: Iterable[Record], n_records: int | None = None) -> Iterator[Record | Failure]:
    """Replace energies and forces by those of GFN2-xTB, in worker processes.

    Conformers for which there are none are left out; a record that has none left, or an element that GFN2-xTB lacks, is a failure.

    Args:
        records: such as a trajectory's.
        n_records: how many, for the progress bar.
    """
    return ordered_map(_relabel_one, records, label="relabel", n_items=n_records)


def relabel_dataset(dataset: ConformerDataset, output: Path) -> list[Failure]:
    """Write a data set like another, with labels of GFN2-xTB, and `failures.csv` beside it: a trajectory becomes training data.

    Args:
        dataset: with any labels.
        output: folder.

    Returns:
        The records that could not be labelled.
    """
    failures = []
    with DatasetWriter(output, dict.fromkeys(dataset.level_of_theory, LEVEL_OF_THEORY)) as writer:
        for result in relabel(dataset, len(dataset)):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                writer.write(result)
    write_failures(output / "failures.csv", failures)
    return failures


def gfn2_forces(molecule: Molecule, coords: FloatArray) -> FloatArray:
    """Return GFN2-xTB's forces [kcal/mol/Å], NaN where it has none.

    Args:
        molecule: whose replicas do not matter.
        coords: [Å], shape (n_frames, n_atoms, 3), like the result.

    Raises:
        MoleculeError: if the method does not cover the molecule.
    """
    numbers = torch.from_numpy(molecule.atomic_numbers.astype(np.int64))
    return _predict(build_gfn2(), numbers, coords, molecule.total_charge)[1]


def _relabel_one(record: Record) -> Record | Failure:
    try:
        numbers = torch.from_numpy(record.atomic_numbers.astype(np.int64))
        energy, forces = _predict(build_gfn2(), numbers, record.coords, record.total_charge)
    except MoleculeError as error:
        return Failure.from_exception(record.id, "relabel", error)
    labelled = np.flatnonzero(np.isfinite(energy))
    if not len(labelled):
        nothing = MoleculeError(f"GFN2-xTB has no energy for any of {record.n_conformers} conformers")
        return Failure.from_exception(record.id, "relabel", nothing)
    return replace(record, energy=energy, forces=forces).select(labelled)


def _predict(
    potential: Potential, atomic_numbers: torch.Tensor, coords: FloatArray, total_charge: int
) -> tuple[FloatArray, FloatArray]:
    conformers = torch.from_numpy(np.array(coords, dtype=np.float64))
    prediction = potential(collate([Conformers(atomic_numbers, conformers, total_charge=total_charge)]))
    return prediction.energy.numpy(), prediction.forces.reshape(coords.shape).numpy()
