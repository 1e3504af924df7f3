"""The files that DGL's `save_graphs` writes, read in numpy alone.

The layout is that of DGL's own serializer (src/graph/serialize/heterograph_serialize.cc and the `Save` methods it calls): little-endian,
uncompressed, one thing after another. Strings and vectors begin with their length as u64; an optional thing is written bare.

    header      u64 magic, version 2, graph type 2, number of graphs; padded with arbitrary bytes to 4096
    labels      u64 position of the first graph; vector of (name, array)
    graph       magic; metagraph; vector of relations; vector of node counts; node features and edge features of each type; names of
                the node types; names of the edge types
    metagraph   magic; CSR matrix from node type to node type: its entry i is the pair of types that relation i connects
    relation    magic; i64 formats stored; i64 formats allowed; for each stored format the relation's own metagraph and a COO or CSR matrix
    array       magic; u64 0; i32 device; i32 device number; i32 dimensions; u8 kind; u8 bits; u16 lanes; i64 shape; i64 bytes; data
    trailer     vector of the graphs' positions, with its size in bytes before (u64) and after it (u64)

Each length, count, shape and type is checked before it is used, so that a file that was cut or changed gives an `ArchiveError` that names
the position, and never a large allocation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pesfit.core.exceptions import ArchiveError

Item = TypeVar("Item")
_U8, _U64, _I64 = struct.Struct("<B"), struct.Struct("<Q"), struct.Struct("<q")
_HEADER = struct.Struct("<4Q")
_ARRAY_HEADER = struct.Struct("<QiiiBBH")
Array = npt.NDArray[Any]
_FILE = 0xDD2E4FF046B4A13F
_GRAPH = 0xDD589FBE35224ABF
_METAGRAPH = 0xDD3C5FFE20046ABF
_RELATION = 0xDD2E60F0F6B4A127
_COO = 0xDD61FFD305DFF127
_CSR = 0xDD6CD31205DFF127
_ARRAY = 0xDD5E40F096B4A13F
_HEADER_BYTES = 4096
_CPU = 1
_KINDS = {0: "i", 1: "u", 2: "f"}
_DTYPES = {
    (kind, bits): np.dtype(f"<{_KINDS[kind]}{bits // 8}")
    for kind in _KINDS
    for bits in (8, 16, 32, 64)
    if (kind, bits) != (2, 8)
}
_STORED_COO, _STORED_CSR, _STORED_CSC = 1, 2, 4


@dataclass(frozen=True)
class Heterograph:
    """The nodes of one graph with several types of nodes.

    Attributes:
        node_counts: number of nodes of each type.
        node_data: for each node type its features by name; the first axis of each counts nodes.
    """

    node_counts: dict[str, int]
    node_data: dict[str, dict[str, Array]]


def read_graphs(content: bytes, name: str) -> tuple[Heterograph, ...]:
    """Read the nodes of all graphs of a file. Edges are passed over: Espaloma's graphs have their bonds as features of nodes.

    Args:
        content: the whole file. Arrays that are returned are read-only views of it.
        name: of the file in messages.

    Raises:
        ArchiveError: naming the file, the position in it and what is wrong there.
    """
    reader = _Reader(content, name)
    n_graphs = _read_header(reader)
    start = reader.u64()
    reader.named_arrays()  # labels
    if reader.position != start:
        raise reader.error(f"the labels should end at byte {start}")
    positions, graphs = [], []
    for _ in range(n_graphs):
        positions.append(reader.position)
        graphs.append(_read_graph(reader))
    _check_trailer(reader, positions)
    return tuple(graphs)


class _Reader:
    """A position in the bytes of a file; every method that reads moves it on."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self._name = name
        self.position = 0

    @property
    def n_left(self) -> int:
        """Bytes from here to the end."""
        return len(self.content) - self.position

    def error(self, what: str) -> ArchiveError:
        """Return an error that names the file and the position."""
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

    def array(self) -> Array:
        self.magic(_ARRAY, "array")
        reserved, device, _, n_dimensions, kind, bits, lanes = self.unpack(_ARRAY_HEADER)
        if reserved != 0 or device != _CPU or lanes != 1:
            raise self.error(
                f"an array has reserved field {reserved}, device {device} and {lanes} lanes; expected 0, {_CPU} and 1"
            )
        dtype = _DTYPES.get((kind, bits))
        if dtype is None:
            raise self.error(
                f"an array has elements of kind {kind} with {bits} bits; known are 0 (int), 1 (uint) and 2 (float)"
            )
        if not 0 <= n_dimensions <= 32:
            raise self.error(f"an array has {n_dimensions} dimensions; expected 0 to 32")
        shape = self.unpack(struct.Struct(f"<{n_dimensions}q"))
        n_bytes = self.i64()
        if min(shape, default=0) < 0 or n_bytes != math.prod(shape) * dtype.itemsize:
            raise self.error(f"an array of shape {shape} and type {dtype} cannot have {n_bytes} bytes")
        # numpy multiplies the lengths that are not 0, and refuses what this cannot hold: only an empty array can get there.
        if math.prod(length for length in shape if length) * dtype.itemsize > 2**62:
            raise self.error(f"an array has shape {shape}")
        start = self.skip(n_bytes)
        return np.frombuffer(self.content, dtype, math.prod(shape), start if n_bytes else 0).reshape(shape)

    def named_arrays(self) -> dict[str, Array]:
        pairs = self.vector("named arrays", 8, lambda: (self.text(), self.array()))
        arrays = dict(pairs)
        if len(arrays) != len(pairs):
            raise self.error(f"two of the names {', '.join(name for name, _ in pairs)} are the same")
        return arrays


def _read_header(reader: _Reader) -> int:
    start = reader.skip(0)
    magic, version, kind, n_graphs = reader.unpack(_HEADER)
    if magic != _FILE:
        raise reader.error(f"this is not a DGL graph file ({magic:#x} instead of {_FILE:#x})")
    if (version, kind) != (2, 2):
        raise reader.error(f"version {version} and graph type {kind}; only version 2, type 2 (heterograph) is read")
    reader.skip(_HEADER_BYTES - (reader.position - start))
    if n_graphs * 8 > reader.n_left:
        raise reader.error(f"{n_graphs} graphs are announced, {reader.n_left} bytes are left")
    return int(n_graphs)


def _read_graph(reader: _Reader) -> Heterograph:
    reader.magic(_GRAPH, "graph")
    n_types = _skip_metagraph(reader)
    n_relations = len(reader.vector("relations", 8, lambda: _skip_relation(reader)))
    counts = reader.vector("node counts", 8, reader.u64)
    node_data = reader.vector("sets of node features", 8, reader.named_arrays)
    edge_data = reader.vector("sets of edge features", 8, reader.named_arrays)
    node_types, edge_types = reader.names("node types"), reader.names("edge types")
    lengths = {"node counts": len(counts), "sets of node features": len(node_data), "node types": len(node_types)}
    if set(lengths.values()) != {n_types} or len(set(node_types)) != n_types:
        raise reader.error(f"{n_types} node types are connected, but there are {lengths} ({', '.join(node_types)})")
    if not n_relations == len(edge_data) == len(edge_types):
        raise reader.error(f"{n_relations} sets of edges, {len(edge_data)} of features, {len(edge_types)} names")
    for node_type, count, data in zip(node_types, counts, node_data, strict=True):
        for name, array in data.items():
            if array.ndim == 0 or len(array) != count:
                raise reader.error(f"feature {name!r} of {count} nodes {node_type!r} has shape {array.shape}")
    return Heterograph(dict(zip(node_types, counts, strict=True)), dict(zip(node_types, node_data, strict=True)))


def _skip_metagraph(reader: _Reader) -> int:
    """Pass over the pairs of node types that relations connect; return the number of node types."""
    reader.magic(_METAGRAPH, "metagraph")
    return _skip_matrix(reader, _CSR, "CSR matrix", n_flags=1)


def _skip_relation(reader: _Reader) -> None:
    reader.magic(_RELATION, "relation")
    stored, _ = reader.i64(), reader.i64()
    # Before DGL 0.8 one format was written, as its position in (any, coo, csr, csc).
    formats = stored & 0xFFFFFFFF if stored >> 32 == 1 else {1: _STORED_COO, 2: _STORED_CSR, 3: _STORED_CSC}.get(stored, 0)
    if not 0 < formats <= (_STORED_COO | _STORED_CSR | _STORED_CSC):
        raise reader.error(f"edges are stored in an unknown format ({stored:#x})")
    for bit in (_STORED_COO, _STORED_CSR, _STORED_CSC):
        if formats & bit:
            _skip_metagraph(reader)
            if bit == _STORED_COO:
                _skip_matrix(reader, _COO, "COO matrix", n_flags=2)
            else:
                _skip_matrix(reader, _CSR, "CSR matrix", n_flags=1)


def _skip_matrix(reader: _Reader, magic: int, what: str, n_flags: int) -> int:
    """Pass over a sparse matrix and return its number of rows."""
    reader.magic(magic, what)
    _, n_rows = reader.i64(), reader.i64()
    for _ in range(3):
        reader.array()
    for _ in range(n_flags):
        reader.flag()
    return n_rows


def _check_trailer(reader: _Reader, positions: list[int]) -> None:
    before = reader.u64()
    found = reader.vector("graph positions", 8, reader.u64)
    after = reader.u64()
    if found != positions or before != after or before != 8 * (1 + len(positions)) or reader.n_left:
        raise reader.error(f"the list of graphs at the end ({found}, {before} bytes) is not that of the file ({positions})")
