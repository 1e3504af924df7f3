"""Metrics, tables and failures of earlier stages, opened here and nowhere else in the report, as plain values for its sections."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import DataError, Failure
from pesfit.data.dataset import read_failures


def read_json(path: Path) -> Any:
    """Read a JSON file of a stage.

    Raises:
        DataError: if the file is missing or is not JSON.
    """
    with _stage_output(path):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from error


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file of a stage.

    Args:
        path: the file.
        columns: that it must have.

    Raises:
        DataError: if the file or a column is missing.
    """
    with _stage_output(path), path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}")
        return list(reader)


def read_failures_by_stage(files: Mapping[str, Sequence[Path]]) -> dict[str, list[Failure]]:
    """Read the failures of each stage, in order.

    Args:
        files: for each stage, such as `02_convert`, its `failures.csv`, one for each data set where there are several.

    Raises:
        DataError: if a file is missing.
    """
    found: dict[str, list[Failure]] = {}
    for stage, paths in files.items():
        found[stage] = []
        for path in paths:
            with _stage_output(path, stage):
                found[stage] += read_failures(path)
    return found


@contextmanager
def _stage_output(path: Path, stage: str = "the stage") -> Iterator[None]:
    """Name a file that is missing, and how it is made."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; `dvc repro` runs {stage}, which writes it") from error
