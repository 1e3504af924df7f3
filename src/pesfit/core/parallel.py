"""Work spread over processes, with results in order, so that nothing depends on how many there are."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from pesfit.core.exceptions import ParamsError, PesfitError

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_AHEAD = 4
"""Items handed out for each worker before the oldest result is waited for; this bounds memory."""


def n_workers() -> int:
    """Return how many worker processes to use: `PESFIT_WORKERS`, or the cores this process may run on.

    Raises:
        ParamsError: if `PESFIT_WORKERS` is not a whole number of at least 1.
    """
    value = os.environ.get("PESFIT_WORKERS")
    if value is None:
        return len(os.sched_getaffinity(0))
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ParamsError(f"PESFIT_WORKERS = {value!r}: expected a whole number of at least 1, such as 4")
    return int(value)


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    label: str,
    n_items: int | None = None,
    unit: str = "molecule",
) -> Iterator[Result]:
    """Apply a function to each item in worker processes and yield the results in the items' order.

    Items are drawn as they are needed, so a generator over an archive stays bounded in memory. With one worker everything
    runs in this process. Linear algebra runs on one thread in each
    process (`use_one_thread`).

    Args:
        function: a module's function, or a `functools.partial` of one: it is sent to the workers by name.
        items: its arguments.
        label: of the progress bar.
        n_items: their number, where it is known.
        unit: name of one item, for the progress bar.

    Yields:
        One result for each item.

    Raises:
        PesfitError: if a worker process dies (out of memory, for instance). What `function` raises is raised here.
    """
    workers = n_workers()
    use_one_thread()
    with tqdm(total=n_items, desc=label, unit=unit, dynamic_ncols=True, mininterval=0.5) as bar:
        if workers == 1 or n_items == 1:
            for item in items:
                result = function(item)
                bar.update()
                yield result
        else:
            yield from _in_processes(function, items, workers, bar)


def _in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int, bar: tqdm[Any]) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    source = iter(items)
    # Spawned, not forked: torch, pyarrow and OpenMP start threads, and a forked child of a process with threads can hang.
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    ) as pool:
        try:
            for n_done in itertools.count():
                try:
                    for item in itertools.islice(source, workers * _LOOK_AHEAD - len(pending)):
                        future = pool.submit(function, item)
                        future.add_done_callback(lambda _: bar.update())  # when it is done, which may be before its turn
                        pending.append(future)
                    if not pending:
                        return
                    result = pending.popleft().result()
                except BrokenProcessPool as error:
                    raise PesfitError(
                        f"{bar.desc}: a worker process was ended while item {n_done} or one of the {workers * _LOOK_AHEAD} after it was "
                        f"worked on; if memory ran out, set PESFIT_WORKERS lower (now {workers})"
                    ) from error
                yield result
        finally:
            # Not future.cancel(), over which the pool's own thread trips, and with which it may wait forever before Python 3.11.4.
            pool.shutdown(cancel_futures=True)


def use_one_thread() -> None:
    """Run linear algebra on one thread, in this process and in those it starts: sums have one order, and processes share the cores."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # libraries read them when they are loaded
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, so that no stage or worker outlives a killed `dvc repro`.

    Args:
        parent: process id of the parent; this process exits at once if another has taken its place already.
    """
    pr_set_pdeathsig = 1  # <linux/prctl.h>
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
