"""Work in processes: order, bounds, errors, and workers that do not outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pesfit.core.exceptions import ParamsError, PesfitError
from pesfit.core.parallel import n_workers, ordered_map

SRC = Path(__file__).resolve().parents[2] / "src"


def later_first(item: int) -> int:
    time.sleep(0.002 * (10 - item % 10))
    return item * item


def refuse_seven(item: int) -> int:
    if item == 7:
        raise ValueError("seven")
    return item


def end_abruptly(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def end_later(item: int) -> int:
    if item:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def use_slowly(result: int) -> None:
    time.sleep(1.5)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_whatever_the_number_of_workers(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", str(workers))
    assert list(ordered_map(later_first, range(30), label="squares")) == [i * i for i in range(30)]


def test_items_are_drawn_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    drawn = 0

    def source() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = ordered_map(later_first, source(), label="ahead")
    assert next(results) == 1
    assert drawn < 20
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_is_raised_here(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", str(workers))
    with pytest.raises(ValueError, match="seven"):
        list(ordered_map(refuse_seven, range(20), label="sevens"))


def test_a_worker_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    with pytest.raises(PesfitError, match=r"a worker process was ended .* set PESFIT_WORKERS lower"):
        list(ordered_map(end_abruptly, range(4), label="deaths"))


def test_a_worker_that_dies_while_results_are_used_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    with pytest.raises(PesfitError, match=r"a worker process was ended .* set PESFIT_WORKERS lower"):
        list(map(use_slowly, ordered_map(end_later, range(100), label="deaths")))


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_a_wrong_number_of_workers_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", value)
    with pytest.raises(ParamsError, match=f"PESFIT_WORKERS = '{value}': expected a whole number of at least 1"):
        n_workers()


def test_the_default_is_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PESFIT_WORKERS", raising=False)
    assert n_workers() == len(os.sched_getaffinity(0))


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from pesfit.core.parallel import ordered_map\n"
        "def work(folder):\n"
        "    Path(folder, str(os.getpid())).touch()\n"
        "    time.sleep(3600)\n"
        "if __name__ == '__main__':\n"
        "    list(ordered_map(work, [sys.argv[1]] * 2, label='sleep'))\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    environment = os.environ | {"PYTHONPATH": str(SRC), "PESFIT_WORKERS": "2"}
    parent = subprocess.Popen([sys.executable, script, pids], env=environment, stderr=subprocess.DEVNULL)
    while len(workers := [int(path.name) for path in pids.iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.05)
