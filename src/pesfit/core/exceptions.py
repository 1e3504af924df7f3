"""Errors: exceptions that stop a run, and values for single molecules that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PesfitError(Exception):
    """Anything a user can cause. Its message is one sentence that names the thing, its value and what is allowed.

    ::

        PesfitError                exit status 1
        ├── ParamsError            exit status 2: params.yaml, a command line, or an environment variable
        ├── DownloadError          a URL, its size, checksum, or the disk it goes to
        ├── DataError              a file or data set that is not what it should be
        │   ├── ArchiveError       an archive or a member of it that is truncated, corrupted or incomplete
        │   └── UnknownElementError  an element that the training set of a network lacks
        ├── ForceFieldError        a force field, or a section of it that is not supported
        ├── LostProcessError       a process that others work together with has ended
        ├── TooManyFailuresError   more molecules failed than `max_failed_fraction` allows
        └── MoleculeError          one molecule; caught where molecules are looped over and kept as a `Failure`

    Example:
        >>> import pesfit
        >>> try:
        ...     pesfit.open_model("outputs/nothing")
        ... except pesfit.PesfitError as error:
        ...     print(error)
        model outputs/nothing does not exist; expected a folder such as outputs/smirnoff, or an .offxml
    """

    exit_status = 1


class ParamsError(PesfitError):
    """A parameter, option or environment variable has a value that is not allowed."""

    exit_status = 2


class DownloadError(PesfitError):
    """A file could not be fetched whole and unchanged."""


class DataError(PesfitError):
    """A file or a data set is not what it should be."""


class ArchiveError(DataError):
    """An archive, or an entry in it, is truncated, corrupted or incomplete."""


class UnknownElementError(DataError):
    """A network is asked about an element that its training set lacks.

    This is expected where a network is trained on part of the data; `check_failed_fraction` does not count it.
    """


class ForceFieldError(PesfitError):
    """A force field cannot be read, or asks for something that is not supported."""


class LostProcessError(PesfitError):
    """A process that this one works together with has ended, or cannot be reached."""


class MoleculeError(PesfitError):
    """One molecule cannot be handled; the others go on."""


class TooManyFailuresError(PesfitError):
    """A larger fraction of molecules failed than the parameters allow."""


@dataclass(frozen=True)
class Failure:
    """Why one molecule was left out: a value, reported at the end, never a print that is lost.

    Attributes:
        id: the molecule's `id` in the data set.
        stage: name of the stage without its number, such as `parameterize`.
        kind: class of the exception, such as `UnassignedBondError`.
        message: of the exception, on one line.
    """

    id: str
    stage: str
    kind: str
    message: str

    @classmethod
    def from_exception(cls, molecule: str, stage: str, error: Exception) -> Failure:
        """Return the failure of the molecule with this id; line breaks in the message are folded."""
        return cls(molecule, stage, type(error).__name__, " ".join(str(error).split()))


def check_failed_fraction(failures: Sequence[Failure], n_molecules: int, max_failed_fraction: float) -> None:
    """Stop when too many molecules failed.

    Args:
        failures: one for each molecule that failed; those of an `UnknownElementError` are left out.
        n_molecules: how many were tried.
        max_failed_fraction: 0 to 1; what may fail at most.

    Raises:
        TooManyFailuresError: with the head of the table in its message.
    """
    failures = [failure for failure in failures if failure.kind != UnknownElementError.__name__]
    if len(failures) <= max_failed_fraction * n_molecules:
        return
    head = "".join(f"\n  {failure.id}: {failure.kind}: {failure.message}" for failure in failures[:5])
    more = f"\n  ... and {len(failures) - 5} more" if len(failures) > 5 else ""
    raise TooManyFailuresError(
        f"{failures[0].stage}: {len(failures)} of {n_molecules} molecules failed, more than "
        f"max_failed_fraction = {max_failed_fraction:g} allows:{head}{more}"
    )
