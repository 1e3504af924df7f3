"""The download cache: what was fetched once is not fetched again, by any checkout of any user of the folder.

It lies outside DVC's outputs, which DVC deletes before a stage runs. Beside each file stands `<file>.json` with the size and SHA-256 it had
when it came; every use compares the file with that. Where nobody publishes a checksum this note is all there is (trust on first
use): it stays when the file goes, and a later download that differs is refused.

Files are copied out, not linked: DVC may make its outputs read-only, or links into a cache of its own, and a file shared with them
could be changed from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.core.files import atomic_write, write_json
from pesfit.sources.download.integrity import Digest, Expected, Received, read_chunks
from pesfit.sources.download.part import raise_disk_error
from pesfit.sources.download.retry import tell


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the download cache: `PESFIT_CACHE`, or `pesfit` in the user's cache folder.

    Raises:
        ParamsError: if it cannot be made.
    """
    chosen = environment.get("PESFIT_CACHE")
    base = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    folder = (Path(chosen) if chosen else base / "pesfit").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParamsError(
            f"PESFIT_CACHE = {str(folder)!r}: {error.strerror}; expected a folder for downloads that can be written to"
        ) from error
    return folder


@dataclass(frozen=True)
class Note:
    """What a cached file was when it came.

    Attributes:
        size: in bytes.
        sha256: hexadecimal.
        checked_against: who vouched for it, or `nobody`.
    """

    size: int
    sha256: str
    checked_against: str


class CachedFile:
    """A place for one file in the cache.

    Args:
        path: of the file; its folder is made.

    Raises:
        DownloadError: if the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note_path = path.with_name(f"{path.name}.json")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise_disk_error(error, path.parent)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the place alone; wait, and say so, while another process does. The lock goes with the process, however that ends."""
        lock_path = self.path.with_name(f"{self.path.name}.lock")
        try:
            lock = lock_path.open("a")
        except OSError as error:
            raise_disk_error(error, lock_path)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"{self.path.name}: another process is downloading it; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise DownloadError(
                    f"{lock_path}: cannot be locked ({error.strerror}); set PESFIT_CACHE to a folder whose file system has locks"
                ) from error
            yield

    def note(self) -> Note | None:
        """Return what the file was when it came; None if it never did."""
        try:
            return Note(**json.loads(self.note_path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError) as error:
            raise DownloadError(f"{self.note_path}: cannot be read ({error}); delete it to download the file again") from error

    def has(self, expected: Expected) -> bool:
        """Whether the file is here, and not another than is now expected."""
        note = self.note()
        return (
            note is not None
            and self.path.is_file()
            and expected.sha256 in {None, note.sha256}
            and expected.size in {None, note.size}
        )

    def first_seen(self) -> Expected:
        """Return what a file without a published checksum must be: what it was the first time."""
        note = self.note()
        if note is None:
            return Expected()
        return Expected(
            size=note.size,
            sha256=note.sha256,
            said_by=f"{self.note_path}, written when it was first downloaded (delete that note if the change is meant)",
        )

    def write_note(self, received: Received, checked_against: str) -> None:
        """Remember what the file is."""
        try:
            write_json(self.note_path, asdict(Note(received.size, received.sha256, checked_against)))
        except OSError as error:
            raise_disk_error(error, self.note_path)


def copy_checked(source: Path, target: Path, expected: Expected, name: str) -> Received:
    """Copy a file and compare the very bytes that are written with what is expected.

    Args:
        source: where it lies.
        target: where it goes; nothing appears there unless it is whole.
        expected: size and checksums, as far as they are known.
        name: what messages call it.

    Returns:
        Size and sha256.

    Raises:
        ChecksumError: if the source is not what was expected.
        DownloadError: if it cannot be read or written.
    """
    digest = Digest(expected)
    try:
        with atomic_write(target) as new:
            with new.open("wb") as file:
                for chunk in read_chunks(source, f"{name} (copy)"):
                    digest.update(chunk)
                    file.write(chunk)
            return digest.received(name)
    except OSError as error:
        raise_disk_error(error, target)
