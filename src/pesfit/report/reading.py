"""Files of earlier stages as plain values for the report's sections."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import DataError


def read_json(path: Path) -> Any:
    """Read what a stage wrote as JSON.

    Raises:
        DataError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; `dvc repro` runs the stage that writes it") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a table that a stage wrote as CSV.

    Args:
        path: the file.
        columns: what it must have.

    Raises:
        DataError: if the file or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; `dvc repro` runs the stage that writes it") from error
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}")
    return rows
