"""Geometries of files, such as a trajectory of `pesfit md`, as a data set without labels, which `label_dataset` gives them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem

from pesfit.application.geometries import Geometry
from pesfit.chemistry.smiles import group_of, mapped_molecule
from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record

NO_LABELS = "none"
"""Level of theory of the energies and forces, which are all 0."""


def write_geometries(path: Path, geometries: Sequence[Geometry], source: str) -> ConformerDataset:
    """Write geometries as a data set; successive ones of one molecule are a row, or several if they are many.

    Args:
        path: folder.
        geometries: at least one; bonds say which molecule a geometry is of, so that it goes to the right split.
        source: of all rows; their ids are `<source>/<number of the molecule>/<number of the row>`.

    Raises:
        DataError: where a geometry has no SMILES.
    """
    with DatasetWriter(path, {source: NO_LABELS}) as writer:
        for number, (_, frames) in enumerate(itertools.groupby(geometries, lambda geometry: geometry.molecule)):
            molecule = list(frames)
            first = molecule[0]
            if first.smiles is None:
                raise DataError(
                    f"{first.where} has no SMILES, which says what molecule it is; trajectories of `pesfit md` have one"
                )
            mol = mapped_molecule(first.smiles)
            coords = np.stack([geometry.coords for geometry in molecule])
            record = Record(
                id=f"{source}/{number:04d}",
                smiles=first.smiles,
                atomic_numbers=first.atomic_numbers,
                coords=coords,
                energy=np.zeros(len(coords)),
                forces=np.zeros_like(coords),
                charges=None,
                total_charge=int(Chem.GetFormalCharge(mol)),
                group=group_of(mol),
                source=source,
                frame=np.arange(len(coords)),
            )
            for row in record.rows():
                writer.write(row)
    return ConformerDataset(path)
