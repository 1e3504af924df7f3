"""The download cache: a file is fetched once for all checkouts of all users of the folder.

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
from pathlib import Path

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.core.files import write_json
from pesfit.sources.download.integrity import Expected, Received, disk_errors
from pesfit.sources.download.transfer import report


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


class CachedFile:
    """A place for one file in the cache, whose folder is made.

    Args:
        path: of the file.

    Raises:
        DownloadError: if the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note_path = path.with_name(f"{path.name}.json")
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the place alone, waiting while another process does; the lock ends with the process."""
        lock_path = self.path.with_name(f"{self.path.name}.lock")
        with disk_errors(lock_path):
            lock = lock_path.open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"{self.path.name}: another process is downloading it; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise DownloadError(
                    f"{lock_path}: cannot be locked ({error.strerror}); set PESFIT_CACHE to a folder whose file system has locks"
                ) from error
            yield

    def first_seen(self) -> Expected:
        """Return the size and checksum that the file had when it first came; unknown if it never did.

        Raises:
            DownloadError: if the note cannot be read.
        """
        try:
            note = json.loads(self.note_path.read_text())
            return Expected(
                size=note["size"],
                sha256=note["sha256"],
                according_to=f"{self.note_path}, written when it was first downloaded (delete that note if the change is meant)",
            )
        except FileNotFoundError:
            return Expected()
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise DownloadError(f"{self.note_path}: cannot be read ({error}); delete it to download the file again") from error

    def has(self, expected: Expected) -> bool:
        """Whether the file is here and not another than is now expected."""
        note = self.first_seen()
        return (
            note.has_checksum
            and self.path.is_file()
            and expected.sha256 in {None, note.sha256}
            and expected.size in {None, note.size}
        )

    def write_note(self, received: Received, checked_against: str) -> None:
        """Record size and SHA-256 of the file, and who published the checksum that it was compared with."""
        with disk_errors(self.note_path):
            write_json(self.note_path, {"size": received.size, "sha256": received.sha256, "checked_against": checked_against})
