"""Geometries that a user gives: xyz or SDF files, or SMILES, for which conformers are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from pesfit.chemistry.bonds import BondsFromSmiles
from pesfit.chemistry.smiles import elements_of, group_of, is_mapped, mapped_molecule, mapped_smiles, read_smiles
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError, MoleculeError

XYZ, SDF, SMILES = (".xyz", ".extxyz"), (".sdf", ".sd", ".mol"), (".smi", ".smiles")
_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Geometry:
    """One conformer to evaluate.

    Attributes:
        where: its name in messages, such as `ethanol.xyz, frame 3`.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_atoms, 3).
        smiles: mapped; None where bonds are not known.
        note: how it was made, to be reported; empty where it was read.
    """

    where: str
    atomic_numbers: IntArray
    coords: FloatArray
    smiles: str | None
    note: str = ""

    @property
    def molecule(self) -> tuple[str | None, bytes]:
        """SMILES and elements, equal for conformers of one molecule with atoms in the same order."""
        return self.smiles, self.atomic_numbers.tobytes()


def read_geometries(inputs: Sequence[str], smiles: str | None = None, seed: int = 0) -> list[Geometry]:
    """Read everything before anything is computed.

    Args:
        inputs: paths of .xyz, .extxyz, .sdf, .mol, .smi files, or SMILES.
        smiles: the bonds of xyz files. Without it, frames that have a `smiles` among their properties have its bonds.
        seed: of ETKDG.

    Raises:
        DataError: where a file is missing, of another kind, empty, damaged, periodic, without 3D coordinates or hydrogens, or a SMILES
            does not fit; names it.
        MoleculeError: where a SMILES cannot be read, or only some of its atoms are mapped.
    """
    bonds = None if smiles is None else BondsFromSmiles(smiles)
    found: list[Geometry] = []
    for given in inputs:
        before = len(found)
        found.extend(_read(given, bonds, seed))
        if len(found) == before:
            raise DataError(f"{given} holds no molecule")
    return found


def checked(where: str, atomic_numbers: Any, coords: Any, smiles: str | None, note: str = "") -> Geometry:
    """Make a geometry of what a file holds.

    Raises:
        DataError: where there are no atoms, an element is unknown or a coordinate is not finite.
    """
    numbers = np.asarray(atomic_numbers, dtype=np.int32)
    positions = np.array(coords, dtype=np.float64)
    if len(numbers) == 0:
        raise DataError(f"{where} has no atoms")
    if numbers.min() < 1:
        raise DataError(f"{where}: atom {int(np.argmin(numbers))} is of no element")
    if not np.isfinite(positions).all():
        raise DataError(f"{where}: the coordinates of atom {int(np.argwhere(~np.isfinite(positions))[0, 0])} are not finite")
    return Geometry(where, numbers, positions, smiles, note)


def _read(given: str, bonds: BondsFromSmiles | None, seed: int) -> Iterator[Geometry]:
    path, suffix = Path(given), Path(given).suffix.lower()
    if suffix in (*XYZ, *SDF, *SMILES) and not path.is_file():
        raise DataError(f"{given} does not exist")
    if path.is_dir():
        raise DataError(f"{given} is a folder; expected a file ({', '.join((*XYZ, *SDF, *SMILES))}) or a SMILES")
    if suffix in XYZ:
        return _read_xyz(path, bonds)
    if bonds is not None:
        raise DataError(f"a SMILES for the bonds of xyz files is given, and {given} has bonds of its own")
    if suffix in SDF:
        return _read_sdf(path)
    if suffix in SMILES:
        return _read_smi(path, seed)
    if path.is_file():
        raise DataError(f"{given} has no known suffix; expected one of {', '.join((*XYZ, *SDF, *SMILES))}")
    try:
        read_smiles(given)
    except MoleculeError as error:
        raise DataError(f"{given!r} is neither a file nor a SMILES") from error
    return iter([embedded(given, given, seed)])


def _read_xyz(path: Path, bonds: BondsFromSmiles | None) -> Iterator[Geometry]:
    import ase.io

    try:
        frames = ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise DataError(f"{path} cannot be read as xyz: {type(error).__name__}: {error}") from error
    for number, atoms in enumerate(frames, start=1):
        where = f"{path}, frame {number}" if len(frames) > 1 else str(path)
        if atoms.pbc.any():
            raise DataError(f"{where} is periodic (pbc = {atoms.pbc.tolist()}); only molecules in vacuum can be handled")
        frame = checked(where, atoms.numbers, atoms.positions, None)
        own = atoms.info.get("smiles")
        smiles = None
        if bonds is not None:
            smiles = bonds.assign(frame.atomic_numbers, frame.coords, where)
        elif own is not None:
            smiles = BondsFromSmiles(str(own)).assign(frame.atomic_numbers, frame.coords, where)
        yield Geometry(where, frame.atomic_numbers, frame.coords, smiles)


def _read_sdf(path: Path) -> Iterator[Geometry]:
    with rdBase.BlockLogs():
        molecules = list(Chem.SDMolSupplier(str(path), removeHs=False)) if path.stat().st_size else []
    for number, mol in enumerate(molecules, start=1):
        where = f"{path}, molecule {number}" if len(molecules) > 1 else str(path)
        if mol is None:
            raise DataError(f"{where} cannot be read by RDKit")
        implied = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
        if implied:
            raise DataError(f"{where} lacks {implied} hydrogens; each atom needs coordinates")
        if mol.GetNumConformers() == 0 or (mol.GetNumAtoms() > 1 and not mol.GetConformer().Is3D()):
            raise DataError(f"{where} has no 3D coordinates; to have them made, give the molecule as SMILES")
        Chem.AssignStereochemistryFrom3D(mol)
        yield checked(where, elements_of(mol), mol.GetConformer().GetPositions(), mapped_smiles(mol))


def _read_smi(path: Path, seed: int) -> Iterator[Geometry]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            smiles, *name = line.split(maxsplit=1)
            yield embedded(smiles, f"{path}, line {number}{f' ({name[0].strip()})' if name else ''}", seed)


def embedded(smiles: str, where: str, seed: int) -> Geometry:
    """Make a conformer of a SMILES by ETKDG (version 3), which is not relaxed.

    Atoms are in the order of map numbers, or as the SMILES writes them, with hydrogens that it does not write at the end.

    Args:
        smiles: with or without map numbers.
        where: its name in messages.
        seed: 0 to 2³¹ - 1; same seed, same conformer.

    Raises:
        MoleculeError: where the SMILES cannot be read.
        DataError: where no conformer is found.
    """
    if not 0 <= seed <= _MAX_SEED:
        raise DataError(f"seed = {seed}; expected 0 to {_MAX_SEED}")
    mol = read_smiles(smiles)
    mol = mapped_molecule(smiles) if is_mapped(mol) else Chem.AddHs(mol)
    drawn = group_of(mol)
    options: Any = rdDistGeom.ETKDGv3()
    options.randomSeed = seed
    options.numThreads = 1
    with rdBase.BlockLogs():
        failed = rdDistGeom.EmbedMolecule(mol, options) != 0
    if failed:
        raise DataError(f"{where}: ETKDG found no conformer of {smiles}; give a file with coordinates")
    Chem.AssignStereochemistryFrom3D(mol)
    note = f"{where}: conformer by ETKDG, seed {seed}, not relaxed"
    if group_of(mol) != drawn:
        note += f"; of the stereoisomers that the SMILES leaves open, {group_of(mol)}"
    return checked(where, elements_of(mol), mol.GetConformer().GetPositions(), mapped_smiles(mol), note)
