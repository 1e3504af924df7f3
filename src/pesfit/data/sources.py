"""Names of sources in parameters: the data they stand for, and which are known."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, get_args

from pesfit.core.exceptions import ParamsError
from pesfit.params.preparation import BUILT_IN, EspalomaSubset

Value = TypeVar("Value")

KNOWN_SOURCES = (
    *BUILT_IN,
    "xtb/conformers",
    "xtb/trajectory",
    *(f"espaloma/{subset}" for subset in get_args(EspalomaSubset)),
)
"""Sources the pipeline can fetch or make, with their parts: allowed in parameters whether or not they are in the data at hand."""


MERGED_SUBSET: EspalomaSubset = "duplicated-isomeric-smiles-merge"
"""Espaloma's archive of molecules that are in several of its subsets, and first part of the ids of their rows."""


def covers(name: str, source: str) -> bool:
    """Tell whether a name in the parameters stands for a source: itself, or all parts of it (`espaloma` for `espaloma/gen2-opt`)."""
    return source == name or source.startswith(f"{name}/")


def most_specific(values: Mapping[str, Value], source: str, default: Value) -> Value:
    """Return the value of the longest name that covers a source; `default` where there is none."""
    fitting = [name for name in values if covers(name, source)]
    return values[max(fitting, key=len)] if fitting else default


def check_source_names(key: str, names: Iterable[str], present: Collection[str]) -> None:
    """Refuse a name that stands for nothing.

    A name that is known but not in the data is no mistake: params.yaml names the sources of all profiles.

    Args:
        key: dotted key of the parameter, for the message.
        names: what the parameter holds.
        present: the sources in the data.

    Raises:
        ParamsError: naming the key, the name, the sources there are, and the nearest of them.
    """
    allowed = sorted({*KNOWN_SOURCES, *present, *(source.split("/")[0] for source in present)})
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParamsError(f"{key}: {name!r} is no source; the data hold {', '.join(sorted(present))}{hint}")
