"""The download cache: where it is, what it remembers, who may use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.sources.download.cache import CachedFile, Note, cache_folder, copy_checked
from pesfit.sources.download.integrity import ChecksumError, Expected, Received, examine

SHA256 = "0" * 64


def test_folder_is_chosen_by_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"PESFIT_CACHE": f"{tmp_path}/a/b", "XDG_CACHE_HOME": "/elsewhere"}) == tmp_path / "a/b"
    assert cache_folder({"XDG_CACHE_HOME": f"{tmp_path}/c", "PESFIT_CACHE": ""}) == tmp_path / "c/pesfit"
    assert (tmp_path / "a/b").is_dir()
    assert (tmp_path / "c/pesfit").is_dir()


def test_folder_defaults_to_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PESFIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache/pesfit"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ParamsError, match=r"^PESFIT_CACHE = '.*/file/cache': Not a directory; expected a folder"):
        cache_folder({"PESFIT_CACHE": f"{tmp_path}/file/cache"})


def test_note_is_what_counts(tmp_path: Path) -> None:
    place = CachedFile(tmp_path / "espaloma" / "a.tar.gz")
    place.path.write_bytes(b"a")
    assert not place.has(Expected())  # without a note: nobody knows what it is
    assert not place.first_seen().has_checksum
    place.write_note(Received(1, SHA256), "me")
    assert place.note() == Note(1, SHA256, "me")
    assert place.has(Expected())
    assert place.has(Expected(size=1, sha256=SHA256))
    assert not place.has(Expected(sha256="1" * 64))
    assert not place.has(Expected(size=2))
    assert place.first_seen().sha256 == SHA256
    assert str(place.note_path) in place.first_seen().said_by
    place.path.unlink()
    assert not place.has(Expected())
    assert place.first_seen().sha256 == SHA256


def test_unreadable_note_is_named(tmp_path: Path) -> None:
    place = CachedFile(tmp_path / "a.tar.gz")
    place.note_path.write_text('{"size": 1}')
    with pytest.raises(DownloadError, match=rf"^{place.note_path}: cannot be read .*; delete it to download the file again"):
        place.note()


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


def test_lock_is_waited_for_and_dies_with_its_holder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = CachedFile(tmp_path / "a.tar.gz")
    hold = (
        "import sys, time; from pathlib import Path; from pesfit.sources.download.cache import CachedFile\n"
        "with CachedFile(Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, place.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiter = subprocess.Popen(
            [sys.executable, "-c", hold, place.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with waiter:
            assert waiter.stderr is not None
            assert waiter.stderr.readline() == "a.tar.gz: another process is downloading it; waiting\n"
            holder.kill()
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == "held\n"
            waiter.communicate("")
    with place.lock():
        pass
    assert capfd.readouterr().err == ""


def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "espaloma").touch()
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(DownloadError, match="espaloma: cannot be written"):
        CachedFile(tmp_path / "espaloma" / "a.tar.gz")
