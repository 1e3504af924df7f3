"""What was run: data, level of theory, splits, parameters that differ from their defaults, versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pesfit.data.dataset import open_datasets
from pesfit.params.load import Params
from pesfit.report.page.blocks import Block, Cell, Column, Facts, Section, Table, Text
from pesfit.report.page.format_numbers import count
from pesfit.report.reading import read_json

PACKAGES = ("pesfit", "torch", "schnetpack", "openff-toolkit", "openff-interchange", "rdkit", "openmm", "tblite", "numpy")
"""Whose versions can move numbers."""

_SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {
    "molecule": "by molecule",
    "block": "by blocks of time",
    "frame": "by frame",
    "rmd17": "the published indices",
}


@dataclass(frozen=True)
class Source:
    """One source of data.

    Attributes:
        name: such as `xtb/trajectory`.
        level_of_theory: of its labels.
        n_molecules: distinct ones.
        n_conformers: after conversion.
        n_kept: after clustering; None where that is not known.
        split_by: how it is divided; None where it is in no split.
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
class Run:
    """What was run.

    Attributes:
        profile: name of the profile.
        changed: for each parameter that differs from its default: key, value and default, as JSON.
        sources: of the data.
        n_seen: molecules of the test set that are in the training set too, such as those of a trajectory that is cut into blocks.
        force_field: where the fit started.
        charges: how many molecules have charges by each method.
        versions: of packages.
    """

    profile: str
    changed: Sequence[tuple[str, str, str]]
    sources: Sequence[Source]
    n_seen: int
    force_field: str
    charges: Mapping[str, int]
    versions: Mapping[str, str]

    @classmethod
    def read(cls, params: Params, arrow: Path, metrics: Path) -> Run:
        """Read what stages 02 to 05 left.

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
    keys = [key for key in values | defaults if key != "profile" and values.get(key) != defaults.get(key)]
    return [
        (key, json.dumps(values.get(key), ensure_ascii=False), json.dumps(defaults.get(key), ensure_ascii=False))
        for key in keys
    ]


def section(run: Run) -> Section:
    """Return the section of what was run."""
    charges = ", ".join(f"{count(n)} by {method}" for method, n in run.charges.items() if n)
    levels = list(dict.fromkeys(source.level_of_theory for source in run.sources))
    facts = [
        ("profile", f"`{run.profile}`"),
        ("level of theory", ", ".join(levels)),
        ("force field at the start", f"`{run.force_field}`"),
        ("partial charges, molecules", charges or "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    blocks: list[Block] = [Facts("run", facts), _data(run.sources)]
    if run.n_seen:
        molecules = "1 molecule" if run.n_seen == 1 else f"{run.n_seen} molecules"
        blocks.append(
            Text(
                f"{molecules} of the test set {'is' if run.n_seen == 1 else 'are'} in the training set too, with other conformers: there, "
                "test errors tell of new geometries, not of new molecules. Errors are given for each source for this reason."
            )
        )
    blocks.append(_changed(run.changed))
    return Section("run", "What was run", blocks)


def _sources(arrow: Path, converted: Any, clustered: Any, split: Any) -> Iterator[Source]:
    for name, dataset in open_datasets(arrow).items():
        for source, level in dataset.level_of_theory.items():
            counts = converted[name].get(source)
            if counts is None:  # a data set names the level of theory of all that could be in it
                continue
            divided = split["sources"].get(source)
            yield Source(
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


def _data(sources: Sequence[Source]) -> Table:
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
    return Table(
        "data",
        "Data, and how they are divided",
        (
            Column("source", "source"),
            Column("level_of_theory", "level of theory"),
            Column("molecules", "molecules"),
            Column("conformers", "conformers"),
            Column("conformers_kept", "after clustering"),
            Column("split_by", "split"),
            Column("train", "training"),
            Column("validation", "validation"),
            Column("test", "test"),
        ),
        rows,
        note="Training, validation and test in conformers; those left in the gaps between blocks of a trajectory are in none of them.",
    )


def _changed(changed: Sequence[tuple[str, str, str]]) -> Block:
    if not changed:
        return Text("All parameters have their default values.")
    rows: list[dict[str, Cell]] = [{"parameter": key, "value": value, "default": default} for key, value, default in changed]
    return Table(
        "changed-parameters",
        "Parameters that differ from their defaults",
        (Column("parameter", "parameter"), Column("value", "value"), Column("default", "default")),
        rows,
        folded=True,
    )
