"""A file that is not whole yet, on a disk that may be full."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from pesfit.core.exceptions import DownloadError
from pesfit.core.files import write_json


@dataclass(frozen=True)
class Version:
    """Which version of which file a part is the beginning of.

    Attributes:
        url: it was asked from.
        total: size of the whole in bytes; None where the server did not say.
        validator: value for `If-Range`; None where the server gave none.
    """

    url: str
    total: int | None
    validator: str | None


class Part:
    """What has arrived of a file, in `<target>.part`, and the note `<target>.part.json` that says what it is part of.

    Args:
        target: path of the file once it is whole.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._target = target
        self._note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """What has arrived, in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """Return what the part is the beginning of; None if that is not known, and the part is of no use."""
        try:
            return Version(**json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        """Start over. The old bytes go before the new note comes: a kill in between leaves an empty part, never a wrong one.

        Raises:
            DownloadError: if the disk is full.
        """
        try:
            self.path.write_bytes(b"")
            write_json(self._note, asdict(version))
        except OSError as error:
            raise_disk_error(error, self.path)

    def discard(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole file its name."""
        self.path.replace(self._target)
        self._note.unlink(missing_ok=True)


def raise_disk_error(error: OSError, path: Path) -> NoReturn:
    """Say in one sentence why a file could not be written.

    Raises:
        DownloadError: always.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        raise DownloadError(
            f"{path}: the disk is full ({error.strerror}); what has arrived is kept, and the next run goes on once there is room"
        ) from error
    raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Stop before a disk fills.

    Args:
        folder: one that exists, on the disk in question.
        needed: bytes.
        what: they are for.

    Raises:
        DownloadError: if less is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(f"{what} needs {needed} bytes in {folder}, where {free} are free")
