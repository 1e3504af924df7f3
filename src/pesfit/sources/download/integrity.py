"""Is a file whole and unchanged? Sizes, checksums, and a cheap look at an archive's ends."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pesfit.core.exceptions import DownloadError

CHUNK_BYTES = 2**20

_MAGIC = {
    ".tar.gz": ("gzip", b"\x1f\x8b\x08"),
    ".tar.bz2": ("bzip2", b"BZh"),
    ".npz": ("zip", b"PK\x03\x04"),
}
_SUMS_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]+) [ *](?P<path>.+)")
_HEX_DIGITS = {"md5": 32, "sha256": 64}


class ChecksumError(DownloadError):
    """A file's size or checksum is not the one that was expected."""


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is here.

    Attributes:
        size: in bytes; None where it is not known.
        md5: hexadecimal; None where it is not known.
        sha256: likewise.
        said_by: who says so, as a message can say it: "the listing of Zenodo record 8150601".
    """

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    said_by: str = "nobody"

    @property
    def has_checksum(self) -> bool:
        """Whether a wrong byte would be noticed."""
        return self.md5 is not None or self.sha256 is not None


@dataclass(frozen=True)
class Received:
    """What a file turned out to be.

    Attributes:
        size: in bytes.
        sha256: hexadecimal.
    """

    size: int
    sha256: str


class Digest:
    """Size and checksums of bytes as they pass.

    Args:
        expected: which checksums to compute besides sha256, and what to compare with.
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if expected.md5 is not None else None

    def update(self, chunk: bytes) -> None:
        """Take the next bytes in."""
        self._size += len(chunk)
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)

    def received(self, name: str) -> Received:
        """Return what passed.

        Args:
            name: of the file, for the message.

        Raises:
            ChecksumError: if it is not what was expected.
        """
        expected = self._expected
        if expected.size is not None and self._size != expected.size:
            raise ChecksumError(f"{name}: has {self._size} bytes; {expected.size} expected, says {expected.said_by}")
        for algorithm, wanted, digest in (("md5", expected.md5, self._md5), ("sha256", expected.sha256, self._sha256)):
            if wanted is not None and digest is not None and digest.hexdigest() != wanted:
                raise ChecksumError(
                    f"{name}: its {algorithm} checksum is {digest.hexdigest()}; {wanted} expected, says {expected.said_by}"
                )
        return Received(self._size, self._sha256.hexdigest())


def examine(path: Path, expected: Expected, name: str) -> Received:
    """Read a file and compare it with what is known.

    Raises:
        ChecksumError: if it is not what was expected.
    """
    digest = Digest(expected)
    for chunk in read_chunks(path, f"{name} (checksum)"):
        digest.update(chunk)
    return digest.received(name)


def read_chunks(path: Path, label: str) -> Iterator[bytes]:
    """Yield a file's bytes under a progress bar.

    Raises:
        DownloadError: if it cannot be read.
    """
    try:
        with path.open("rb") as file, byte_bar(label, path.stat().st_size) as bar:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                bar.update(len(chunk))
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read: {error.strerror or error}") from error


def byte_bar(label: str, total: int | None, initial: int = 0) -> tqdm[Any]:
    """Return a progress bar in bytes, with rate and remaining time; it comes after a second and goes when all is done."""
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


def check_archive(path: Path, name: str) -> None:
    """Look at the two ends of an archive: cheap, and enough to tell it from an error page or half a zip file.

    The middle is the converter's business, which reads all of it anyway.

    Args:
        path: where it lies.
        name: what it is called, which says its format (`.tar.gz`, `.tar.bz2`, `.npz`).

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


def read_sums(lines: Iterable[str], algorithm: str, said_by: str) -> dict[str, str]:
    """Parse what `sha256sum` or `md5sum` wrote.

    Args:
        lines: such as `<digest>  espaloma/gen2-opt.tar.gz`.
        algorithm: `md5` or `sha256`.
        said_by: the file's name, for the message.

    Returns:
        Digest by path; a leading `./` is dropped.

    Raises:
        DownloadError: if a line is not of that form.
    """
    sums = {}
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if not text.strip() or text.startswith("#"):
            continue
        match = _SUMS_LINE.fullmatch(text)
        if match is None or len(match["digest"]) != _HEX_DIGITS[algorithm]:
            raise DownloadError(
                f"{said_by}: line {number} is {text[:80]!r}; expected {_HEX_DIGITS[algorithm]} hexadecimal digits, two spaces and a path"
            )
        sums[match["path"].removeprefix("./")] = match["digest"].lower()
    return sums


def expected_from_sums(path: str, sums: Mapping[str, Mapping[str, str]]) -> Expected:
    """Return what checksum files say about one file.

    Args:
        path: relative to the folder the checksum files lie in.
        sums: by algorithm, what `read_sums` returned.
    """
    found = {algorithm: digests[path] for algorithm, digests in sums.items() if path in digests}
    if not found:
        return Expected()
    return Expected(
        md5=found.get("md5"),
        sha256=found.get("sha256"),
        said_by="the mirror's " + " and ".join(f"{algorithm.upper()}SUMS" for algorithm in found),
    )
