"""Transfers against a server that misbehaves: what ends under the final name is the whole file, or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.transfer import RetryPolicy, fetch, fetch_text
from tests.sources.download.file_server import Fault, FileServer, Request, Served

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Expected(len(CONTENT), hashlib.md5(CONTENT).hexdigest(), SHA256, according_to="the test")
OTHER = CONTENT[::-1]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


class Fetch:
    """Fetches `a.bin` and keeps what the back-off would have waited."""

    def __init__(self, folder: Path, server: FileServer) -> None:
        self.target = folder / "a.bin"
        self.url = f"{server.url}/a.bin"
        self.pauses: list[float] = []

    def __call__(
        self, expected: Expected | None = None, *, urls: tuple[str, ...] = (), retries: int = 3, timeout_s: float = 10.0
    ) -> bytes:
        policy = RetryPolicy(retries, timeout_s, self.pauses.append)
        received = fetch(urls or (self.url,), self.target, expected or Expected(), policy, "a.bin")
        content = self.target.read_bytes()
        assert (received.size, received.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert list(self.target.parent.iterdir()) == [self.target]
        return content

    @property
    def part(self) -> Path:
        return self.target.with_name("a.bin.part")


@pytest.fixture
def fetch_a(tmp_path: Path, server: FileServer) -> Fetch:
    folder = tmp_path / "cache"
    folder.mkdir()
    return Fetch(folder, server)


def test_whole_file_takes_one_request(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT)
    assert fetch_a(KNOWN) == CONTENT
    assert server.requests == [Request("/a.bin", None)]
    assert fetch_a.pauses == []


def test_empty_file(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(b"")
    assert fetch_a() == b""


@pytest.mark.parametrize("expected", [None, KNOWN])
def test_dropped_connection_is_resumed_where_it_broke(server: FileServer, fetch_a: Fetch, expected: Expected | None) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=100_000), Fault(drop_after=50_000)])
    assert fetch_a(expected) == CONTENT
    assert server.requests == [
        Request("/a.bin", None),
        Request("/a.bin", "bytes=100000-"),
        Request("/a.bin", "bytes=150000-"),
    ]
    assert fetch_a.pauses == [1.0, 1.0]  # each attempt brought something new


def test_server_that_ignores_range_starts_over(server: FileServer, fetch_a: Fetch, capfd: pytest.CaptureFixture[str]) -> None:
    server.files["a.bin"] = Served(CONTENT, ranges="ignored", faults=[Fault(drop_after=1000)])
    assert fetch_a() == CONTENT
    assert server.requests[1].range == "bytes=1000-"
    assert "starting over" in capfd.readouterr().err


def test_server_that_ignores_range_and_always_drops_is_given_up(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, ranges="ignored", faults=[Fault(drop_after=1000)] * 10)
    with pytest.raises(DownloadError, match=r"closed early, 511000 bytes before the end \(tried 4 times\)"):
        fetch_a(retries=3)
    assert len(server.requests) == 4


def test_only_a_checksum_allows_a_later_run_to_resume(server: FileServer, fetch_a: Fetch) -> None:
    for expected, asked in ((Expected(), None), (KNOWN, "bytes=1000-")):
        server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000)])
        with pytest.raises(DownloadError) as error:
            fetch_a(expected, retries=0)
        assert ("1000 bytes have arrived and are kept" in str(error.value)) is expected.has_checksum
        assert fetch_a(expected) == CONTENT
        assert server.requests[-1].range == asked
        fetch_a.target.unlink()


@pytest.mark.parametrize("expected", [KNOWN, Expected(sha256=SHA256)])
@pytest.mark.parametrize("cut", [0, 100])
def test_file_that_changed_between_runs_is_never_spliced(
    server: FileServer, fetch_a: Fetch, expected: Expected, cut: int
) -> None:
    server.files["a.bin"] = Served(OTHER[: len(OTHER) - cut], faults=[Fault(drop_after=1000)])
    with pytest.raises(
        DownloadError, match="1000 bytes have arrived and are kept" if expected is not KNOWN or not cut else "has 511900"
    ):
        fetch_a(expected, retries=0)
    server.files["a.bin"] = Served(CONTENT)
    assert fetch_a(expected) == CONTENT


def test_answer_to_another_range_is_not_used(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, ranges="shifted", faults=[Fault(drop_after=1000)])
    assert fetch_a(KNOWN) == CONTENT
    assert [request.range for request in server.requests] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("expected", [KNOWN, Expected(sha256=SHA256)])
def test_part_longer_than_the_file_starts_over(server: FileServer, fetch_a: Fetch, expected: Expected) -> None:
    server.files["a.bin"] = Served(CONTENT)
    fetch_a.part.write_bytes(CONTENT + b"more")
    assert fetch_a(expected) == CONTENT


def test_whole_part_is_not_fetched_again(server: FileServer, fetch_a: Fetch) -> None:
    fetch_a.part.write_bytes(CONTENT)  # as if killed just before it got its name
    assert fetch_a(KNOWN) == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 404, 410, 501, 202])
def test_refusal_is_final(server: FileServer, fetch_a: Fetch, status: int) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=status)] * 2)
    with pytest.raises(
        DownloadError, match=rf"^a\.bin could not be downloaded:\n  {fetch_a.url}: the server answered {status}"
    ):
        fetch_a()
    assert fetch_a.pauses == []
    assert list(fetch_a.target.parent.iterdir()) == []


def test_pauses_double_up_to_a_minute(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=500)] * 8)
    assert fetch_a(KNOWN, retries=8) == CONTENT
    assert fetch_a.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("value", "pause"),
    [("7", 7.0), ("0", 1.0), ("Sun, 06 Nov 1994 08:49:50 GMT", 13.0), ("Sun, 06 Nov 1994 08:00:00 GMT", 1.0), ("soon", 1.0)],
)
def test_retry_after_is_honored(
    server: FileServer, fetch_a: Fetch, value: str, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 784111777.0)
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=503, headers={"Retry-After": value})])
    assert fetch_a() == CONTENT
    assert fetch_a.pauses == [pause]


def test_unreasonable_retry_after_is_an_error(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=429, headers={"Retry-After": "3600"})])
    with pytest.raises(DownloadError, match="429 Too Many Requests and asks to wait 3600 s"):
        fetch_a()
    assert fetch_a.pauses == []


def test_unreachable_host(fetch_a: Fetch) -> None:
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/a\.bin: .*Connection refused \(tried 3 times\)"):
        fetch_a(urls=("http://127.0.0.1:9/a.bin",), retries=2)
    assert fetch_a.pauses == [1.0, 2.0]


def test_address_that_is_none(fetch_a: Fetch) -> None:
    with pytest.raises(DownloadError, match=r"http://:x/a\.bin: LocationParseError: .* not a valid host or port"):
        fetch_a(urls=("http://:x/a.bin",))
    assert fetch_a.pauses == []


def test_silent_server_times_out(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(stall_after=1000)])
    assert fetch_a(timeout_s=0.2) == CONTENT
    assert server.requests[1].range == "bytes=1000-"


def test_wrong_bytes_leave_nothing(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(OTHER)
    with pytest.raises(DownloadError, match=rf"md5 checksum is [0-9a-f]{{32}}; {KNOWN.md5} expected according to the test"):
        fetch_a(KNOWN)
    assert list(fetch_a.target.parent.iterdir()) == []
    assert [request.range for request in server.requests] == [None, None]


def test_wrong_size_is_seen_before_the_first_byte(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT[:-1])
    with pytest.raises(DownloadError, match="has 511999 bytes; 512000 expected according to the test"):
        fetch_a(KNOWN)
    assert list(fetch_a.target.parent.iterdir()) == []


def test_damaged_part_gets_one_fresh_start(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000)])
    with pytest.raises(DownloadError):
        fetch_a(KNOWN, retries=0)
    fetch_a.part.write_bytes(b"x" * 1000)
    assert fetch_a(KNOWN) == CONTENT
    assert [request.range for request in server.requests] == [None, "bytes=1000-", None]


def test_wrong_bytes_in_pieces_end_too(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(OTHER, faults=[Fault(drop_after=1000), Fault(), Fault(drop_after=1000)])
    with pytest.raises(DownloadError, match="checksum"):
        fetch_a(KNOWN)
    assert len(server.requests) == 4


def test_second_url_takes_over_and_goes_on(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000), *[Fault(status=500)] * 4])
    server.files["b.bin"] = Served(CONTENT)
    assert fetch_a(KNOWN, urls=(fetch_a.url, f"{server.url}/b.bin"), retries=2) == CONTENT
    assert server.requests[-1] == Request("/b.bin", "bytes=1000-")


def test_every_url_is_named_when_none_works(server: FileServer, fetch_a: Fetch) -> None:
    server.files["b.bin"] = Served(OTHER)
    with pytest.raises(DownloadError) as error:
        fetch_a(KNOWN, urls=(fetch_a.url, f"{server.url}/b.bin"))
    assert f"{fetch_a.url}: the server answered 404 Not Found" in str(error.value)
    assert f"{server.url}/b.bin: a.bin: its md5 checksum" in str(error.value)


def test_archive_is_not_decoded_on_the_way(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, encoding="gzip")
    assert fetch_a() == CONTENT


def test_chunked_body_that_breaks_off_is_noticed(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, framing="chunked", faults=[Fault(drop_after=1000)])
    assert fetch_a() == CONTENT
    assert server.requests[1].range == "bytes=1000-"


def test_body_of_unknown_length_needs_a_checksum(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, framing="close")
    with pytest.raises(DownloadError, match="does not announce the size of the file"):
        fetch_a()
    assert fetch_a(KNOWN) == CONTENT
    fetch_a.target.unlink()
    server.files["a.bin"].faults = [Fault(drop_after=1000)]
    assert fetch_a(KNOWN) == CONTENT


def test_full_disk_is_seen_before_the_first_byte(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, announced=2**60)
    with pytest.raises(DownloadError, match=f"a.bin needs {2**60} bytes in .*, where [0-9]+ are free"):
        fetch_a()
    assert not fetch_a.target.exists()


def test_disk_that_fills_up(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT)
    fetch_a.part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"a\.bin\.part: the disk is full \(No space left on device\)"):
        fetch_a(KNOWN)
    assert not fetch_a.target.exists()
    fetch_a.part.unlink()
    assert fetch_a(KNOWN) == CONTENT


_FETCH = f"""
import resource, sys
from pathlib import Path
from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.transfer import RetryPolicy, fetch
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
EXPECTED = Expected(sha256="{SHA256}")
try:
    fetch((sys.argv[1],), Path(sys.argv[2]), EXPECTED, RetryPolicy(0, 30.0), "a.bin")
except DownloadError as error:
    sys.exit(str(error))
"""


def test_limit_on_file_size_keeps_what_has_arrived(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT)
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, fetch_a.url, fetch_a.target, "65536"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the disk is full (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert fetch_a.part.read_bytes() == CONTENT[:65536]
    assert fetch_a(KNOWN) == CONTENT
    assert server.requests[1].range == "bytes=65536-"


def test_killed_process_is_continued_by_the_next(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(stall_after=300_000)])
    with subprocess.Popen([sys.executable, "-c", _FETCH, fetch_a.url, fetch_a.target, "0"]) as process:
        while not server.stalled.wait(0.05):
            assert process.poll() is None
        while not fetch_a.part.exists() or fetch_a.part.stat().st_size < 200_000:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    kept = fetch_a.part.stat().st_size
    assert not fetch_a.target.exists()
    assert fetch_a(KNOWN) == CONTENT
    assert server.requests[1] == Request("/a.bin", f"bytes={kept}-")


def test_text(server: FileServer) -> None:
    policy = RetryPolicy(1, 10.0, sleep=lambda _: None)
    server.files["sums"] = Served(b"caf\xc3\xa9\n", faults=[Fault(drop_after=2)])
    assert fetch_text(f"{server.url}/sums", policy, "the sums") == "café\n"
    assert fetch_text(f"{server.url}/none", policy, "the sums") is None
    server.files["sums"].faults = [Fault(status=500)] * 2
    with pytest.raises(DownloadError, match=r"the sums could not be read: .*/sums: the server answered 500 .*tried 2 times"):
        fetch_text(f"{server.url}/sums", policy, "the sums")


SMALL = bytes(i * i % 251 for i in range(40_000))
OLD = SMALL[::-1] + b"longer"
SMALL_KNOWN = Expected(len(SMALL), sha256=hashlib.sha256(SMALL).hexdigest(), according_to="the test")

drops = st.lists(st.integers(0, len(SMALL)), max_size=8)
any_faults = st.builds(Fault, drop_after=st.integers(0, len(SMALL))) | st.builds(Fault, status=st.sampled_from([429, 500, 503]))


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


def _fetch_small(server: FileServer, target: Path, expected: Expected, retries: int) -> bytes:
    fetch((f"{server.url}/a",), target, expected, RetryPolicy(retries, 10.0, sleep=lambda _: None), "a")
    assert list(target.parent.iterdir()) == [target]
    return target.read_bytes()


@settings(deadline=None, max_examples=120)
@given(
    faults=st.lists(any_faults, max_size=8),
    ranges=st.sampled_from(["honored", "ignored", "shifted"]),
    framing=st.sampled_from(["length", "chunked"]),
    is_known=st.booleans(),
)
def test_any_faults_end_in_the_right_bytes(
    lasting_server: FileServer, *, faults: list[Fault], ranges: str, framing: str, is_known: bool
) -> None:
    assume(is_known or ranges != "shifted")
    # A server that sends other bytes than asked for and always breaks off costs two attempts a fault.
    lasting_server.files["a"] = Served(SMALL, ranges=ranges, framing=framing, faults=list(faults))
    with tempfile.TemporaryDirectory() as folder:
        expected = SMALL_KNOWN if is_known else Expected()
        assert _fetch_small(lasting_server, Path(folder) / "a", expected, 2 * len(faults) + 1) == SMALL


@settings(deadline=None, max_examples=60)
@given(before=drops, after=drops, ranges=st.sampled_from(["honored", "ignored"]), is_known=st.booleans())
def test_file_that_changes_between_any_runs_is_never_spliced(
    lasting_server: FileServer, *, before: list[int], after: list[int], ranges: str, is_known: bool
) -> None:
    lasting_server.files["a"] = Served(OLD, faults=[Fault(drop_after=size) for size in before])
    new = Served(SMALL, ranges=ranges, faults=[Fault(drop_after=size) for size in after])
    old_known = Expected(sha256=hashlib.sha256(OLD).hexdigest()) if is_known else Expected()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "a"
        for _ in before:
            with contextlib.suppress(DownloadError):
                assert _fetch_small(lasting_server, target, old_known, retries=0) == OLD
                target.unlink()
            assert not target.exists()
        lasting_server.files["a"] = new
        expected = SMALL_KNOWN if is_known else Expected()
        assert _fetch_small(lasting_server, target, expected, retries=2 * len(after) + 1) == SMALL
