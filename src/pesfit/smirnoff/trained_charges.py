"""Partial charges that a fit by descent trained: they belong to the molecules of the fit, and no force field can hold them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from pesfit.chemistry.smiles import group_of
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, MoleculeError
from pesfit.parameterize.molecule import read_mapped_smiles

COLUMNS = ("smiles", "atom", "charge_after")


class TrainedCharges:
    """The charges of the molecules of a fit.

    Args:
        path: `charges.csv`, as stage 06 writes it.

    Raises:
        DataError: where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            charges = _read(path)
            molecules = [read_mapped_smiles(smiles) for smiles in charges]
        except (OSError, ValueError, KeyError, TypeError, MoleculeError) as error:
            raise DataError(
                f"{path} cannot be read as the charges of a fit, with the columns {', '.join(COLUMNS)}: {type(error).__name__}: {error}"
            ) from error
        self._known = {group_of(mol): (mol, np.array(of)) for mol, of in zip(molecules, charges.values(), strict=True)}

    def of(self, smiles: str) -> FloatArray | None:
        """Return the charges of a molecule [e], shape (n_atoms,), whatever the order of its atoms; None where it was not in the fit.

        Args:
            smiles: mapped.

        Raises:
            MoleculeError: where it cannot be read.
        """
        mol = read_mapped_smiles(smiles)
        known = self._known.get(group_of(mol))
        if known is None:
            return None
        match = mol.GetSubstructMatch(known[0], useChirality=True) or mol.GetSubstructMatch(known[0])
        if len(match) != mol.GetNumAtoms():
            return None
        charges = np.empty(len(match))
        charges[list(match)] = known[1]
        return charges


def _read(path: Path) -> dict[str, list[float]]:
    """Return the charges [e] of each mapped SMILES, by map number."""
    charges: dict[str, list[float]] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            of_molecule = charges.setdefault(row["smiles"], [])
            of_molecule.append(float(row["charge_after"]))
            if int(row["atom"]) != len(of_molecule):
                raise ValueError(f"atom {row['atom']} of {row['smiles']} comes after {len(of_molecule) - 1} others")
    return charges
