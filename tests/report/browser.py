"""Headless Chromium over its debugging pipe, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
"""The browser reads commands from descriptor 3 and writes to descriptor 4."""


class Browser:
    """One browser with one page.

    Attributes:
        events: everything the browser told of by itself, in order.
    """

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.events: list[dict[str, Any]] = []
        self._timeout = timeout_s
        self._number = 0
        self._buffer = b""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        for descriptor in (theirs_in, theirs_out):
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), str(CHROMIUM), *_FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._folder.name}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.send("Target.createTarget", url="about:blank", session=None)["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def open(self, path: Path, width: int, *, dark: bool = False, height: int = 900, media: str = "") -> None:
        """Open a file in a window that is so wide [pixel], and wait until it is there."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        seen = len(self.events)
        self.send("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events[seen:]))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        image = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(image))

    def of(self, *methods: str) -> list[dict[str, Any]]:
        """Return the parameters of those events."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def send(self, method: str, *, session: str | None = "", **params: Any) -> dict[str, Any]:
        """Send a command and return what it gives."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []
        self._until(lambda: bool(answers), answers)
        assert "error" not in answers[0], answers[0]
        return answers[0]["result"]

    def _until(self, done: Any, answers: list[dict[str, Any]] | None = None) -> None:
        deadline = time.monotonic() + self._timeout
        while not done():
            left = deadline - time.monotonic()
            assert left > 0.0, f"Chromium said nothing for {self._timeout:g} s"
            if not select.select([self._in], [], [], left)[0]:
                continue
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium ended"
            *whole, self._buffer = (self._buffer + chunk).split(b"\0")
            for message in map(json.loads, whole):
                if message.get("id") == self._number and answers is not None:
                    answers.append(message)
                elif "method" in message:
                    self.events.append(message)
