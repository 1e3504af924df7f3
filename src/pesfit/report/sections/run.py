"""The sections on the run itself: data, level of theory, splits, parameters, versions; and molecules that failed, stage by stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import Failure
from pesfit.data.dataset import open_datasets
from pesfit.params.load import Params
from pesfit.report.page.blocks import Block, Cell, Facts, PageSection, Table, TableColumn, Text
from pesfit.report.page.tables import count
from pesfit.report.reading import read_json

PACKAGES = ("pesfit", "torch", "schnetpack", "openff-toolkit", "openff-interchange", "rdkit", "openmm", "tblite", "numpy")
"""Packages whose versions can change numbers."""

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_SPLIT_WORDS = {
    "molecule": "by molecule",
    "block": "by blocks of time",
    "frame": "by frame",
    "rmd17": "published indices",
}


@dataclass(frozen=True)
class SourceSummary:
    """One source of data.

    Attributes:
        name: such as `xtb/trajectory`.
        level_of_theory: of its labels.
        n_molecules: distinct ones.
        n_conformers: after conversion.
        n_kept: after clustering; None where that is not known.
        split_by: rule of its split; None where it is in no split.
        n_split: conformers of training, validation and test set.
    """

    name: str
    level_of_theory: str
    n_molecules: int
    n_conformers: int
    n_kept: int | None
    split_by: str | None
    n_split: Mapping[str, int]


@dataclass(frozen=True)
class RunSummary:
    """Inputs of the run.

    Attributes:
        profile: name of the profile.
        changed: for each parameter that differs from its default: key, value and default, as JSON.
        sources: of the data.
        n_seen: molecules of the test set that are in the training set too, such as those of a trajectory that is cut into blocks.
        force_field: initial force field of the fit.
        charges: number of molecules with charges by each method.
        versions: of packages.
    """

    profile: str
    changed: Sequence[tuple[str, str, str]]
    sources: Sequence[SourceSummary]
    n_seen: int
    force_field: str
    charges: Mapping[str, int]
    versions: Mapping[str, str]

    @classmethod
    def read(cls, params: Params, arrow: Path, metrics: Path) -> RunSummary:
        """Read the outputs of stages 02 to 05.

        Args:
            params: all of params.yaml.
            arrow: `data/arrow`.
            metrics: `outputs/metrics`.

        Raises:
            DataError: if a file is missing.
        """
        parameterized = read_json(metrics / "parameterize.json")
        split = read_json(metrics / "split.json")
        return cls(
            profile=params.profile,
            changed=changed_parameters(params),
            sources=list(_sources(arrow, read_json(metrics / "convert.json"), read_json(metrics / "cluster.json"), split)),
            n_seen=split.get("test_molecules_in_training", 0),
            force_field=parameterized["force_field"],
            charges=parameterized["molecules_by_charge_method"],
            versions=installed_versions(),
        )


def installed_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an optional engine
            continue
    return versions


def changed_parameters(params: Params) -> list[tuple[str, str, str]]:
    """Return key, value and default, as JSON, of each parameter that differs from its default, in the order of definition."""
    defaults = dict(_flat(type(params)().model_dump(mode="json")))
    values = dict(_flat(params.model_dump(mode="json")))
    return [
        (key, json.dumps(values.get(key), ensure_ascii=False), json.dumps(defaults.get(key), ensure_ascii=False))
        for key in values | defaults
        if key != "profile" and values.get(key) != defaults.get(key)
    ]


def run_section(run: RunSummary) -> PageSection:
    """Return the section on data, splits, parameters and versions."""
    charges = ", ".join(f"{count(n)} by {method}" for method, n in run.charges.items() if n)
    facts = [
        ("profile", f"`{run.profile}`"),
        ("level of theory", ", ".join(dict.fromkeys(source.level_of_theory for source in run.sources))),
        ("initial force field", f"`{run.force_field}`"),
        ("partial charges, molecules", charges or "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    blocks: list[Block] = [Facts("run", facts), _data(run.sources)]
    if run.n_seen:
        molecules = "1 molecule of the test set is" if run.n_seen == 1 else f"{run.n_seen} molecules of the test set are"
        blocks.append(
            Text(
                f"{molecules} in the training set too, with other conformers: there, test errors measure generalization to new geometries, "
                "not to new molecules. Errors are given for each source for this reason."
            )
        )
    blocks.append(_changed(run.changed))
    return PageSection("run", "Data, splits and parameters", blocks)


def failures_section(failures: Mapping[str, Sequence[Failure]]) -> PageSection:
    """Return the section of failures by stage, from `reading.read_failures_by_stage`; a stage without failures is named too."""
    if not any(failures.values()):
        words = f"None: in {len(failures)} stages that process molecules one by one, no molecule was left out."
        return PageSection("failures", "Failures", [Text(words)])
    counts: list[dict[str, Cell]] = []
    for stage, each in failures.items():
        reasons = ", ".join(f"{kind} ({times})" for kind, times in Counter(failure.kind for failure in each).most_common())
        counts.append({"stage": stage, "failures": len(each), "reasons": reasons or "none"})
    rows: list[dict[str, Cell]] = [
        {"stage": stage, "id": failure.id, "class": failure.kind, "message": failure.message}
        for stage, each in failures.items()
        for failure in each
    ]
    by_stage = (TableColumn("stage", "stage"), TableColumn("failures", "failures"), TableColumn("reasons", "reasons"))
    by_molecule = (TableColumn("id", "molecule"), TableColumn("class", "reason"), TableColumn("message", "message"))
    blocks: list[Block] = [
        Text(
            "A molecule that fails does not stop the others: it is left out, with the reason. All results on this page are of the "
            "molecules that remain."
        ),
        Table("failures-by-stage", "Failures by stage", by_stage, counts),
        Table("failures", "All failures", by_molecule, rows, folded=True, group="stage"),
    ]
    return PageSection("failures", "Failures", blocks)


def _sources(arrow: Path, converted: Any, clustered: Any, split: Any) -> Iterator[SourceSummary]:
    for name, dataset in open_datasets(arrow).items():
        for source, level in dataset.level_of_theory.items():
            counts = converted[name].get(source)
            if counts is None:  # a data set names the level of theory of all that could be in it
                continue
            divided = split["sources"].get(source)
            yield SourceSummary(
                name=source,
                level_of_theory=level,
                n_molecules=counts["molecules"],
                n_conformers=counts["conformers"],
                n_kept=clustered["sources"].get(source, {}).get("conformers_after"),
                split_by=None if divided is None else divided["split_by"],
                n_split={part: 0 if divided is None else divided[part]["conformers"] for part in _SPLITS},
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _data(sources: Sequence[SourceSummary]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "source": source.name,
            "level_of_theory": source.level_of_theory,
            "molecules": source.n_molecules,
            "conformers": source.n_conformers,
            "conformers_kept": source.n_kept,
            "split_by": None if source.split_by is None else _SPLIT_WORDS.get(source.split_by, source.split_by),
            **{part: source.n_split[part] for part in _SPLITS},
        }
        for source in sources
    ]
    columns = (
        TableColumn("source", "source"),
        TableColumn("level_of_theory", "level of theory"),
        TableColumn("molecules", "molecules"),
        TableColumn("conformers", "conformers"),
        TableColumn("conformers_kept", "after clustering"),
        TableColumn("split_by", "split"),
        *(TableColumn(part, label) for part, label in _SPLITS.items()),
    )
    note = "Training, validation and test in conformers; those left in the gaps between blocks of a trajectory are in none of them."
    return Table("data", "Data sets and splits", columns, rows, note)


def _changed(changed: Sequence[tuple[str, str, str]]) -> Block:
    if not changed:
        return Text("All parameters have their default values.")
    rows: list[dict[str, Cell]] = [{"parameter": key, "value": value, "default": default} for key, value, default in changed]
    columns = (TableColumn("parameter", "parameter"), TableColumn("value", "value"), TableColumn("default", "default"))
    return Table("changed-parameters", "Parameters that differ from their defaults", columns, rows, folded=True)
