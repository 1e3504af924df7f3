"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pesfit.application.geometries import XYZ
from pesfit.core.exceptions import ParamsError
from pesfit.core.files import atomic_write


def check_output(path: Path, inputs: tuple[str, ...] = ()) -> None:
    """Check, before work starts, that a geometry file can be written.

    Raises:
        ParamsError: where it has another suffix than .xyz or .extxyz, its folder is missing or cannot be written to, or it is an input.
    """
    if path.suffix.lower() not in XYZ:
        raise ParamsError(f"--output {path}: expected a name that ends in {' or '.join(XYZ)}")
    if not path.parent.is_dir():
        raise ParamsError(f"--output {path}: the folder {path.parent} does not exist")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ParamsError(f"--output {path} cannot be written")
    for given in inputs:
        if path.exists() and Path(given).exists() and path.samefile(given):
            raise ParamsError(f"--output {path} is what is read; expected another file")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Give a text file that becomes `path` when the block ends without an exception, and vanishes otherwise.

    See `core.files.atomic_write`.
    """
    with atomic_write(path) as new, new.open("w", encoding="utf-8") as stream:
        yield stream
