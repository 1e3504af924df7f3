"""params.yaml as one frozen, validated object."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pesfit.core.exceptions import ParamsError
from pesfit.params.evaluation import Analyse, Benchmark, Rollout
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.params.preparation import Cluster, Convert, Download, Minima, Parameterize, Sources, Split
from pesfit.params.section import ParamsSection, allowed, field_at
from pesfit.params.train_learned import InitialWeights, TrainLearned

Path_ = tuple[str | int, ...]

FORCE_FIELDS, MIRROR, DATASETS = Path("inputs/force-fields"), Path("inputs/mirror"), Path("inputs/datasets")
"""Folders for files of the user's own, dependencies of the stages that read them."""


class Params(ParamsSection):
    """All of params.yaml, with the chosen profile's values in place."""

    profile: str = Field("small", description="Which entry of `profiles` is laid over the sections below.")
    initial_weights: InitialWeights = Field(
        InitialWeights(), description="07_train_learned: weights that training starts from."
    )
    sources: Sources = Field(Sources(), description="Data that go in.")
    download: Download = Field(Download(), description="01_download: transfer of files.")
    convert: Convert = Field(Convert(), description="02_convert: conversion of sources to Arrow data sets.")
    minima: Minima = Field(Minima(), description="minima: minima, Hessians and relaxed torsion scans.")
    parameterize: Parameterize = Field(Parameterize(), description="03_parameterize: force field and charges.")
    cluster: Cluster = Field(Cluster(), description="04_cluster: selection of representative conformers.")
    split: Split = Field(Split(), description="05_split: training, validation and test set.")
    fit_smirnoff: FitSmirnoff = Field(FitSmirnoff(), description="06_fit_smirnoff: the fit of SMIRNOFF parameters.")
    train_learned: TrainLearned = Field(TrainLearned(), description="07_train_learned: the network, in both variants.")
    rollout: Rollout = Field(Rollout(), description="08_rollout: short simulations with what was fitted.")
    benchmark: Benchmark = Field(
        Benchmark(), description="benchmark: minima, frequencies and torsion scans of what was fitted."
    )
    analyse: Analyse = Field(Analyse(), description="09_analyse: the report.")


def load_params(path: Path) -> Params:
    """Read and validate params.yaml, every profile of it, and return the chosen profile.

    Args:
        path: the file; YAML 1.2, so `1e-3` is a number.

    Raises:
        ParamsError: a line for each error: file, dotted key, value, allowed values, the nearest right name.

    Example:
        >>> import pesfit
        >>> from pathlib import Path
        >>> pesfit.load_params(Path("params.yaml")).cluster.cutoff_angstrom  # of the small profile
        0.1
    """
    document = _read(path)
    profiles = document.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise ParamsError(f"{path}: profiles = {profiles!r}: expected a mapping of profile names to sections")
    chosen = document.get("profile", "small")
    if chosen not in profiles:
        names = ", ".join(profiles) or "the names under profiles"
        raise ParamsError(f"{path}: profile = {chosen!r}: expected one of {names}{_nearest(chosen, list(profiles))}")
    problems: dict[str, None] = {}
    params = None
    for name, overrides in ((name, value or {}) for name, value in profiles.items()):
        if not isinstance(overrides, dict) or "profile" in overrides:
            raise ParamsError(f"{path}: profiles.{name}: expected a mapping of section names to the values that differ")
        if "initial_weights" in overrides:
            raise ParamsError(
                f"{path}: profiles.{name}.initial_weights: expected at the top of the file, where dvc.yaml reads it"
            )
        try:
            candidate = Params.model_validate_json(json.dumps(_merged(document, overrides)))
        except ValidationError as error:
            for detail in _innermost(error.errors()):
                prefix: Path_ = ("profiles", name) if _is_in(overrides, detail["loc"]) else ()
                problems[f"{path}: {_explain(prefix, detail)}"] = None
        else:
            problems |= dict.fromkeys(f"{path}: {problem}" for problem in _untracked(candidate))
            params = candidate if name == chosen else params
    if problems or params is None:
        raise ParamsError("\n".join(problems))
    return params


def _untracked(params: Params) -> Iterator[str]:
    """Yield what is wrong with local paths: dvc.yaml names folders, and DVC notices changed content in these alone."""
    force_field, mirror = params.parameterize.force_field, params.download.mirror
    if "/" in force_field or Path(force_field).is_file():
        yield from _outside("parameterize.force_field", force_field, FORCE_FIELDS, "ln -s {} {}/")
    if mirror is not None and "://" not in mirror:
        yield from _outside("download.mirror", mirror, MIRROR, "cp -rs {}/. {}")
    for i, own in enumerate(params.sources.own):
        yield from _outside(f"sources.own.{i}.path", own.path, DATASETS, "cp -rs {} {}/")


def _outside(key: str, value: str, folder: Path, command: str) -> Iterator[str]:
    """Yield what is wrong with one path.

    Args:
        key: dotted key of the parameter.
        value: of the parameter, from the top of the repository.
        folder: a dependency in dvc.yaml.
        command: shell command that links a path (first placeholder) into the folder (second).
    """
    path = Path(os.path.relpath(Path(value).expanduser()))
    given = f"{key} = {json.dumps(value)}"
    if not path.is_relative_to(folder):
        remedy = command.format(shlex.quote(os.path.normpath(path.absolute())), folder)
        yield f"{given}: expected a path below {folder}, whose content DVC tracks; to link it there: {remedy}"
        return
    for part in (path, *path.parents, *sorted(path.rglob("*"))):
        if part.is_relative_to(folder) and part.is_symlink() and part.is_dir():
            remedy = f"rm {part} && cp -rs {shlex.quote(str(part.resolve()))} {part}"
            yield f"{given}: {part} is a link to a folder, which DVC does not follow; to link its files: {remedy}"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is missing; run from the top of the repository") from error
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise ParamsError(
            f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from error
    if not isinstance(document, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(document).__name__}")
    try:
        json.dumps(document)
    except TypeError as error:
        raise ParamsError(f"{path}: only strings, numbers, booleans, null, lists and mappings are allowed: {error}") from error
    return document


def _merged(base: Any, overrides: Any) -> Any:
    """Lay one mapping over another; anything but a mapping is replaced whole."""
    if not isinstance(base, dict) or not isinstance(overrides, dict):
        return overrides
    return base | {key: _merged(base[key], value) if key in base else value for key, value in overrides.items()}


def _is_in(overrides: Any, location: Sequence[str | int]) -> bool:
    """Tell whether a value comes from a profile: a list, once replaced, is the profile's whole."""
    for key in location:
        if isinstance(overrides, list):
            return True
        if not isinstance(overrides, dict) or key not in overrides:
            return False
        overrides = overrides[key]
    return True


def _innermost(details: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Leave out errors that only follow from an error inside: a list of one bad item is also reported as too short."""
    for detail in details:
        loc = detail["loc"]
        if not any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details):
            yield detail


def _explain(prefix: Path_, detail: ErrorDetails) -> str:
    # The location of an error in a union ends with names of its alternatives, which are no keys.
    location, field = field_at(Params, detail["loc"])
    # A key may be any string; whatever it is, the message stays one line.
    key = ".".join(part if str(part).isprintable() else json.dumps(part) for part in map(str, prefix + location))
    if detail["type"] == "extra_forbidden":
        names = list(field_at(Params, location[:-1])[1].names)
        return f"{key} = {json.dumps(detail['input'])}: unknown key{_nearest(str(location[-1]), names)}; allowed: {', '.join(names)}"
    if detail["type"] == "missing":
        return f"{key}: missing; expected {allowed(field.schema)}"
    value = json.dumps(detail["input"])
    if detail["type"] == "value_error":  # raised by a validator of ours, whose message names what is allowed
        return f"{key} = {value}: {detail['ctx']['error']}"
    return f"{key} = {value}: expected {allowed(field.schema)}{_nearest(detail['input'], list(_choices(field.schema)))}"


def _choices(schema: dict[str, Any]) -> Iterator[str]:
    yield from schema.get("enum", [])


def _nearest(name: object, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
