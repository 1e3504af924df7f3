"""The download cache: where it is, what it remembers, who may use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.sources.download.cache import CachedFile, cache_folder
from pesfit.sources.download.integrity import Expected, Received

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
    assert json.loads(place.note_path.read_text()) == {"size": 1, "sha256": SHA256, "checked_against": "me"}
    assert place.has(Expected())
    assert place.has(Expected(size=1, sha256=SHA256))
    assert not place.has(Expected(sha256="1" * 64))
    assert not place.has(Expected(size=2))
    assert place.first_seen().sha256 == SHA256
    assert str(place.note_path) in place.first_seen().according_to
    place.path.unlink()
    assert not place.has(Expected())
    assert place.first_seen().sha256 == SHA256


def test_unreadable_note_is_named(tmp_path: Path) -> None:
    place = CachedFile(tmp_path / "a.tar.gz")
    place.note_path.write_text('{"size": 1}')
    with pytest.raises(DownloadError, match=rf"^{place.note_path}: cannot be read .*; delete it to download the file again"):
        place.first_seen()


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
