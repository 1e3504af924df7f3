"""What was left out, stage by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pesfit.core.exceptions import DataError, Failure
from pesfit.data.dataset import read_failures
from pesfit.report.page.blocks import Block, Cell, Column, Section, Table, Text


def read_all(files: Mapping[str, Sequence[Path]]) -> dict[str, list[Failure]]:
    """Read the failures of each stage, in order.

    Args:
        files: for each stage, such as `02_convert`, its `failures.csv`, one for each data set where there are several.

    Raises:
        DataError: if a file is missing.
    """
    found: dict[str, list[Failure]] = {}
    for stage, paths in files.items():
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{missing[0]} is missing; `dvc repro` runs {stage}, which writes it")
        found[stage] = [failure for path in paths for failure in read_failures(path)]
    return found


def section(failures: Mapping[str, Sequence[Failure]]) -> Section:
    """Return the section of what failed; a stage without failures is named too."""
    total = sum(len(each) for each in failures.values())
    blocks: list[Block] = []
    if not total:
        blocks.append(Text(f"None: in {len(failures)} stages that look at molecules one by one, no molecule was left out."))
        return Section("failures", "Failures", blocks)
    blocks += [
        Text(
            "What befalls one molecule does not stop the others: it is left out, with the reason. Everything on this page is about the "
            "molecules that remain."
        ),
        _counts(failures),
        _reasons(failures),
    ]
    return Section("failures", "Failures", blocks)


def _counts(failures: Mapping[str, Sequence[Failure]]) -> Table:
    rows: list[dict[str, Cell]] = []
    for stage, each in failures.items():
        kinds = Counter(failure.kind for failure in each).most_common()
        reasons = ", ".join(f"{kind} ({times})" for kind, times in kinds)
        rows.append({"stage": stage, "failures": len(each), "reasons": reasons or "none"})
    return Table(
        "failures-by-stage",
        "Molecules left out by each stage",
        (Column("stage", "stage"), Column("failures", "left out"), Column("reasons", "reasons")),
        rows,
    )


def _reasons(failures: Mapping[str, Sequence[Failure]]) -> Table:
    rows: list[dict[str, Cell]] = [
        {"stage": stage, "id": failure.id, "class": failure.kind, "message": failure.message}
        for stage, each in failures.items()
        for failure in each
    ]
    return Table(
        "failures",
        "Every one of them",
        (Column("id", "molecule"), Column("class", "reason"), Column("message", "message")),
        rows,
        folded=True,
        group="stage",
    )
