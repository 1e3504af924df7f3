"""Read compressed tar archives member by member, without unpacking anything to disk.

The tarfile module takes many kinds of damage for the end of an archive. Here an archive counts as whole only if the end-of-archive
block is there, nothing but zeros follows it, and the decompressor has checked its sums up to the last byte.
"""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from pesfit.core.exceptions import ArchiveError

_OPENERS: dict[bytes, Callable[[Path], object]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
_BLOCK_BYTES = 2**14


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes:
        name: as the archive has it, without a leading `./`.
        content: all its bytes.
    """

    name: str
    content: bytes


class _StrictTarInfo(tarfile.TarInfo):
    """A header that raises an error when it is damaged; tarfile takes a damaged header that is not the first for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise EOFError(f"no valid header at byte {tar.offset} of the unpacked archive ({error})") from error


def read_members(path: Path, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[Member]:
    """Yield the regular files of an archive whose names are wanted, in the archive's order.

    Names with a part that begins with `.` (such as the `._` files of macOS) or that is `PaxHeader` are never wanted.

    Args:
        path: a `.tar.gz` or `.tar.bz2`; which of them is told by its first bytes.
        wanted: tells whether a file is wanted, by its name.
        max_bytes: what a wanted file may have at most.

    Raises:
        ArchiveError: if the archive is truncated or damaged, at the latest after its last member; it names the archive and the last
            member that was read.
    """
    last = "nothing"
    try:
        with (
            _open(path) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK_BYTES, tarinfo=_StrictTarInfo) as tar,
        ):
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header to the end
                name = info.name.removeprefix("./")
                if info.isreg() and not _is_hidden(name) and wanted(name):
                    member = Member(name, _read(tar, info, max_bytes))
                    last = name
                    yield member
                    del member  # it may be large, and the next one is read before it would be replaced
            _check_end(cast("IO[bytes]", tar.fileobj))
    except (EOFError, OSError, zlib.error, tarfile.TarError, ValueError) as error:
        raise ArchiveError(f"{path}: truncated or corrupted: {error}; the last file read from it was {last}") from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        start = stream.read(2)
    if start not in _OPENERS:
        raise ValueError(f"it begins with {start!r}, not with the mark of gzip or bzip2")
    return cast("IO[bytes]", _OPENERS[start](path))


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "PaxHeader")) for part in name.split("/"))


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, max_bytes: int) -> bytes:
    """Read a member in blocks: what is held is what was really there, whatever size the header announces."""
    if info.size > max_bytes:
        raise ValueError(f"{info.name} has {info.size} bytes by its header; at most {max_bytes} are expected")
    stream = cast("IO[bytes]", tar.extractfile(info))
    content = io.BytesIO()
    while block := stream.read(_BLOCK_BYTES):
        content.write(block)
    if content.tell() != info.size:
        raise EOFError(f"{info.name} has {content.tell()} bytes of {info.size}")
    return content.getvalue()


def _check_end(stream: IO[bytes]) -> None:
    """Read to the end, so that the decompressor gets to its checksum, and see that only padding is left."""
    while block := stream.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            raise ValueError("there is data after the end-of-archive block")
