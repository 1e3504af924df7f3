"""Data sets of the user's own as records: rows of our columns or of descent's, examined like those of any source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from pesfit.chemistry.smiles import elements_of, group_of, mapped_molecule
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError, MoleculeError
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import MAX_FRAMES_PER_ROW, SCHEMA, Record
from pesfit.params.preparation import OwnData
from pesfit.sources.checks import Converted, examined, failed
from pesfit.sources.own_folder import DESCENT_COLUMNS, OWN, OwnTable, open_own

_MAY_BE_NULL = frozenset({"smiles", "forces", "charges"})


@dataclass(frozen=True)
class OwnRow:
    """One row as it was read, before anything is known of it.

    Attributes:
        what: its name in messages.
        id: its id, or its number in the data set where it has none.
        source: the one it gets.
        values: of the columns, lists as arrays of one dimension; None where they are null.
    """

    what: str
    id: str
    source: str
    values: Mapping[str, Any]


def open_raw(own: OwnData, raw: Path) -> OwnTable:
    """Open the copy that stage 01 made of a data set.

    Raises:
        DataError: if there is none, or it is not what it should be.
    """
    folder = raw / OWN / own.name
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; stage 01_download copies it from {own.path}")
    return open_own(own, folder)


def convert_own(own: OwnData, opened: OwnTable) -> Iterator[Converted]:
    """Convert a data set in worker processes.

    Rows with more than `MAX_FRAMES_PER_ROW` conformers are cut, and their ids numbered on. Coordinates, energies and forces stay what they
    are. Of descent's columns the rest is found: elements, total charge and `group` from the SMILES, `frame` by counting.

    Args:
        own: entry of `sources.own`.
        opened: its data set.

    Yields:
        One for each row, or piece of it. Molecules whose SMILES cannot be read, is not mapped or does not fit are failures.

    Raises:
        DataError: if an id is there twice, a column is null, a shape is wrong or a number is not finite.
    """
    rows = _rows(own, opened)
    convert = partial(_convert_row, is_ours=opened.is_ours)
    for pieces in ordered_map(convert, rows, label=own.name, n_items=opened.table.num_rows, unit="row"):
        yield from pieces


def _rows(own: OwnData, opened: OwnTable) -> Iterator[OwnRow]:
    names = SCHEMA.names if opened.is_ours else DESCENT_COLUMNS
    seen: set[str] = set()
    for number in range(opened.table.num_rows):
        values = {name: _value(opened.table.column(name)[number]) for name in names}
        id_ = values.get("id", str(number))
        what = f"{own.name}: row {number}" + (f" ({id_})" if opened.is_ours else "")
        for name, value in values.items():
            if value is None and (name not in _MAY_BE_NULL or (name == "smiles" and not opened.is_ours)):
                raise DataError(f"{what}: {name} is null; a value is needed")
        if id_ in seen:
            raise DataError(f"{what}: the id {id_!r} is there twice; every row needs one of its own")
        seen.add(id_)
        yield OwnRow(what, id_, opened.sources[values.get("source", "")], values)


def _value(scalar: Any) -> Any:
    if not scalar.is_valid:
        return None
    return scalar.values.to_numpy(zero_copy_only=False) if hasattr(scalar, "values") else scalar.as_py()


def _convert_row(row: OwnRow, *, is_ours: bool) -> list[Converted]:
    """Make records of one row and examine them."""
    try:
        record = _record(row) if is_ours else _descent_record(row)
    except MoleculeError as error:
        return [failed(row.id, row.source, error, len(row.values["energy"]))]
    record.validate()
    pieces = record.rows() if record.n_conformers > MAX_FRAMES_PER_ROW else [record]
    return [examined(piece) for piece in pieces]


def _record(row: OwnRow) -> Record:
    values = row.values
    numbers = _atomic_numbers(row)
    if values["smiles"] is not None:
        mol = mapped_molecule(values["smiles"])
        elements = elements_of(mol)
        if not np.array_equal(elements, numbers):
            raise MoleculeError(f"its atomic numbers are {numbers.tolist()}; by map numbers its SMILES has {elements.tolist()}")
        if (charge := Chem.GetFormalCharge(mol)) != values["total_charge"]:
            raise MoleculeError(
                f"its total charge is {values['total_charge']:+d}; the formal charges of its SMILES give {charge:+d}"
            )
    charges = None if values["charges"] is None else values["charges"].astype(np.float64)
    return Record(
        id=row.id,
        smiles=values["smiles"],
        atomic_numbers=numbers,
        **_labels(row, len(numbers)),
        charges=charges,
        total_charge=values["total_charge"],
        group=values["group"],
        source=row.source,
        frame=_integers(values["frame"], f"{row.what}: frame", np.int64),
    )


def _descent_record(row: OwnRow) -> Record:
    mol = mapped_molecule(row.values["smiles"])
    numbers = elements_of(mol)
    labels = _labels(row, len(numbers))
    return Record(
        id=row.id,
        smiles=row.values["smiles"],
        atomic_numbers=numbers,
        **labels,
        charges=None,
        total_charge=Chem.GetFormalCharge(mol),
        group=group_of(mol),
        source=row.source,
        frame=np.arange(len(labels["energy"]), dtype=np.int64),
    )


def _labels(row: OwnRow, n_atoms: int) -> dict[str, Any]:
    """Return coordinates, energies and forces in their shapes."""
    values = row.values
    energy: FloatArray = values["energy"].astype(np.float64)
    shape = (len(energy), n_atoms, 3)
    labels: dict[str, Any] = {"energy": energy, "forces": None}
    for name in ("coords", "forces"):
        if values[name] is None:
            continue
        if values[name].size != np.prod(shape):
            raise DataError(
                f"{row.what}: {name} has {values[name].size} numbers; {len(energy)} energies and {n_atoms} atoms need {np.prod(shape)}"
            )
        labels[name] = values[name].astype(np.float64).reshape(shape)
    return labels


def _atomic_numbers(row: OwnRow) -> IntArray:
    numbers: IntArray = _integers(row.values["atomic_numbers"], f"{row.what}: atomic_numbers", np.int32)
    if not ((numbers >= 1) & (numbers <= 118)).all():
        raise DataError(f"{row.what}: atomic_numbers has {numbers.min()} to {numbers.max()}; expected 1 to 118")
    return numbers


def _integers(values: npt.NDArray[Any], what: str, kind: type[np.int32 | np.int64]) -> Any:
    if values.dtype.kind not in "iu":  # where there are nulls
        raise DataError(f"{what} has nulls in it; expected whole numbers")
    return values.astype(kind)
