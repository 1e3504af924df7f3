"""Read the arrays of an `.npz` file, believing nothing it says of itself."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from pesfit.core.exceptions import ArchiveError

_SUFFIX = ".npy"


def read_npz(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Read some arrays of an `.npz` file, in the types they are stored in.

    Pickled objects are never loaded, and memory is set aside only for bytes the file has.

    Args:
        stream: the file, open for reading and seekable.
        name: what error messages call it.
        wanted: for each key the kinds of number it may hold, as in numpy's `dtype.kind` (`f` float, `i` int, `u` unsigned int).

    Raises:
        ArchiveError: naming the file, and the key that is missing or damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            members = _members(archive, name, wanted)
            return {key: _read_array(archive, members[key], f"{name}: {key}", kinds) for key, kinds in wanted.items()}
    except ArchiveError:
        raise
    except Exception as error:  # zipfile answers damage with some ten kinds of exception
        raise ArchiveError(f"{name}: truncated or corrupted: {type(error).__name__}: {error}") from error


def _members(archive: zipfile.ZipFile, name: str, wanted: Mapping[str, str]) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist() if info.filename.endswith(_SUFFIX)}
    missing = [key for key in wanted if key not in members]
    if missing:
        raise ArchiveError(f"{name}: has no {', '.join(missing)}; its keys are {', '.join(sorted(members)) or 'none'}")
    return members


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, kinds: str) -> npt.NDArray[Any]:
    with cast("zipfile.ZipExtFile", archive.open(info)) as member:
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ArchiveError(f"{what}: has npy version {version}; 1.0 and 2.0 are read")
        shape, is_fortran, dtype = readers[version](member)
        n_header_bytes = member.tell()
        if dtype.kind not in kinds or dtype.hasobject:
            raise ArchiveError(f"{what}: has type {dtype}; expected one of the kinds {', '.join(kinds)} (float, int, uint)")
        n_bytes = math.prod(shape) * dtype.itemsize
        # Deflate shortens by a factor of 1032 at most.
        if (
            min(shape, default=0) < 0
            or n_header_bytes + n_bytes != info.file_size
            or info.file_size > 1100 * (info.compress_size + 1)
        ):
            raise ArchiveError(
                f"{what}: shape {shape} and type {dtype} do not go with {info.file_size} bytes; the file is corrupted"
            )
        content = bytearray(n_bytes)
        view = memoryview(content)
        n_read = 0
        while n_read < n_bytes and (n := member.readinto(view[n_read : n_read + 2**20])):
            n_read += n
        if n_read != n_bytes or member.read(1):  # the read past the end makes zipfile compare its checksum
            raise ArchiveError(f"{what}: has {n_read} bytes of {n_bytes}; the file is truncated")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
