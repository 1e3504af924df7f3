"""Transfers against a server that misbehaves: what ends under the final name is the whole file, or nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.retry import Patience
from pesfit.sources.download.transfer import fetch, fetch_text
from tests.sources.download.file_server import Fault, FileServer, Request, Served

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Expected(len(CONTENT), hashlib.md5(CONTENT).hexdigest(), SHA256, said_by="the test")
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
        patience = Patience(retries, timeout_s, self.pauses.append, clock=lambda: 784111777.0)
        received = fetch(urls or (self.url,), self.target, expected or Expected(), patience, "a.bin")
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
    assert server.requests == [Request("/a.bin", None, None)]
    assert fetch_a.pauses == []


def test_empty_file(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(b"")
    assert fetch_a() == b""


@pytest.mark.parametrize("expected", [None, KNOWN])
def test_dropped_connection_is_resumed_where_it_broke(server: FileServer, fetch_a: Fetch, expected: Expected | None) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=100_000), Fault(drop_after=50_000)])
    assert fetch_a(expected) == CONTENT
    assert server.requests == [
        Request("/a.bin", None, None),
        Request("/a.bin", "bytes=100000-", '"v1"'),
        Request("/a.bin", "bytes=150000-", '"v1"'),
    ]
    assert fetch_a.pauses == [1.0, 1.0]  # each attempt brought something new


def test_date_validates_where_there_is_no_strong_etag(server: FileServer, fetch_a: Fetch) -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    server.files["a.bin"] = Served(CONTENT, etag='W/"v1"', last_modified=date, faults=[Fault(drop_after=1000)])
    assert fetch_a() == CONTENT
    assert server.requests[1] == Request("/a.bin", "bytes=1000-", date)


def test_without_validator_only_a_checksum_allows_resuming(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, etag=None, faults=[Fault(drop_after=1000)])
    assert fetch_a() == CONTENT
    assert server.requests[1].range is None
    fetch_a.target.unlink()
    server.files["a.bin"] = Served(CONTENT, etag=None, faults=[Fault(drop_after=1000)])
    assert fetch_a(KNOWN) == CONTENT
    assert server.requests[3] == Request("/a.bin", "bytes=1000-", None)


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


@pytest.mark.parametrize("ranges", ["honoured", "unconditional"])
@pytest.mark.parametrize("cut", [0, 100])
def test_changed_file_is_never_spliced(server: FileServer, fetch_a: Fetch, ranges: str, cut: int) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000)])
    with pytest.raises(DownloadError, match="1000 bytes have arrived and are kept"):
        fetch_a(retries=0)
    assert fetch_a.part.stat().st_size == 1000
    new = OTHER[: len(OTHER) - cut]
    server.files["a.bin"] = Served(new, etag='"v2"', ranges=ranges)
    assert fetch_a() == new
    assert server.requests[1] == Request("/a.bin", "bytes=1000-", '"v1"')


def test_other_length_betrays_a_changed_file(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000)])
    with pytest.raises(DownloadError):
        fetch_a(retries=0)
    server.files["a.bin"] = Served(OTHER[:-100], etag=None, ranges="unconditional")
    assert fetch_a() == OTHER[:-100]


def test_answer_to_another_range_is_not_used(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, ranges="shifted", faults=[Fault(drop_after=1000)])
    assert fetch_a() == CONTENT
    assert [request.range for request in server.requests] == [None, "bytes=1000-", None]


def test_part_longer_than_the_file_starts_over(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=2000)])
    with pytest.raises(DownloadError):
        fetch_a(retries=0)
    server.files["a.bin"] = Served(CONTENT[:1000])
    assert fetch_a() == CONTENT[:1000]


def test_whole_part_is_not_fetched_again(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(drop_after=1000)])
    with pytest.raises(DownloadError):
        fetch_a(retries=0)
    fetch_a.part.write_bytes(CONTENT)  # as if killed just before it got its name
    assert fetch_a() == CONTENT
    assert len(server.requests) == 1


def test_part_without_note_is_not_trusted(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT)
    fetch_a.part.write_bytes(OTHER[:1000])
    assert fetch_a() == CONTENT
    fetch_a.target.unlink()
    fetch_a.part.write_bytes(OTHER[:1000])
    fetch_a.part.with_name("a.bin.part.json").write_text('{"url": 1')
    assert fetch_a() == CONTENT


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
def test_retry_after_is_honoured(server: FileServer, fetch_a: Fetch, value: str, pause: float) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=503, headers={"Retry-After": value})])
    assert fetch_a() == CONTENT
    assert fetch_a.pauses == [pause]


def test_unreasonable_retry_after_is_an_error(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT, faults=[Fault(status=429, headers={"Retry-After": "86400"})])
    with pytest.raises(DownloadError, match="429 Too Many Requests and asks to wait 86400 s"):
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
    with pytest.raises(DownloadError, match=rf"md5 checksum is [0-9a-f]{{32}}; {KNOWN.md5} expected, says the test"):
        fetch_a(KNOWN)
    assert list(fetch_a.target.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_wrong_size_is_seen_before_the_first_byte(server: FileServer, fetch_a: Fetch) -> None:
    server.files["a.bin"] = Served(CONTENT[:-1])
    with pytest.raises(DownloadError, match="has 511999 bytes; 512000 expected, says the test"):
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
    server.files["b.bin"] = Served(CONTENT, etag='"b"')
    assert fetch_a(KNOWN, urls=(fetch_a.url, f"{server.url}/b.bin"), retries=2) == CONTENT
    assert server.requests[-1] == Request("/b.bin", "bytes=1000-", None)


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
    with pytest.raises(DownloadError, match="does not say how long the file is"):
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


_FETCH = """
import resource, sys
from pathlib import Path
from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.retry import Patience
from pesfit.sources.download.transfer import fetch
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    fetch((sys.argv[1],), Path(sys.argv[2]), Expected(), Patience(0, 30.0), "a.bin")
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
    assert fetch_a() == CONTENT
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
    assert fetch_a() == CONTENT
    assert server.requests[1] == Request("/a.bin", f"bytes={kept}-", '"v1"')


def test_text(server: FileServer) -> None:
    patience = Patience(1, 10.0, sleep=lambda _: None)
    server.files["sums"] = Served(b"caf\xc3\xa9\n", faults=[Fault(drop_after=2)])
    assert fetch_text(f"{server.url}/sums", patience, "the sums") == "café\n"
    assert fetch_text(f"{server.url}/none", patience, "the sums") is None
    server.files["sums"].faults = [Fault(status=500)] * 2
    with pytest.raises(DownloadError, match=r"the sums could not be read: .*/sums: the server answered 500 .*tried 2 times"):
        fetch_text(f"{server.url}/sums", patience, "the sums")
