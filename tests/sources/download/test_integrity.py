"""Checksums, checksum files, and telling archives from error pages."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import (
    ChecksumError,
    Expected,
    byte_bar,
    check_archive,
    copy_checked,
    examine,
)

MD5 = "0123456789abcdef0123456789abcdef"
SHA256 = MD5 + MD5


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, E=np.zeros((3, 1)), R=np.ones((3, 9, 3)))
    return buffer.getvalue()


WHOLE = {"a.tar.gz": gzip.compress(b"tar"), "a.tar.bz2": bz2.compress(b"tar"), "a.npz": _npz()}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_archives_pass(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WHOLE[name])
    check_archive(tmp_path / name, name)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><p>Please log in</p>"])
@pytest.mark.parametrize("name", WHOLE)
def test_other_files_are_told_from_archives(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ChecksumError, match=rf"^{name}: is not a (gzip|bzip2|zip) file; it begins with b'"):
        check_archive(tmp_path / name, name)


def test_half_a_zip_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(WHOLE["a.npz"][:-30])
    with pytest.raises(ChecksumError, match="cut short"):
        check_archive(tmp_path / "a.npz", "a.npz")
    assert zipfile.is_zipfile(io.BytesIO(WHOLE["a.npz"]))


def test_examine_compares_with_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"pesfit")
    sha256 = hashlib.sha256(b"pesfit").hexdigest()
    assert examine(path, Expected(size=6, sha256=sha256), "a").sha256 == sha256
    assert examine(path, Expected(md5=hashlib.md5(b"pesfit").hexdigest()), "a").size == 6
    for wrong, message in (
        (Expected(size=7, according_to="me"), "a: has 6 bytes; 7 expected according to me"),
        (Expected(md5=MD5, according_to="me"), f"a: its md5 checksum is .*; {MD5} expected according to me"),
        (Expected(sha256=SHA256, according_to="me"), f"a: its sha256 checksum is {sha256}; {SHA256} expected"),
    ):
        with pytest.raises(ChecksumError, match=message):
            examine(path, wrong, "a")


def test_unreadable_file_is_a_download_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be read: Is a directory"):
        examine(tmp_path, Expected(), "a")


def test_bar_shows_size_rate_and_remaining_time() -> None:
    with byte_bar("gen2-opt.tar.gz", 4 * 2**20, initial=2**20) as bar:
        bar.start_t -= 2.0
        bar.update(2**20)
        text = str(bar)
    assert text.startswith("gen2-opt.tar.gz:  50%")
    assert "2.00M/4.00M [00:02<00:0" in text  # elapsed and remaining
    assert re.search(r"\d+[kM]?B/s", text)


def test_copy_is_compared_as_it_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "output" / "target"
    target.parent.mkdir()
    source.write_bytes(b"pesfit" * 500_000)
    known = examine(source, Expected(), "source")
    assert copy_checked(source, target, Expected(known.size, sha256=known.sha256), "source") == known
    assert target.read_bytes() == source.read_bytes()
    target.unlink()
    with pytest.raises(ChecksumError, match="sha256"):
        copy_checked(source, target, Expected(sha256=SHA256), "source")
    assert list(target.parent.iterdir()) == []


def test_copy_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"pesfit")
    copy_checked(tmp_path / "source", tmp_path / "target", Expected(), "source")
    (tmp_path / "target").write_bytes(b"changed in place")
    assert (tmp_path / "source").read_bytes() == b"pesfit"


def test_copy_to_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"pesfit")
    (tmp_path / f".target.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="target: the disk is full"):
        copy_checked(tmp_path / "source", tmp_path / "target", Expected(), "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
