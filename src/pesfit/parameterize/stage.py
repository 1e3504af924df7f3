"""Stage 03: every distinct molecule of the data sets parameterized once, in worker processes, and stored as a `ParameterizedSet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from pesfit.core.exceptions import DataError, Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE, write_json
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import ConformerDataset, write_failures
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
from pesfit.parameterize.charges import ChargeAssigner
from pesfit.parameterize.engine import FORCE_FIELD_CHARGES, STAGE, Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.params.preparation import Parameterize

_LARGEST_INDEX = 2**16 - 1
_ROWS_PER_BATCH = 256
_CHARGE_METHODS = ("dataset", "nagl", "sqm", "gasteiger", FORCE_FIELD_CHARGES)


class _RecordMolecule(NamedTuple):
    """A record of a data set, and which of the distinct molecules it is; None without a SMILES."""

    dataset: str
    record: str
    molecule: int | None


def parameterize_datasets(datasets: Mapping[str, ConformerDataset], params: Parameterize, output: Path) -> dict[str, Any]:
    """Assign parameters and charges to every molecule of some data sets.

    Records with the same mapped SMILES and the same charges share a topology: a long trajectory is parameterized once. Charges of the
    data set are taken first where `dataset` is the first of `charges.methods`. Otherwise, and for records that bring none, library
    charges and charge increments of the force field come before the methods, as SMIRNOFF has it; its sections that only name a
    way of computing charges (`ToolkitAM1BCC`, `NAGLCharges`) give way to the methods.

    Args:
        datasets: by name.
        params: section `parameterize`.
        output: folder for the `ParameterizedSet` and `failures.csv`, whose ids are `<data set>/<record id>`.

    Returns:
        Metrics: counts of records by data set, of distinct molecules and their charge methods, and of parameters in use.

    Raises:
        ParamsError, DataError: where what `charges.methods` needs is not there.
        ForceFieldError: where the force field cannot be read or is not supported.
        TooManyFailuresError: where more than `max_failed_fraction` of the distinct molecules fail.
    """
    ChargeAssigner(params.charges.methods).check()
    force_field, patterns = read_force_field(params.force_field)
    work = partial(parameterize, Setup(patterns, params.charges.methods))
    requests, rows = _collect(datasets, with_charges="dataset" in params.charges.methods)
    name_of = {row.molecule: f"{row.dataset}/{row.record}" for row in reversed(rows)}
    results: list[int | Failure] = []
    methods: Counter[str] = Counter()
    with ParameterizedSetWriter(output, force_field) as writer:
        for result in ordered_map(work, requests, label=STAGE, n_items=len(requests)):
            if isinstance(result, Failure):
                results.append(replace(result, id=name_of[len(results)]))
            else:
                results.append(writer.add(result))
                methods[result.charge_method] += 1
        failed = [result for result in results if isinstance(result, Failure)]
        check_failed_fraction(failed, len(results), params.max_failed_fraction)
        failures = []
        for row in rows:
            found = None if row.molecule is None else results[row.molecule]
            if isinstance(found, Failure):
                failures.append(replace(found, id=f"{row.dataset}/{row.record}"))
            elif found is not None:
                writer.assign(row.dataset, row.record, found)
    write_failures(output / FAILURES_FILE, failures)
    return {
        "force_field": force_field.name,
        "datasets": {name: _counts([row for row in rows if row.dataset == name], results) for name in datasets},
        "molecules": {"distinct": len(results), "parameterized": len(results) - len(failed), "failed": len(failed)},
        "molecules_by_charge_method": {method: methods[method] for method in _CHARGE_METHODS},
        "parameters": _parameter_counts(writer.force_field),
    }


def _collect(
    datasets: Mapping[str, ConformerDataset], *, with_charges: bool
) -> tuple[dict[Request, int], list[_RecordMolecule]]:
    """Return the distinct molecules, numbered in the order they come in, and the number of each record's."""
    requests: dict[Request, int] = {}
    rows = []
    for name, dataset in datasets.items():
        for record, request in _requests(dataset, with_charges=with_charges):
            rows.append(_RecordMolecule(name, record, None if request is None else requests.setdefault(request, len(requests))))
    return requests, rows


def _requests(dataset: ConformerDataset, *, with_charges: bool) -> Iterator[tuple[str, Request | None]]:
    """Yield each record's id and what is to be parameterized, None without a SMILES. Coordinates are not read."""
    for batch in dataset.table.select(["id", "smiles", "atomic_numbers", "charges", "total_charge"]).to_batches():
        for record, smiles, elements, charges, total_charge in zip(*batch.columns, strict=True):
            request = None
            if smiles.is_valid:
                given = charges.values.to_numpy().tobytes() if with_charges and charges.is_valid else None
                request = Request(smiles.as_py(), elements.values.to_numpy().tobytes(), given, total_charge.as_py())
            yield record.as_py(), request


def _counts(rows: list[_RecordMolecule], results: list[int | Failure]) -> dict[str, int]:
    failed = sum(row.molecule is not None and isinstance(results[row.molecule], Failure) for row in rows)
    without_smiles = sum(row.molecule is None for row in rows)
    return {
        "records": len(rows),
        "records_parameterized": len(rows) - failed - without_smiles,
        "records_failed": failed,
        "records_without_smiles": without_smiles,
        "molecules": len({row.molecule for row in rows if row.molecule is not None}),
    }


def _parameter_counts(force_field: ForceField) -> dict[str, dict[str, int]]:
    return {
        handler: {"rows": len(table.ids), "rows_in_use": int((table.uses > 0).sum()), "terms": int(table.uses.sum())}
        for handler, table in force_field.tables.items()
    }


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
