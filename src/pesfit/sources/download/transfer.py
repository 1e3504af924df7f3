"""One file from a URL to a path: streamed, resumed where it broke off, checked, and only then given its name.

A transfer is taken up with a range request (RFC 9110, section 14) that is conditional on the version of the file that was begun
(`If-Range`, section 13.1.5), so a file that changed on the server starts over instead of being spliced.
"""

from __future__ import annotations

import email.utils
import http.client
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from pesfit.core.exceptions import DownloadError
from pesfit.sources.download.integrity import CHUNK_BYTES, ChecksumError, Expected, Received, byte_bar, examine
from pesfit.sources.download.part import Part, Version, check_free_space, raise_disk_error
from pesfit.sources.download.retry import BrokenError, Patience, RefusedError, retry, tell

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({403, 404, 410})
_HEADERS = {"User-Agent": "pesfit", "Accept-Encoding": "identity"}
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-\d+|\*)/(?P<total>\d+|\*)")


def fetch(urls: Sequence[str], target: Path, expected: Expected, patience: Patience, name: str) -> Received:
    """Fetch a file from the first URL that has it.

    Args:
        urls: tried in this order; each is given up when it refuses, or breaks off too often.
        target: path of the file; its folder exists. Nothing appears there unless it is whole and as expected.
        expected: size and checksums, as far as they are known.
        patience: retries, time-out.
        name: what messages and the progress bar call the file.

    Returns:
        Size and sha256.

    Raises:
        DownloadError: if no URL gave the file, or the disk is full. What has arrived is kept in `<target>.part` for the next call,
            unless its checksum is wrong.
    """
    reasons = []
    part = Part(target)
    with requests.Session() as session:
        for url in urls:
            try:
                received = _Transfer(session, url, part, expected, patience, name).persist()
            except (RefusedError, ChecksumError) as error:
                reasons.append(f"{url}: {error}")
                continue
            part.finish()
            return received
    message = f"{name} could not be downloaded:" + "".join(f"\n  {reason}" for reason in reasons)
    if part.size:
        message += f"\n  {part.size} bytes have arrived and are kept; the next run goes on from there"
    raise DownloadError(message)


def fetch_text(url: str, patience: Patience, name: str) -> str | None:
    """Fetch a short text.

    Args:
        url: where it is.
        patience: retries, time-out.
        name: what messages call it.

    Returns:
        The text, or None if the server has no such file.

    Raises:
        DownloadError: if it cannot be fetched.
    """
    with requests.Session() as session:

        def attempt() -> str | None:
            with _ask(session, url, {}, patience) as response:
                if response.status_code in _ABSENT:
                    return None
                _check_status(response, {200}, patience)
                try:
                    return response.content.decode()
                except (requests.RequestException, UnicodeDecodeError) as error:
                    raise BrokenError(_reason(error)) from error

        try:
            return retry(attempt, patience, name)
        except RefusedError as error:
            raise DownloadError(f"{name} could not be read: {url}: {error}") from error


@dataclass(frozen=True)
class _Transfer:
    """One file from one URL; attributes as the arguments of `fetch`."""

    session: requests.Session
    url: str
    part: Part
    expected: Expected
    patience: Patience
    name: str

    def persist(self) -> Received:
        """Fetch until the part is whole and as expected; one that came in pieces and is wrong gets one fresh start.

        Raises:
            RefusedError: if this URL does not give the file.
            ChecksumError: if it gives another; the part is gone then.
            DownloadError: if the disk is full.
        """
        second_chance = True
        while True:
            pieced = retry(self.attempt, self.patience, self.name, lambda: self.part.size)
            try:
                return examine(self.part.path, self.expected, self.name)
            except ChecksumError as error:
                self.part.discard()
                if not (pieced and second_chance):
                    raise
                second_chance = False
                tell(f"{error}; it came in pieces, so it is fetched once more from the start")

    def attempt(self) -> bool:
        """Bring what is missing of the part; return whether some of it had come before.

        Raises:
            BrokenError: if the transfer should be taken up again.
            RefusedError: if that would be no use.
            DownloadError: if the disk is full.
        """
        part = self.part
        version = part.version()
        if version is not None and part.size and part.size == (self.expected.size or version.total):
            return True
        headers = self._range_headers(version)
        with _ask(self.session, self.url, headers, self.patience) as response:
            resumed = response.status_code == 206
            if headers and response.status_code == 416:
                self._check_nothing_is_left(response)
                return True
            _check_status(response, {200, 206} if headers else {200}, self.patience)
            if resumed and version is not None:
                total = self._continued_total(response, version)
            else:
                if headers:
                    tell(f"{self.name}: the file changed, or the server cannot resume; starting over")
                total = self._whole_total(response)
                part.begin(Version(self.url, total, _validator(response)))
            self._receive(response, self._checked_total(total))
        return resumed

    def _range_headers(self, version: Version | None) -> dict[str, str]:
        """Return headers that ask for the rest, or none where only a file from one piece can be trusted."""
        if self.part.size == 0 or version is None:
            return {}
        headers = {"Range": f"bytes={self.part.size}-"}
        if version.url == self.url and version.validator is not None:
            return headers | {"If-Range": version.validator}
        return headers if self.expected.has_checksum else {}

    def _whole_total(self, response: requests.Response) -> int | None:
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit():
            return int(length)
        if "chunked" not in response.headers.get("Transfer-Encoding", "").lower() and not self.expected.has_checksum:
            raise RefusedError("the server does not say how long the file is, so its end looks like a broken connection")
        return None

    def _continued_total(self, response: requests.Response, version: Version) -> int | None:
        """Check that a 206 goes on where the part ends, in the same version; return the size of the whole."""
        size = self.part.size
        given = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(given)
        if match is None or match["first"] != str(size):
            self.part.discard()
            raise BrokenError(f"the server was asked for the bytes from {size} on and answered with {given!r}; starting over")
        total = version.total if match["total"] == "*" else int(match["total"])
        # Some servers do not know If-Range, but what they answer may still tell that the file is another.
        other_validator = version.url == self.url and _validator(response) not in {None, version.validator}
        if other_validator or version.total not in {None, total}:
            self.part.discard()
            raise BrokenError("the file changed on the server; starting over")
        return total

    def _check_nothing_is_left(self, response: requests.Response) -> None:
        """Judge a 416, which says that the part is as long as the file, or longer."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match["total"] != str(self.part.size):
            self.part.discard()
            raise BrokenError("the server's file is shorter than what has arrived; starting over")

    def _checked_total(self, total: int | None) -> int | None:
        expected = self.expected
        if expected.size is not None and total not in {None, expected.size}:
            self.part.discard()
            raise RefusedError(f"the server's file has {total} bytes; {expected.size} expected, says {expected.said_by}")
        total = expected.size if total is None else total
        if total is not None:
            check_free_space(self.part.path.parent, total - self.part.size, self.name)
        return total

    def _receive(self, response: requests.Response, total: int | None) -> None:
        """Append the body to the part as it comes."""
        size = self.part.size
        try:
            with self.part.path.open("ab") as file, byte_bar(self.name, total, size) as bar:
                while chunk := _next_chunk(response):
                    file.write(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
                    if total is not None and size > total:
                        break
        except OSError as error:
            raise_disk_error(error, self.part.path)
        if total is not None and size < total:
            raise BrokenError(f"the connection closed after {size} of {total} bytes")
        if total is not None and size > total:
            self.part.discard()
            raise BrokenError(f"the server sent more than the {total} bytes it announced; starting over")


def _ask(session: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    try:
        return session.get(url, headers=_HEADERS | headers, stream=True, timeout=patience.timeout_s)
    except (requests.exceptions.SSLError, requests.TooManyRedirects, ValueError) as error:  # ValueError: not a URL
        raise RefusedError(_reason(error)) from error
    except requests.RequestException as error:
        raise BrokenError(_reason(error)) from error


def _check_status(response: requests.Response, allowed: set[int], patience: Patience) -> None:
    if response.status_code in allowed:
        return
    said = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code in _TRY_AGAIN:
        raise BrokenError(said, _retry_after(response, patience))
    raise RefusedError(said)


def _retry_after(response: requests.Response, patience: Patience) -> float:
    """Return the seconds a server asks to wait: a number or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - patience.clock())
    except ValueError:
        return 0.0


def _validator(response: requests.Response) -> str | None:
    """Return a strong ETag, or a date; a weak ETag does not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _next_chunk(response: requests.Response) -> bytes:
    """Return what has come: `read1` waits for no more, so nothing that arrived is lost when the connection breaks.

    Nothing is decoded: some servers call a `.tar.gz` a gzip-encoded tar, and it is the archive that we want.
    """
    try:
        return response.raw.read1(CHUNK_BYTES, decode_content=False) or b""
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise BrokenError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return the innermost cause, which says the most."""
    while isinstance(cause := error.__cause__ or error.__context__, Exception) and str(cause):
        error = cause
    if isinstance(error, http.client.IncompleteRead):
        return "the connection closed early" + (f", {error.expected} bytes before the end" if error.expected else "")
    return f"{type(error).__name__}: {error}"
