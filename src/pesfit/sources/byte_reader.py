"""Read numbers, names and lists from bytes that may have been cut or changed.

Each length is compared with the bytes that are left before it is used, so that damage gives an `ArchiveError` that says where, and never a
large allocation. Numbers are little-endian; a list and a text begin with their length as u64.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from pesfit.core.exceptions import ArchiveError

Item = TypeVar("Item")

_U8, _U64, _I64 = struct.Struct("<B"), struct.Struct("<Q"), struct.Struct("<q")


class ByteReader:
    """A position in the bytes of a file; every method that reads moves it on.

    Args:
        content: of the file.
        name: what error messages call it.

    Attributes:
        position: of the next byte.
        content: of the file.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self._name = name
        self.position = 0

    @property
    def n_left(self) -> int:
        """Bytes from here to the end."""
        return len(self.content) - self.position

    def error(self, what: str) -> ArchiveError:
        """Return an error that says what is wrong here."""
        return ArchiveError(
            f"{self._name}: at byte {self.position} of {len(self.content)}: {what}; the file is truncated or corrupted"
        )

    def skip(self, n_bytes: int) -> int:
        """Move over bytes that must be there and return where they begin."""
        if n_bytes > self.n_left:
            raise self.error(f"{n_bytes} more bytes are needed, {self.n_left} are left")
        start = self.position
        self.position += n_bytes
        return start

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read a fixed layout."""
        return layout.unpack_from(self.content, self.skip(layout.size))

    def u64(self) -> int:
        """Read an unsigned integer of 8 bytes."""
        return int(self.unpack(_U64)[0])

    def i64(self) -> int:
        """Read a signed integer of 8 bytes."""
        return int(self.unpack(_I64)[0])

    def flag(self) -> bool:
        """Read a byte that is 0 or 1."""
        value = self.unpack(_U8)[0]
        if value > 1:
            raise self.error(f"{value} where 0 or 1 is expected")
        return bool(value)

    def magic(self, expected: int, what: str) -> None:
        """Read the number something begins with, and refuse another."""
        found = self.u64()
        if found != expected:
            raise self.error(f"no {what} begins here ({found:#x} instead of {expected:#x})")

    def count(self, what: str, n_bytes_each: int) -> int:
        """Read a length and refuse one that the bytes left cannot hold."""
        n_items = self.u64()
        if n_items * n_bytes_each > self.n_left:
            raise self.error(f"{n_items} {what} are announced, {self.n_left} bytes are left")
        return n_items

    def vector(self, what: str, n_bytes_each: int, read: Callable[[], Item]) -> list[Item]:
        """Read a list whose items have so many bytes at least."""
        return [read() for _ in range(self.count(what, n_bytes_each))]

    def text(self) -> str:
        """Read a text in UTF-8."""
        n_bytes = self.count("characters", 1)
        start = self.skip(n_bytes)
        try:
            return self.content[start : self.position].decode()
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8") from None

    def names(self, what: str) -> list[str]:
        """Read a list of texts."""
        return self.vector(what, 8, self.text)
