"""An HTTP server on this machine that misbehaves as told, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """A fault of one answer.

    Attributes:
        drop_after: close the connection after so many bytes of the body.
        stall_after: stop sending, but stay connected, after so many bytes, until the server's `release` is set.
        status: answer with this status and no file.
        headers: that go with the answer, over those it would have.
    """

    drop_after: int | None = None
    stall_after: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """A file as the server has it.

    Attributes:
        content: its bytes.
        ranges: "honored", "ignored" (always the whole file) or "shifted" (sends other bytes than asked for).
        framing: "length", "chunked" or "close" (neither: the end of the connection is the end of the file).
        encoding: value of Content-Encoding.
        announced: Content-Length to claim instead of the right one.
        faults: one is used up by each answer; then all goes well.
    """

    content: bytes
    ranges: str = "honored"
    framing: str = "length"
    encoding: str | None = None
    announced: int | None = None
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None


class FileServer:
    """Serves `files` at `url`; `requests` are in the order they came."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.release = threading.Event()
        self.stalled = threading.Event()
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def requests_for(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that vanish are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server_state: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        asked = self.headers.get("Range")
        state.requests.append(Request(self.path, asked))
        served = state.files.get(self.path.lstrip("/"))
        if served is None:
            self._answer(404, {}, b"no such file")
            return
        fault = served.faults.pop(0) if served.faults else Fault()
        if fault.status is not None:
            self._answer(fault.status, fault.headers, b"no")
            return
        status, headers, body = self._select(served, asked)
        self._answer(status, headers | fault.headers, body, served, fault)

    def _select(self, served: Served, asked: str | None) -> tuple[int, dict[str, str], bytes]:
        headers = {}
        if served.encoding is not None:
            headers["Content-Encoding"] = served.encoding
        if asked is None or served.ranges == "ignored":
            return 200, headers, served.content
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        total = len(served.content)
        if start >= total:
            return 416, headers | {"Content-Range": f"bytes */{total}"}, b""
        if served.ranges == "shifted":
            start += 1
        return 206, headers | {"Content-Range": f"bytes {start}-{total - 1}/{total}"}, served.content[start:]

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, served: Served | None = None, fault: Fault | None = None
    ) -> None:
        served, fault = served or Served(b""), fault or Fault()
        chunked = served.framing == "chunked" and status == 200
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif served.framing == "close":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body) if served.announced is None else served.announced))
        self.end_headers()
        stop = fault.drop_after if fault.drop_after is not None else fault.stall_after
        sent = body if stop is None else body[:stop]
        try:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n" if chunked and sent else sent)
            if stop is None and chunked:
                self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
            if fault.stall_after is not None:
                self.server_state.stalled.set()
                self.server_state.release.wait(30)
        except OSError:
            self.close_connection = True
        if stop is not None:
            self.close_connection = True
