"""New labels for a data set, from GFN2-xTB or any model: a trajectory becomes training data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pesfit.application.choice import Choice, choose
from pesfit.application.teacher import Teacher, label
from pesfit.core.exceptions import DataError, Failure, ParamsError
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.core.runtime import output_folder
from pesfit.data.dataset import ConformerDataset, DatasetWriter, write_failures

PREFIX = "labelled"
"""`source` of a labelled row is this, a slash and what it was, where no other name is asked for."""


@dataclass(frozen=True)
class LabelSummary:
    """What was written.

    Attributes:
        n_rows: rows.
        n_conformers: conformers.
        n_left_out: conformers that were chosen and have no labels.
        failures: why; one for each row concerned.
    """

    n_rows: int
    n_conformers: int
    n_left_out: int
    failures: tuple[Failure, ...]


def label_dataset(
    teacher: Teacher,
    dataset: ConformerDataset,
    output: Path,
    choice: Choice | None = None,
    source: str | None = None,
) -> LabelSummary:
    """Write a data set like another, with a model's energies and forces, and `failures.csv` in its folder.

    Everything else is kept: id, SMILES, group, frames, charges. Rows without a conformer that has labels are left out. Files do not
    depend on the number of worker processes. The folder appears when it is whole.

    Args:
        teacher: the model.
        dataset: with any labels.
        output: folder that does not exist yet.
        choice: which conformers; None for all. Where it does not say by which model, the teacher itself says how unsure it is.
        source: of all rows; `labelled/<what it was>` where None.

    Raises:
        ParamsError: if `output` exists or lies in the data set's folder, or `source` is empty.
        DataError: if the model cannot be opened, or labels none of the conformers.
        ForceFieldError: if its force field cannot be read.
    """
    _check(dataset, output, source)
    teacher.open()  # what is wrong with it is said before processes start
    choice = choice or Choice()
    if choice.most_uncertain is not None and choice.by is None:
        choice = replace(choice, by=teacher)
    chosen = choose(dataset, choice)
    records = (
        replace(record, source=source or f"{PREFIX}/{record.source}")
        for record in (dataset[row].select(positions) for row, positions in chosen.conformers.items())
    )
    sources = {source or f"{PREFIX}/{name}" for name in dataset.table.column("source").unique().to_pylist()}
    n_conformers, n_left_out, failures = 0, 0, list(chosen.failures)
    with output_folder(output) as folder:
        with DatasetWriter(folder, dict.fromkeys(sources, teacher.level_of_theory)) as writer:
            for labelled in ordered_map(
                partial(label, teacher), records, label="label", n_items=len(chosen.conformers), unit="row"
            ):
                n_left_out += labelled.n_left_out
                if labelled.failure is not None:
                    failures.append(labelled.failure)
                if labelled.record is not None:
                    n_conformers += labelled.record.n_conformers
                    writer.write(labelled.record)
            if not n_conformers:
                raise DataError(
                    f"{teacher.name} labels none of the {chosen.n_conformers} conformers of {dataset.path}; the first failed: "
                    f"{failures[0].id}: {failures[0].message}"
                )
        write_failures(folder / FAILURES_FILE, failures)
    return LabelSummary(writer.n_records, n_conformers, n_left_out, tuple(failures))


def _check(dataset: ConformerDataset, output: Path, source: str | None) -> None:
    if source is not None and not source.strip():
        raise ParamsError(f"--source {source!r}: expected a name that is not empty")
    if output.exists() or output.is_symlink():
        raise ParamsError(f"{output} exists already; expected the name of a folder to be made")
    if output.resolve().is_relative_to(dataset.path.resolve()):
        raise ParamsError(f"{output} lies in {dataset.path}, which is read; expected a folder elsewhere")
