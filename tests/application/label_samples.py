"""Data sets to label, with labels that are nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.chemistry.smiles import group_of, mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from tests.sources.synthetic import make_frames


def row(molecule: str, n_conformers: int = 3, **changes: Any) -> Record:
    """Conformers that differ by random displacements."""
    frames = make_frames(molecule, n_conformers)
    charge = sum(atom.GetFormalCharge() for atom in frames.mol.GetAtoms())
    given = {
        "id": molecule,
        "smiles": mapped_smiles(frames.mol),
        "total_charge": charge,
        "group": group_of(frames.mol),
        "source": "made",
        "frame": 10 * np.arange(n_conformers),
    }
    return frames.record(**{**given, **changes})


def with_coords(record: Record, coords: FloatArray) -> Record:
    """Other conformers of the same molecule, labels 0."""
    n = len(coords)
    values = {**vars(record), "coords": coords, "energy": np.zeros(n), "forces": np.zeros_like(coords), "frame": np.arange(n)}
    return Record(**values)


def write(path: Path, records: Sequence[Record]) -> ConformerDataset:
    with DatasetWriter(path, {record.source: "nobody's" for record in records}) as writer:
        for record in records:
            writer.write(record)
    return ConformerDataset(path)
