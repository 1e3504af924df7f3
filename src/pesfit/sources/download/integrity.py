"""Integrity of files: sizes, checksums, the two ends of an archive, and errors of the disk that they go to."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from pesfit.core.exceptions import DownloadError
from pesfit.core.files import atomic_write

CHUNK_BYTES = 2**20

_MAGIC = {
    ".tar.gz": ("gzip", b"\x1f\x8b\x08"),
    ".tar.bz2": ("bzip2", b"BZh"),
    ".npz": ("zip", b"PK\x03\x04"),
}


class ChecksumError(DownloadError):
    """A file's size or checksum is not the one that was expected."""


@dataclass(frozen=True)
class Expected:
    """Size and checksums that a file should have.

    Attributes:
        size: in bytes; None where it is not known.
        md5: hexadecimal; None where it is not known.
        sha256: hexadecimal; None where it is not known.
        according_to: where these come from, for messages: "the listing of Zenodo record 8150601".
    """

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    according_to: str = "nobody"

    @property
    def has_checksum(self) -> bool:
        """Whether a wrong byte would be noticed."""
        return self.md5 is not None or self.sha256 is not None


@dataclass(frozen=True)
class Received:
    """Size [bytes] and SHA-256 (hexadecimal) that a file has."""

    size: int
    sha256: str


def examine(path: Path, expected: Expected, name: str, copy: IO[bytes] | None = None) -> Received:
    """Read a file and compare it with what is known.

    Args:
        path: of the file.
        expected: size and checksums, as far as they are known.
        name: of the file in messages.
        copy: where the bytes that are compared are written, too.

    Raises:
        ChecksumError: if it is not what was expected.
        DownloadError: if it cannot be read.
    """
    algorithms = ("sha256",) if expected.md5 is None else ("md5", "sha256")
    digests = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in algorithms}
    size = 0
    for chunk in _read_chunks(path, f"{name} (copy)" if copy else f"{name} (checksum)"):
        size += len(chunk)
        for digest in digests.values():
            digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    if expected.size not in {None, size}:
        raise ChecksumError(f"{name}: has {size} bytes; {expected.size} expected according to {expected.according_to}")
    for algorithm, digest in digests.items():
        wanted: str | None = getattr(expected, algorithm)
        if wanted not in {None, digest.hexdigest()}:
            raise ChecksumError(
                f"{name}: its {algorithm} checksum is {digest.hexdigest()}; {wanted} expected according to {expected.according_to}"
            )
    return Received(size, digests["sha256"].hexdigest())


def _read_chunks(path: Path, label: str) -> Iterator[bytes]:
    try:
        with path.open("rb") as file, byte_bar(label, path.stat().st_size) as bar:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                bar.update(len(chunk))
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read: {error.strerror or error}") from error


def copy_checked(source: Path, target: Path, expected: Expected, name: str) -> Received:
    """Copy a file and compare the very bytes that are written; nothing appears at `target` unless it is whole.

    Raises:
        ChecksumError: if the source is not what was expected.
        DownloadError: if it cannot be read or written.
    """
    with disk_errors(target), atomic_write(target) as new, new.open("wb") as file:
        return examine(source, expected, name, file)


def check_archive(path: Path, name: str) -> None:
    """Look at the two ends of an archive: cheap, and enough to tell it from an error page or half a zip file.

    The converter reads and checks what is between them.

    Args:
        path: where it lies.
        name: with the suffix of its format (`.tar.gz`, `.tar.bz2`, `.npz`).

    Raises:
        ChecksumError: if it is something else.
    """
    for suffix, (kind, magic) in _MAGIC.items():
        if name.endswith(suffix):
            with path.open("rb") as file:
                head = file.read(16)
            if not head.startswith(magic):
                raise ChecksumError(f"{name}: is not a {kind} file; it begins with {head!r}")
            if kind == "zip" and not zipfile.is_zipfile(path):
                raise ChecksumError(f"{name}: is a zip file without its end; it was probably cut short")


def byte_bar(label: str, total: int | None, initial: int = 0) -> tqdm[Any]:
    """Return a progress bar in bytes, with rate and remaining time, shown after one second and removed at the end."""
    return tqdm(
        total=total,
        initial=initial,
        desc=label,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        dynamic_ncols=True,
        mininterval=0.5,
        delay=1.0,
        leave=False,
    )


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing a file into a `DownloadError` that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DownloadError(
                f"{path}: the disk is full ({error.strerror}); what has arrived is kept, and the next run goes on once there is room"
            ) from error
        raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Stop before a disk fills.

    Args:
        folder: one that exists, on the disk in question.
        needed: bytes.
        purpose: of the bytes, for the message.

    Raises:
        DownloadError: if less is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(f"{purpose} needs {needed} bytes in {folder}, where {free} are free")
