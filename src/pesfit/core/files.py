"""Files that are written whole or not at all, and JSON with numbers rounded to the digits worth reading in a diff."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FAILURES_FILE = "failures.csv"
"""Name of the table of molecules that could not be handled, in the folder of a stage's output."""


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Give the path of a new file beside `path` that replaces it when the block ends without an exception, and is deleted otherwise.

    What was at `path` stays until then; a reader sees the old file or the new one, never a part. The old file's bytes are left alone,
    which DVC's cache may share. A process that is killed leaves a file whose name begins with a dot and ends in `.new`.

    Args:
        path: the file; its folder must exist.
        sync: force the bytes to disk first, so that not even a power failure leaves an empty file.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
        if sync:
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, digits: int | None = None, indent: int = 2, ascii_only: bool = True) -> None:
    """Write a JSON file, whole or not at all; its folder is made if need be.

    Args:
        path: the file.
        value: mappings, lists, strings and finite numbers.
        digits: significant digits that floats are rounded to; None for all.
        indent: spaces for each level.
        ascii_only: write other characters as escapes.

    Raises:
        ValueError: if a number is not finite.
    """
    text = json.dumps(
        value if digits is None else rounded(value, digits), indent=indent, ensure_ascii=ascii_only, allow_nan=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as new:
        new.write_text(text + "\n", encoding="utf-8")


def rounded(value: Any, digits: int) -> Any:
    """Return a copy of JSON-like values whose floats are rounded to so many significant digits."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
