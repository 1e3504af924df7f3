"""Write what `topology.ParameterizedSet` reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pesfit.core.exceptions import DataError
from pesfit.core.files import write_json
from pesfit.data.topology import (
    COLUMNS,
    FORCE_FIELD_FILE,
    INDEX_COLUMNS,
    MOLECULE_SCHEMA,
    MOLECULES_FILE,
    OFFXML_FILE,
    SCHEMA_VERSION,
    TOPOLOGIES_FILE,
    TOPOLOGY_SCHEMA,
    ForceField,
    Topology,
    digest,
)

_LARGEST_INDEX = 2**16 - 1
_ROWS_PER_BATCH = 256


class ParameterizedSetWriter:
    """Write a `ParameterizedSet`, a few hundred topologies in memory at a time.

    Use as a context manager. The folder is complete when the block ends without an exception.

    Args:
        path: folder to write; made if it is missing.
        force_field: what the topologies index; its `uses` are replaced by counts over the topologies that are added.
    """

    def __init__(self, path: Path, force_field: ForceField) -> None:
        self._path = path
        self._force_field = force_field
        self._uses = {handler: np.zeros(len(table.ids), dtype=np.int64) for handler, table in force_field.tables.items()}
        self._rows: list[dict[str, Any]] = []
        self._molecules: list[tuple[str, str, int]] = []
        self.n_topologies = 0

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True, exist_ok=True)
        self._stream = pa.ipc.new_stream(self._path / TOPOLOGIES_FILE, TOPOLOGY_SCHEMA)
        return self

    def add(self, topology: Topology) -> int:
        """Store a topology and return its index.

        Raises:
            DataError: where it uses a parameter that the force field does not have, or an index does not fit 16 bits.
        """
        row = {name: getattr(topology, name) for name in TOPOLOGY_SCHEMA.names}
        for name in INDEX_COLUMNS:
            value = row[name]
            if value.size and not 0 <= value.min() <= value.max() <= _LARGEST_INDEX:
                raise DataError(
                    f"{topology.smiles}: {name} from {value.min()} to {value.max()}; allowed are 0 to {_LARGEST_INDEX}"
                )
            row[name] = value.reshape(-1).astype(np.uint16)
        for handler, table in self._force_field.tables.items():
            counts = np.bincount(topology.parameters(handler), minlength=len(table.ids))
            if len(counts) > len(table.ids):
                raise DataError(
                    f"{topology.smiles}: {handler} parameter {len(counts) - 1}; the force field has {len(table.ids)}"
                )
            self._uses[handler] += counts
        self._rows.append(row)
        self.n_topologies += 1
        if len(self._rows) == _ROWS_PER_BATCH:
            self._flush()
        return self.n_topologies - 1

    def assign(self, dataset: str, record: str, topology: int) -> None:
        """Say which topology a record of a data set has."""
        self._molecules.append((dataset, record, topology))

    @property
    def force_field(self) -> ForceField:
        """The force field with the uses counted so far."""
        tables = {
            handler: replace(table, uses=self._uses[handler].copy()) for handler, table in self._force_field.tables.items()
        }
        return replace(self._force_field, tables=tables)

    def _flush(self) -> None:
        columns = [pa.array([row[field.name] for row in self._rows], type=field.type) for field in TOPOLOGY_SCHEMA]
        self._stream.write_batch(pa.record_batch(columns, schema=TOPOLOGY_SCHEMA))
        self._rows = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._rows:
            self._flush()
        self._stream.close()
        if kind is not None:
            return
        columns = [pa.array(column, type=field.type) for column, field in zip(self._columns(), MOLECULE_SCHEMA, strict=True)]
        with pa.ipc.new_stream(self._path / MOLECULES_FILE, MOLECULE_SCHEMA) as stream:
            stream.write_batch(pa.record_batch(columns, schema=MOLECULE_SCHEMA))
        (self._path / OFFXML_FILE).write_text(self._force_field.offxml, encoding="utf-8")
        counts = {"n_topologies": self.n_topologies, "n_molecules": len(self._molecules)}
        write_json(self._path / FORCE_FIELD_FILE, counts | _to_json(self.force_field), indent=1)

    def _columns(self) -> list[list[Any]]:
        return [[molecule[i] for molecule in self._molecules] for i in range(len(MOLECULE_SCHEMA))]


def _to_json(force_field: ForceField) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": force_field.name,
        "offxml_sha256": digest(force_field.offxml),
        "vdw_scale_14": force_field.vdw_scale_14,
        "electrostatics_scale_14": force_field.electrostatics_scale_14,
        "tables": {
            handler: {
                "units": COLUMNS[handler],
                "ids": table.ids,
                "smirks": table.smirks,
                "mult": table.mult.tolist(),
                "values": table.values.tolist(),
                "uses": table.uses.tolist(),
            }
            for handler, table in force_field.tables.items()
        },
    }
