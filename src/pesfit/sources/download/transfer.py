"""One file from a URL to a path: streamed, resumed where it broke off, checked, and only then given its name.

A partial file is continued with a range request (RFC 9110, section 14), by any later run and from any host, since the checksum of the whole
decides: where it is wrong the file is fetched once more from the start. A file without a known checksum is resumed within one run alone.
Attempts are repeated with exponential backoff as long as there is progress.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import requests
import urllib3
from tqdm import tqdm

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import (
    CHUNK_BYTES,
    ChecksumError,
    Expected,
    Received,
    byte_bar,
    check_free_space,
    disk_errors,
    examine,
)

Answer = TypeVar("Answer")

_LONGEST_BACKOFF_S = 60.0
_LONGEST_WAIT_S = 15 * 60.0
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({403, 404, 410})
_HEADERS = {"User-Agent": "pesfit", "Accept-Encoding": "identity"}


class BrokenError(Exception):
    """An attempt failed; another may not.

    Args:
        reason: for the message.
        wait_s: seconds to wait at least, where a server asked for it.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class RefusedError(Exception):
    """Another attempt is no use."""


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts, and the time each may take.

    Attributes:
        retries: attempts in a row without progress, after the first.
        timeout_s: seconds without a byte after which an attempt counts as broken.
        sleep: waits so many seconds.
    """

    retries: int
    timeout_s: float
    sleep: Callable[[float], None] = time.sleep


def fetch(urls: Sequence[str], target: Path, expected: Expected, policy: RetryPolicy, name: str) -> Received:
    """Fetch a file from the first URL that has it.

    Args:
        urls: tried in this order; each is given up when it refuses, or breaks off too often.
        target: path of the file; its folder exists. Nothing appears there unless it is whole and as expected.
        expected: size and checksums, as far as they are known.
        policy: retries, time-out.
        name: of the file in messages and the progress bar.

    Raises:
        DownloadError: if no URL gave the file, or the disk is full. What has arrived is kept in `<target>.part` for the next call,
            unless its checksum is wrong or not known.
    """
    reasons = []
    part = target.with_name(f"{target.name}.part")
    with requests.Session() as session:
        for url in urls:
            if not expected.has_checksum:
                part.unlink(missing_ok=True)
            try:
                received = _Transfer(session, url, part, expected, policy, name, expected.size).run()
            except (RefusedError, ChecksumError) as error:
                reasons.append(f"{url}: {error}")
                continue
            part.replace(target)
            return received
    message = f"{name} could not be downloaded:" + "".join(f"\n  {reason}" for reason in reasons)
    if expected.has_checksum and part.exists():
        message += f"\n  {part.stat().st_size} bytes have arrived and are kept; the next run goes on from there"
    raise DownloadError(message)


def fetch_text(url: str, policy: RetryPolicy, name: str) -> str | None:
    """Fetch a short text; None if the server has no such file.

    Raises:
        DownloadError: if it cannot be fetched.
    """
    with requests.Session() as session:

        def attempt() -> str | None:
            with _ask(session, url, {}, policy) as response:
                if response.status_code in _ABSENT:
                    return None
                _check_status(response, {200})
                try:
                    return response.content.decode()
                except (requests.RequestException, UnicodeDecodeError) as error:
                    raise BrokenError(_reason(error)) from error

        try:
            return _retry(attempt, policy, name)
        except RefusedError as error:
            raise DownloadError(f"{name} could not be read: {url}: {error}") from error


def report(message: str) -> None:
    """Write a line to stderr without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)


@dataclass
class _Transfer:
    """One file from one URL; `total` is its size as far as it is known, other attributes are the arguments of `fetch`."""

    session: requests.Session
    url: str
    part: Path
    expected: Expected
    policy: RetryPolicy
    name: str
    total: int | None

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def run(self) -> Received:
        """Fetch until the file is whole and as expected; one with a wrong checksum gets one fresh start.

        Raises:
            RefusedError: if this URL does not give the file.
            ChecksumError: if it gives another; the partial file is gone then.
            DownloadError: if the disk is full.
        """
        try:
            return self.persist()
        except ChecksumError as error:
            report(f"{error}; fetching it once more from the start")
            return self.persist()

    def persist(self) -> Received:
        """Fetch until the file is whole."""
        _retry(self.attempt, self.policy, self.name, lambda: self.size)
        try:
            return examine(self.part, self.expected, self.name)
        except ChecksumError:
            self.part.unlink()
            raise

    def attempt(self) -> None:
        """Append what is missing of the file."""
        size = self.size
        if size and size == self.total:
            return
        headers = {"Range": f"bytes={size}-"} if size else {}
        with _ask(self.session, self.url, headers, self.policy) as response:
            if size and response.status_code == 416:  # the server has no more bytes
                if self.total is None:
                    return
                self.start_over()
            _check_status(response, {200, 206} if size else {200})
            if size and response.status_code == 200:
                report(f"{self.name}: the server cannot resume; starting over")
                size = 0
            total = self.announced_total(response, size)
            if size and self.total not in {None, total}:
                self.start_over()
            if self.expected.size not in {None, total}:
                self.part.unlink(missing_ok=True)
                raise RefusedError(
                    f"the server's file has {total} bytes; {self.expected.size} expected according to {self.expected.according_to}"
                )
            self.total = total
            self.receive(response, size)

    def start_over(self) -> NoReturn:
        """Discard what has arrived."""
        self.part.unlink()
        raise BrokenError("the server sends other bytes than before, or than were asked for; starting over")

    def announced_total(self, response: requests.Response, size: int) -> int | None:
        """Return the size of the whole file by an answer that follows its first `size` bytes; None if it is not known."""
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit():
            return size + int(length)
        if "chunked" not in response.headers.get("Transfer-Encoding", "").lower() and not self.expected.has_checksum:
            raise RefusedError("the server does not announce the size of the file, so its end looks like a broken connection")
        return self.expected.size

    def receive(self, response: requests.Response, size: int) -> None:
        """Write the body behind the first `size` bytes as it comes."""
        total = self.total
        if total is not None:
            check_free_space(self.part.parent, total - size, self.name)
        with disk_errors(self.part), self.part.open("ab" if size else "wb") as file, byte_bar(self.name, total, size) as bar:
            while chunk := _next_chunk(response):
                file.write(chunk)
                size += len(chunk)
                bar.update(len(chunk))
                if total is not None and size > total:
                    break
        if total is not None and size < total:
            raise BrokenError(f"the connection closed after {size} of {total} bytes")
        if total is not None and size > total:
            self.start_over()


def _retry(attempt: Callable[[], Answer], policy: RetryPolicy, name: str, progress: Callable[[], int] = lambda: 0) -> Answer:
    """Repeat an attempt that breaks, after 1, 2, 4, ... at most 60 seconds, or as long as the server asks for.

    The count starts again when more bytes have arrived than ever before, so a large file may break off any number of times.

    Raises:
        RefusedError: when the attempts are used up, or the server asks for more than 15 minutes.
    """
    failures, furthest = 0, progress()
    while True:
        try:
            return attempt()
        except BrokenError as error:
            if progress() > furthest:
                failures, furthest = 0, progress()
            failures += 1
            if failures > policy.retries:
                raise RefusedError(f"{error} (tried {failures} times)") from error
            if error.wait_s > _LONGEST_WAIT_S:
                raise RefusedError(f"{error} and asks to wait {error.wait_s:.0f} s; try again later") from error
            pause = max(error.wait_s, min(2.0 ** (failures - 1), _LONGEST_BACKOFF_S))
            report(f"{name}: {error}; trying again in {pause:.0f} s ({failures} of {policy.retries})")
            policy.sleep(pause)


def _ask(session: requests.Session, url: str, headers: dict[str, str], policy: RetryPolicy) -> requests.Response:
    try:
        return session.get(url, headers=_HEADERS | headers, stream=True, timeout=policy.timeout_s)
    except (requests.exceptions.SSLError, requests.TooManyRedirects, ValueError) as error:  # ValueError: not a URL
        raise RefusedError(_reason(error)) from error
    except requests.RequestException as error:
        raise BrokenError(_reason(error)) from error


def _check_status(response: requests.Response, allowed: set[int]) -> None:
    if response.status_code in allowed:
        return
    answer = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code not in _TRY_AGAIN:
        raise RefusedError(answer)
    try:
        wait_s = urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        wait_s = 0.0
    raise BrokenError(answer, wait_s)


def _next_chunk(response: requests.Response) -> bytes:
    """Return what has come: `read1` waits for no more, so nothing that arrived is lost when the connection breaks.

    Nothing is decoded: some servers call a `.tar.gz` a gzip-encoded tar, and it is the archive that we want.
    """
    try:
        return response.raw.read1(CHUNK_BYTES, decode_content=False) or b""
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise BrokenError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return the innermost cause, which is the most telling."""
    while isinstance(cause := error.__cause__ or error.__context__, Exception) and str(cause):
        error = cause
    if isinstance(error, http.client.IncompleteRead):
        return "the connection closed early" + (f", {error.expected} bytes before the end" if error.expected else "")
    return f"{type(error).__name__}: {error}"
