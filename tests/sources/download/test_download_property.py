"""Whatever a connection does, the bytes under the final name are the file's."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.retry import Patience
from pesfit.sources.download.transfer import fetch
from tests.sources.download.file_server import Fault, FileServer, Served

CONTENT = bytes(i * i % 251 for i in range(40_000))
OLD = CONTENT[::-1] + b"longer"
KNOWN = Expected(len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), said_by="the test")

drops = st.lists(st.integers(0, len(CONTENT)), max_size=8)
faults = st.builds(Fault, drop_after=st.integers(0, len(CONTENT))) | st.builds(Fault, status=st.sampled_from([429, 500, 503]))


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


def _fetch(server: FileServer, target: Path, expected: Expected, retries: int) -> bytes:
    fetch((f"{server.url}/a",), target, expected, Patience(retries, 10.0, sleep=lambda _: None), "a")
    assert list(target.parent.iterdir()) == [target]
    return target.read_bytes()


@settings(deadline=None, max_examples=120)
@given(
    faults=st.lists(faults, max_size=8),
    ranges=st.sampled_from(["honoured", "ignored", "unconditional", "shifted"]),
    framing=st.sampled_from(["length", "chunked"]),
    etag=st.sampled_from(['"v1"', 'W/"v1"', None]),
    expected=st.sampled_from([Expected(), KNOWN]),
)
def test_any_faults_end_in_the_right_bytes(
    server: FileServer, *, faults: list[Fault], ranges: str, framing: str, etag: str | None, expected: Expected
) -> None:
    # A server that sends other bytes than asked for and always breaks off costs two attempts a fault.
    server.files["a"] = Served(CONTENT, etag=etag, ranges=ranges, framing=framing, faults=list(faults))
    with tempfile.TemporaryDirectory() as folder:
        assert _fetch(server, Path(folder) / "a", expected, retries=2 * len(faults) + 1) == CONTENT


@settings(deadline=None, max_examples=60)
@given(before=drops, after=drops, ranges=st.sampled_from(["honoured", "ignored", "unconditional"]), known=st.booleans())
def test_file_that_changes_between_runs_is_never_spliced(
    server: FileServer, *, before: list[int], after: list[int], ranges: str, known: bool
) -> None:
    old = Served(OLD, etag='"old"', faults=[Fault(drop_after=size) for size in before])
    new = Served(CONTENT, etag='"new"', ranges=ranges, faults=[Fault(drop_after=size) for size in after])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "a"
        server.files["a"] = old
        for _ in before:
            with contextlib.suppress(DownloadError):
                assert _fetch(server, target, Expected(), retries=0) == OLD
                target.unlink()
            assert not target.exists()
        server.files["a"] = new
        assert _fetch(server, target, KNOWN if known else Expected(), retries=2 * len(after) + 1) == CONTENT
