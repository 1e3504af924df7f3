"""Stage 02: sources as they were downloaded, or built here, become Arrow data sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import DataError, Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import DatasetWriter, Record, write_failures
from pesfit.params.preparation import Convert, Sources
from pesfit.sources.checks import Converted, PhysicsCheck, examined
from pesfit.sources.espaloma import ESPALOMA_LEVELS, PUBLISHED_MOLECULES, convert_espaloma
from pesfit.sources.md17 import MD17_LEVELS, RMD17_LEVELS, RMD17Archive, read_md17
from pesfit.sources.own import convert_own, open_raw
from pesfit.sources.xtb import XTB_LEVELS, build_xtb

SPLITS = "splits.json"
"""Beside the rMD17 data set: `{"1": {"train": [...], "test": [...]}, ..., "5": ...}`, values of the `frame` column of every molecule."""

Metrics = dict[str, Any]


def convert_sources(raw: Path, sources: Sources, params: Convert, output: Path) -> Metrics:
    """Convert every source that is asked for.

    Writes `<output>/<espaloma|rmd17|md17|xtb>/`, and one folder for each data set of the user's own, each with `failures.csv` in it, and
    `splits.json` in that of rMD17.

    Args:
        raw: what stage 01 wrote: `espaloma/<subset>.tar.gz`, `rmd17/rmd17.tar.bz2`, `md17/<file>.npz`, `own/<name>/`.
        sources: which data go in.
        params: section `convert`.
        output: a folder that exists, for one folder a source.

    Returns:
        Metrics: for each source its molecules, conformers, failures and the figures of the physical check.

    Raises:
        DataError: if no source is asked for, a file is missing, a label is not finite, or energies and forces of a source do
            not belong together.
        ArchiveError: if an archive is damaged or lacks a key.
        TooManyFailuresError: if more than `max_failed_fraction` of a source's molecules fail.
    """
    limit = params.max_failed_fraction
    metrics: Metrics = {}
    if sources.espaloma:
        converted = convert_espaloma(raw / "espaloma", sources.espaloma, params.espaloma)
        metrics["espaloma"] = _write(output / "espaloma", converted, ESPALOMA_LEVELS, limit)
    if sources.rmd17:
        archive = RMD17Archive(raw / "rmd17" / "rmd17.tar.bz2", sources.rmd17, params.rmd17)
        metrics["rmd17"] = _write(output / "rmd17", _examined_frames(archive.records(), "rmd17"), RMD17_LEVELS, limit)
        (output / "rmd17" / SPLITS).write_text(json.dumps(archive.splits) + "\n")
    if sources.md17:
        records = read_md17(raw / "md17", sources.md17, params.md17)
        metrics["md17"] = _write(output / "md17", _examined_frames(records, "md17"), MD17_LEVELS, limit)
    if sources.xtb:
        built = (item if isinstance(item, Failure) else examined(item) for item in build_xtb(params.xtb))
        metrics["xtb"] = _write(output / "xtb", built, XTB_LEVELS, limit)
    for own in sources.own:
        opened = open_raw(own, raw)
        metrics[own.name] = _write(output / own.name, convert_own(own, opened), opened.levels, limit)
    if not metrics:
        raise DataError("no source is asked for; name one in section `sources` of params.yaml, such as `xtb: true`")
    return metrics


def _examined_frames(records: Iterable[Record], label: str) -> Iterable[Converted]:
    """Examine rows of files that hold one molecule each: where one row is wrong the file is."""
    for converted in ordered_map(examined, records, label=label, unit="row"):
        if converted.failure:
            raise DataError(f"{label}: {converted.failure.id}: {converted.failure.message}")
        yield converted


class _SourceCounts:
    """Counts for one value of the `source` column."""

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.counts = dict.fromkeys(
            (
                "rows",
                "conformers",
                "atoms_in_conformers",
                "conformers_read",
                "conformers_left_out",
                "conformers_with_other_bonds",
                "entries_left_out",
                "failures",
            ),
            0,
        )
        self.physics = PhysicsCheck()

    def add(self, converted: Converted) -> None:
        record, counts = converted.record, self.counts
        counts["conformers_read"] += converted.n_conformers_read
        counts["conformers_left_out"] += converted.n_conformers_read - (record.n_conformers if record else 0)
        if record is not None:
            self.physics += converted.physics
            self.groups.add(record.group)
            counts["rows"] += 1
            counts["conformers"] += record.n_conformers
            counts["atoms_in_conformers"] += record.n_conformers * record.n_atoms
            counts["conformers_with_other_bonds"] += converted.n_other_bonds
        elif converted.failure:
            counts["failures"] += 1
        else:
            counts["entries_left_out"] += 1

    def metrics(self, source: str) -> Metrics:
        metrics: Metrics = {"molecules": len(self.groups), **self.counts, "physical_check": self.physics.metrics()}
        if source in PUBLISHED_MOLECULES:
            metrics["molecules_published"] = PUBLISHED_MOLECULES[source]
        return metrics


def _write(path: Path, items: Iterable[Converted | Failure], levels: Mapping[str, str], max_failed_fraction: float) -> Metrics:
    """Write one data set and its failures; return its metrics, one section for each value of the `source` column."""
    tallies: dict[str, _SourceCounts] = {}
    failures: list[Failure] = []
    n_items = 0
    with DatasetWriter(path, levels) as writer:
        for item in items:
            n_items += 1
            if isinstance(item, Failure):
                failures.append(item)
                continue
            tallies.setdefault(item.source, _SourceCounts()).add(item)
            if item.failure:
                failures.append(item.failure)
            if item.record:
                writer.write(item.record)
        _check_sources(tallies)
        check_failed_fraction(failures, n_items, max_failed_fraction)
        if writer.n_records == 0:
            why = (
                f"the first failed: {failures[0].message}" if failures else "see its filter in section `convert` of params.yaml"
            )
            raise DataError(f"{path.name}: none of {n_items} molecules is left; {why}")
    write_failures(path / FAILURES_FILE, failures)
    return {"failures": len(failures), **{source: tally.metrics(source) for source, tally in sorted(tallies.items())}}


def _check_sources(tallies: Mapping[str, _SourceCounts]) -> None:
    for source, tally in tallies.items():
        if problem := tally.physics.problem:
            raise DataError(f"{source}: {problem}")
