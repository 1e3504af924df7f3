"""Parameterize data sets: every distinct molecule once, in worker processes, into one `ParameterizedSet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pesfit.core.exceptions import Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import ConformerDataset, write_failures
from pesfit.data.topology import ForceField
from pesfit.parameterize.charges import ChargeAssigner
from pesfit.parameterize.engine import FORCE_FIELD_CHARGES, STAGE, Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.store import ParameterizedSetWriter
from pesfit.params.preparation import Parameterize

_CHARGE_METHODS = ("dataset", "nagl", "sqm", "gasteiger", FORCE_FIELD_CHARGES)


class _Row(NamedTuple):
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


def _collect(datasets: Mapping[str, ConformerDataset], *, with_charges: bool) -> tuple[dict[Request, int], list[_Row]]:
    """Return the distinct molecules, numbered in the order they come in, and the number of each record's."""
    requests: dict[Request, int] = {}
    rows = []
    for name, dataset in datasets.items():
        for record, request in _requests(dataset, with_charges=with_charges):
            rows.append(_Row(name, record, None if request is None else requests.setdefault(request, len(requests))))
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


def _counts(rows: list[_Row], results: list[int | Failure]) -> dict[str, int]:
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
