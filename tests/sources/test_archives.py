"""Archives are read whole, in order, or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import ArchiveError
from pesfit.sources.archives import read_members
from tests.sources.synthetic import tar_bytes

FILES = {f"set/{i}/data.bin": np.random.default_rng(i).bytes(3000 + 700 * i) for i in range(12)}
LIMIT = 2**20


def read(path: Path, limit: int = LIMIT) -> dict[str, bytes]:
    return {member.name: member.content for member in read_members(path, lambda _: True, limit)}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(tar_bytes(FILES))
    return path


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_reads_all_files_in_order(tmp_path: Path, mode: str, prefix: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(tar_bytes({prefix + name: content for name, content in FILES.items()}, mode))
    found = read(path)
    assert found == FILES
    assert list(found) == list(FILES)


def test_skips_what_is_hidden_or_not_wanted(tmp_path: Path) -> None:
    hidden = {"set/._0": b"", "._set/a": b"", "set/.DS_Store": b"", "set/PaxHeader.7/a": b"", "PaxHeader/a": b""}
    path = tmp_path / "set.tar.gz"
    path.write_bytes(tar_bytes({**hidden, "set/a": b"a", "set/b": b"b"}))
    assert read(path) == {"set/a": b"a", "set/b": b"b"}
    assert [member.name for member in read_members(path, lambda name: name.endswith("b"), LIMIT)] == ["set/b"]


@pytest.mark.parametrize("compression", ["gz", "bz2"])
def test_truncated_anywhere_is_refused(tmp_path: Path, compression: str) -> None:
    content = tar_bytes(FILES, f"w:{compression}")
    path = tmp_path / f"cut.tar.{compression}"
    rng = random.Random(1)
    for size in [0, 1, 2, 10, len(content) - 1, len(content) - 8, *(rng.randrange(len(content)) for _ in range(20))]:
        path.write_bytes(content[:size])
        with pytest.raises(
            ArchiveError, match=rf"cut\.tar\.{compression}: truncated or corrupted: .*the last file read from it was "
        ):
            read(path)


def test_truncation_says_what_was_read_last(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match=r"the last file read from it was set/\d+/data\.bin$"):
        read(archive)


@pytest.mark.parametrize("compression", ["gz", "bz2"])
def test_flipped_bytes_are_refused(tmp_path: Path, compression: str) -> None:
    content = tar_bytes(FILES, f"w:{compression}")
    path = tmp_path / "flipped"
    rng = random.Random(2)
    start = 10 if compression == "gz" else 0  # gzip's own header has a time stamp and flags that nothing protects
    for _ in range(20):
        position = rng.randrange(start, len(content))
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ArchiveError, match="flipped: truncated or corrupted"):
            read(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_tar_cut_before_it_was_compressed_is_refused(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Compression is whole here; only the end-of-archive block is missing, even where the cut is between two members."""
    tar = tar_bytes(FILES, "w")
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        boundaries = [info.offset for info in opened.getmembers()][1:]
    rng = random.Random(3)
    path = tmp_path / "cut"
    for size in [*boundaries, *(rng.randrange(boundaries[-1]) for _ in range(20))]:
        path.write_bytes(compress(tar[:size]))
        with pytest.raises(ArchiveError, match="truncated or corrupted"):
            read(path)


def test_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    tar = bytearray(tar_bytes(FILES, "w"))
    second = 512 + 3072  # the first member's header and content
    tar[second + 100] ^= 1  # its mode
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(tar))
    with pytest.raises(ArchiveError, match=f"no valid header at byte {second} .*set/0/data.bin"):
        read(path)


def test_data_after_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes(FILES, "w") * 2))
    with pytest.raises(ArchiveError, match="after the end-of-archive block"):
        read(path)


def test_large_member_is_refused_before_it_is_read(archive: Path) -> None:
    with pytest.raises(ArchiveError, match=r"set/3/data\.bin has 5100 bytes by its header; at most 5000"):
        read(archive, 5000)


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.tar.gz"
    path.write_text("<html>404</html>")
    with pytest.raises(ArchiveError, match="it begins with b'<h'"):
        read(path)
