"""Attempts that may fail are repeated, after pauses that double, until nothing new comes any more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Answer = TypeVar("Answer")

_LONGEST_BACKOFF_S = 60.0
_LONGEST_WAIT_S = 15 * 60.0


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
class Patience:
    """How long something is tried.

    Attributes:
        retries: attempts in a row that may bring nothing new, after the first.
        timeout_s: seconds without a byte after which an attempt counts as broken.
        sleep: waits so many seconds.
        clock: seconds since 1970, for a `Retry-After` that is a date.
    """

    retries: int
    timeout_s: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time


def retry(attempt: Callable[[], Answer], patience: Patience, name: str, progress: Callable[[], int] = lambda: 0) -> Answer:
    """Repeat an attempt that breaks, after 1, 2, 4, ... at most 60 seconds, or as long as the server asks for.

    The count starts again when more has arrived than ever before, so a large file may break off any number of times.

    Args:
        attempt: raises `BrokenError` to be called again.
        patience: how often.
        name: what messages call the thing that is tried.
        progress: how much has arrived so far.

    Returns:
        What `attempt` returned at last.

    Raises:
        RefusedError: when the attempts are used up, or the server asks for more than 15 minutes.
    """
    failures = 0
    furthest = progress()
    while True:
        try:
            return attempt()
        except BrokenError as error:
            if progress() > furthest:
                furthest = progress()
                failures = 0
            failures += 1
            if failures > patience.retries:
                raise RefusedError(f"{error} (tried {failures} times)") from error
            if error.wait_s > _LONGEST_WAIT_S:
                raise RefusedError(f"{error} and asks to wait {error.wait_s:.0f} s; try again later") from error
            pause = max(error.wait_s, min(2.0 ** (failures - 1), _LONGEST_BACKOFF_S))
            tell(f"{name}: {error}; trying again in {pause:.0f} s ({failures} of {patience.retries})")
            patience.sleep(pause)


def tell(message: str) -> None:
    """Say something on stderr without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)
