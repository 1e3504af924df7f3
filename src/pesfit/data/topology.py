"""The parameterized molecules that stage 03 stores: one force field, and for each molecule indices into it.

`parameterize` writes these, `potentials`, `fit` and `simulate` read them. Coordinates are never part of a topology.

A set is a folder:

- `force-field.json`: tables of parameters, with units and counts of use, and the nonbonded settings;
- `force-field.offxml`: the file they were read from;
- `topologies.arrow`: one row is one topology, index columns in 16 bits, memory-mapped when read;
- `molecules.arrow`: which topology each record of each data set has;
- `failures.csv`: records that have none, as `dataset.write_failures` writes it.

Bytes depend on the content alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pesfit.core.arrays import FloatArray, IntArray, LongArray
from pesfit.core.exceptions import DataError

SCHEMA_VERSION = 1

BONDED_HANDLERS = ("Bonds", "Angles", "ProperTorsions", "ImproperTorsions")

COLUMNS: dict[str, dict[str, str]] = {
    "Bonds": {"k": "kcal/mol/angstrom**2", "length": "angstrom"},
    "Angles": {"k": "kcal/mol/radian**2", "angle": "radian"},
    "ProperTorsions": {"k": "kcal/mol", "periodicity": "dimensionless", "phase": "radian", "idivf": "dimensionless"},
    "ImproperTorsions": {"k": "kcal/mol", "periodicity": "dimensionless", "phase": "radian", "idivf": "dimensionless"},
    "vdW": {"epsilon": "kcal/mol", "sigma": "angstrom"},
}
"""Columns of each handler's parameter table, with their units."""


@dataclass(frozen=True)
class ParameterTable:
    """All parameters of one handler of a force field, in the order of the offxml.

    A torsion with several periodicities is several rows that share `id` and `smirks` and differ in `mult`.

    Attributes:
        handler: key of `COLUMNS`.
        ids: such as `b83`, or "" where the force field gives none; length n_parameters.
        smirks: length n_parameters.
        mult: 0-based index of the periodicity inside its torsion (`k{mult+1}` in the offxml), 0 elsewhere; shape (n_parameters,).
        values: [units of `COLUMNS`], shape (n_parameters, n_columns).
        uses: how many terms of all stored topologies use each parameter, shape (n_parameters,).
    """

    handler: str
    ids: tuple[str, ...]
    smirks: tuple[str, ...]
    mult: IntArray
    values: FloatArray
    uses: LongArray

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `values`."""
        return tuple(COLUMNS[self.handler])

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the columns of `values`."""
        return tuple(COLUMNS[self.handler].values())


@dataclass(frozen=True)
class ForceField:
    """A SMIRNOFF force field as numbers.

    Attributes:
        name: file name it was asked for by.
        offxml: the text of the file, from which a fitted force field is exported.
        tables: by handler; each key of `COLUMNS` is there, with no rows where the force field lacks the section.
        vdw_scale_14: factor on the van der Waals energy of atoms three bonds apart (1-2 and 1-3 pairs are excluded).
        electrostatics_scale_14: the same for the Coulomb energy.
    """

    name: str
    offxml: str
    tables: dict[str, ParameterTable]
    vdw_scale_14: float
    electrostatics_scale_14: float


@dataclass(frozen=True)
class Topology:
    """One molecule's terms. `*_parameters` index the rows of the handler's `ParameterTable`.

    A torsion contributes one row for each of its periodicities. An improper contributes three rows for each periodicity, to be
    evaluated with k / idivf like propers, in the order of the atoms in the row. The central atom, second in the SMIRKS (a, c, b, d),
    is FIRST in these rows: (c, a, b, d), (c, b, d, a), (c, d, a, b), the dihedrals that OpenMM is given
    (https://openforcefield.github.io/standards/standards/smirnoff/#impropertorsions).

    Attributes:
        smiles: mapped SMILES, the identity under which it is stored.
        connectivity: the molecule's bonds (which pairs are 1-2, 1-3 and 1-4 follows from them), shape (n_edges, 2).
        bonds, angles, propers, impropers: atom indices, shapes (n_terms, 2), (n_terms, 3), (n_terms, 4), (n_terms, 4).
        bond_parameters, angle_parameters, proper_parameters, improper_parameters: shape (n_terms,).
        vdw_parameters: one for each atom, shape (n_atoms,).
        charges: [e], shape (n_atoms,); their sum is the total charge exactly.
        charge_method: where the charges come from: `dataset`, `nagl`, `sqm`, `gasteiger`, or `force-field`.
    """

    smiles: str
    connectivity: IntArray
    bonds: IntArray
    bond_parameters: IntArray
    angles: IntArray
    angle_parameters: IntArray
    propers: IntArray
    proper_parameters: IntArray
    impropers: IntArray
    improper_parameters: IntArray
    vdw_parameters: IntArray
    charges: FloatArray
    charge_method: str

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.charges)

    def parameters(self, handler: str) -> IntArray:
        """Return the rows of a handler's `ParameterTable` that the terms use, shape (n_terms,)."""
        return getattr(self, _PARAMETERS[handler])  # type: ignore[no-any-return]


_PARAMETERS = {
    "Bonds": "bond_parameters",
    "Angles": "angle_parameters",
    "ProperTorsions": "proper_parameters",
    "ImproperTorsions": "improper_parameters",
    "vdW": "vdw_parameters",
}

_N_BODIES = {"connectivity": 2, "bonds": 2, "angles": 3, "propers": 4, "impropers": 4}

FORCE_FIELD_FILE = "force-field.json"
OFFXML_FILE = "force-field.offxml"
TOPOLOGIES_FILE = "topologies.arrow"
MOLECULES_FILE = "molecules.arrow"

INDEX_COLUMNS = (*_N_BODIES, *_PARAMETERS.values())
"""Fields of `Topology` that are indices, stored flat and in 16 bits."""

TOPOLOGY_SCHEMA = pa.schema(
    [("smiles", pa.string()), ("charges", pa.list_(pa.float64())), ("charge_method", pa.string())]
    + [(name, pa.list_(pa.uint16())) for name in INDEX_COLUMNS]
)
MOLECULE_SCHEMA = pa.schema([("dataset", pa.string()), ("id", pa.string()), ("topology", pa.int32())])


class ParameterizedSet:
    """A stored force field with topologies; topologies are read when asked for.

    Attributes:
        path: the folder.
        force_field: with counts of use.
    """

    def __init__(self, path: Path, force_field: ForceField, topologies: pa.Table, molecules: pa.Table) -> None:
        self.path = path
        self.force_field = force_field
        self._topologies = topologies
        self._molecules = molecules

    @classmethod
    def open(cls, path: Path | str) -> ParameterizedSet:
        """Open what `parameterize.stage.ParameterizedSetWriter` wrote.

        Raises:
            DataError: where it is missing, incomplete, or of another schema version.
        """
        path = Path(path)
        if not (path / FORCE_FIELD_FILE).is_file():
            what = f"has no {FORCE_FIELD_FILE}" if path.is_dir() else "is not a folder" if path.exists() else "does not exist"
            raise DataError(f"{path} {what}; expected what the stage parameterize writes, such as data/parameterized")
        try:
            stored = json.loads((path / FORCE_FIELD_FILE).read_text("utf-8"))
            force_field = _from_json(stored, (path / OFFXML_FILE).read_text("utf-8"))
            expected_rows = (stored["n_topologies"], stored["n_molecules"])
            tables = [
                pa.ipc.open_stream(pa.memory_map(str(path / name))).read_all() for name in (TOPOLOGIES_FILE, MOLECULES_FILE)
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read as parameterized molecules: {type(error).__name__}: {error}") from error
        for table, schema, name in zip(
            tables, (TOPOLOGY_SCHEMA, MOLECULE_SCHEMA), (TOPOLOGIES_FILE, MOLECULES_FILE), strict=True
        ):
            if table.schema != schema:
                raise DataError(
                    f"{path / name} has the columns {', '.join(table.schema.names)}; expected {', '.join(schema.names)}"
                )
        # A stream that ends early, between two batches, reads without an error.
        for table, n_rows, name in zip(tables, expected_rows, (TOPOLOGIES_FILE, MOLECULES_FILE), strict=True):
            if table.num_rows != n_rows:
                raise DataError(f"{path / name} has {table.num_rows} rows; {n_rows} were written")
        return cls(path, force_field, *tables)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path alone: tables are memory-mapped anew in another process."""
        return type(self).open, (self.path,)

    def __len__(self) -> int:
        """Number of topologies."""
        return int(self._topologies.num_rows)

    def __getitem__(self, index: int) -> Topology:
        """Return one topology.

        Args:
            index: 0 to `len(self) - 1`, as `index` returns it.
        """
        values: dict[str, Any] = {}
        for name in TOPOLOGY_SCHEMA.names:
            scalar = self._topologies.column(name)[index]
            if name in ("smiles", "charge_method"):
                values[name] = scalar.as_py()
            elif name == "charges":
                values[name] = scalar.values.to_numpy()
            else:
                flat = scalar.values.to_numpy().astype(np.int32)
                values[name] = flat.reshape(-1, _N_BODIES[name]) if name in _N_BODIES else flat
        return Topology(**values)

    @property
    def smiles(self) -> list[str]:
        """Mapped SMILES of all topologies, in order."""
        smiles: list[str] = self._topologies.column("smiles").to_pylist()
        return smiles

    def index(self, dataset: str, record: str) -> int | None:
        """Return which topology the record with this id has; None where it could not be parameterized or is not known."""
        return self._index.get((dataset, record))

    def topology(self, dataset: str, record: str) -> Topology | None:
        """Return the topology of the record with this id; None where it could not be parameterized or is not known."""
        index = self.index(dataset, record)
        return None if index is None else self[index]

    @property
    def molecules(self) -> Mapping[tuple[str, str], int]:
        """Topology of each record, by data set and id."""
        return self._index

    @cached_property
    def _index(self) -> dict[tuple[str, str], int]:
        datasets, records, topologies = (self._molecules.column(name).to_pylist() for name in MOLECULE_SCHEMA.names)
        return dict(zip(zip(datasets, records, strict=True), topologies, strict=True))


def digest(text: str) -> str:
    """Return the SHA-256 of a text, by which the stored .offxml is known again."""
    return hashlib.sha256(text.encode()).hexdigest()


def _from_json(stored: dict[str, Any], offxml: str) -> ForceField:
    if stored["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {stored['schema_version']}; this version reads {SCHEMA_VERSION}")
    if stored["offxml_sha256"] != digest(offxml):
        raise ValueError(f"{OFFXML_FILE} is not the file that was written")
    tables = {}
    for handler, columns in COLUMNS.items():
        table = stored["tables"][handler]
        if table["units"] != columns:
            raise ValueError(f"{handler} has the units {table['units']}; expected {columns}")
        tables[handler] = ParameterTable(
            handler=handler,
            ids=tuple(table["ids"]),
            smirks=tuple(table["smirks"]),
            mult=np.array(table["mult"], dtype=np.int32),
            values=np.array(table["values"], dtype=np.float64).reshape(-1, len(columns)),
            uses=np.array(table["uses"], dtype=np.int64),
        )
    return ForceField(stored["name"], offxml, tables, stored["vdw_scale_14"], stored["electrostatics_scale_14"])
