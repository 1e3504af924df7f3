"""Data sets of the user's own, as folders: what they must hold to be taken.

A folder is one that `datasets.save_to_disk` or `dataset.DatasetWriter` wrote: `state.json` names Arrow streams. Its columns are those of
`dataset.SCHEMA`, or descent's `smiles, coords, energy, forces`; more columns are no harm. Lists may be of single or double precision.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pesfit.core.exceptions import DataError
from pesfit.core.units import INTERNAL_UNITS
from pesfit.data.dataset import SCHEMA, SCHEMA_VERSION
from pesfit.params.preparation import OwnData

OWN = "own"
"""Folder in data/raw."""

DESCENT_COLUMNS = ("smiles", "coords", "energy", "forces")
_STATE, _INFO = "state.json", "dataset_info.json"
_STRINGS, _INTEGERS = ("id", "smiles", "group", "source"), ("atomic_numbers", "frame")
_FORM = "a folder that `datasets.save_to_disk`, or a stage or command of pesfit, wrote"


@dataclass(frozen=True)
class OwnTable:
    """An opened data set, memory-mapped, whose columns are in order.

    Attributes:
        files: names of the files of the folder that belong to it.
        table: its rows.
        is_ours: whether it has all our columns, and not descent's alone.
        sources: for each value of its `source` column the one it gets here; for descent's, which has none, the only key is "".
        levels: level of theory of each of the new sources.
    """

    files: tuple[str, ...]
    table: pa.Table
    is_ours: bool
    sources: Mapping[str, str]
    levels: Mapping[str, str]


def open_own(own: OwnData, folder: Path) -> OwnTable:
    """Open a data set and look at everything but its rows.

    Where all its rows have one `source`, or none, they get the entry's name; several sources become `<name>/<source>`.

    Args:
        own: entry of `sources.own`.
        folder: where it lies now: the entry's path, or the copy of it.

    Raises:
        DataError: where the folder is missing or no data set, columns are missing or of another type, units or schema version are
            others, or the level of theory is not known.
    """
    what = f"sources.own {own.name}: {folder}"
    names = _arrow_files(folder, what)
    try:
        table = pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in names])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{what} cannot be read as Arrow streams: {error}") from error
    is_ours = _check_columns(table, what)
    if not table.num_rows:
        raise DataError(f"{what} has no rows")
    metadata = _metadata(folder, table)
    _check_metadata(metadata, what)
    found = [""]
    if is_ours:
        found = pc.unique(table.column("source")).to_pylist()
        if None in found:
            raise DataError(f"{what}: `source` is null in some rows; every row needs one")
    sources = {name: own.name if len(found) == 1 else f"{own.name}/{name}" for name in sorted(found)}
    levels = {new: _level(own, metadata.get("level_of_theory", {}).get(old), old, what) for old, new in sources.items()}
    files = (_STATE, *((_INFO,) if (folder / _INFO).is_file() else ()), *names)
    return OwnTable(files, table, is_ours, sources, levels)


def _arrow_files(folder: Path, what: str) -> tuple[str, ...]:
    """Return the names of the Arrow files that a folder's state.json lists."""
    if (folder / "dataset_dict.json").is_file():
        inner = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{_STATE}")))
        raise DataError(f"{what} holds several data sets ({inner}); expected one of them")
    if not (folder / _STATE).is_file():
        problem = f"has no {_STATE}" if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{what} {problem}; expected {_FORM}")
    try:
        names = tuple(entry["filename"] for entry in json.loads((folder / _STATE).read_text())["_data_files"])
        usable = all(Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{what}/{_STATE} cannot be read ({type(error).__name__}: {error}); expected {_FORM}") from error
    if not names or not usable:
        raise DataError(f"{what}/{_STATE} lists the files {list(names)}; expected names of files beside it")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise DataError(f"{what} lacks {', '.join(missing)}, which its {_STATE} lists")
    return names


def _check_columns(table: pa.Table, what: str) -> bool:
    """Check columns and their types, and tell whether they are ours."""
    is_ours = set(SCHEMA.names) <= set(table.schema.names)
    wanted = SCHEMA.names if is_ours else DESCENT_COLUMNS
    if missing := [name for name in wanted if name not in table.schema.names]:
        raise DataError(
            f"{what} lacks the columns {', '.join(missing)}; expected {', '.join(DESCENT_COLUMNS)}, or {', '.join(SCHEMA.names)}"
        )
    for name in wanted:
        kind = table.schema.field(name).type
        if not _fits(name, kind):
            expected = str(SCHEMA.field(name).type).replace("item: ", "")
            raise DataError(f"{what}: column {name} is of type {kind}; expected {expected}")
    return is_ours


def _fits(name: str, kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(kind):
        return name in {"smiles", "forces", "charges"}
    if name in _STRINGS:
        return bool(types.is_string(kind) or types.is_large_string(kind))
    if name == "total_charge":
        return bool(types.is_integer(kind))
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    is_float = types.is_float32(kind.value_type) or types.is_float64(kind.value_type)
    return bool(types.is_integer(kind.value_type) if name in _INTEGERS else is_float)


def _metadata(folder: Path, table: pa.Table) -> Mapping[str, Any]:
    """Return what our writer stores with a data set, which the Hugging Face library keeps as its description; empty where nothing does."""
    texts = [(table.schema.metadata or {}).get(b"pesfit", b"").decode(errors="replace")]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # what it lacks is asked for elsewhere
        texts.append(json.loads((folder / _INFO).read_text())["description"])
    for text in texts:
        try:
            metadata = json.loads(text)
        except (ValueError, TypeError):
            continue
        if isinstance(metadata, dict) and isinstance(metadata.get("level_of_theory"), dict):
            return metadata
    return {}


def _check_metadata(metadata: Mapping[str, Any], what: str) -> None:
    version, units = metadata.get("schema_version", SCHEMA_VERSION), metadata.get("units", INTERNAL_UNITS)
    if version != SCHEMA_VERSION:
        raise DataError(f"{what} has schema version {version}; this version reads {SCHEMA_VERSION}")
    if units != INTERNAL_UNITS:
        raise DataError(f"{what} has the units {units}; expected {INTERNAL_UNITS}")


def _level(own: OwnData, stated: str | None, source: str, what: str) -> str:
    if stated is None and own.level_of_theory is None:
        of = f" of its source {source!r}" if source else ""
        raise DataError(f"{what} does not state the level of theory{of}; give it as `level_of_theory` beside the path")
    if stated is not None and own.level_of_theory not in {None, stated}:
        raise DataError(f"{what} states the level of theory {stated!r}; params.yaml says {own.level_of_theory!r}")
    return str(stated or own.level_of_theory)
