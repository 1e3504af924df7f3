"""The frame around each stage's one call: parameters, one run at a time, whole outputs or none, metrics, exit status."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.core.files import write_json
from pesfit.core.parallel import die_with_parent, n_workers

SCRATCH = Path("outputs/scratch")
METRICS = Path("outputs/metrics")
PLOTS = Path("outputs/plots")
RUNS = Path("outputs/runs")

_SIGNIFICANT_DIGITS = 10
_P = TypeVar("_P")


def run_stage(name: str, work: Callable[[_P], Mapping[str, Any]], load: Callable[[Path], _P]) -> None:
    """Run one stage of the pipeline from the top of a checkout and exit.

    params.yaml is validated as a whole first. A second run of the same stage in the same checkout is refused while one is under
    way, and the stage is ended when the `dvc` that started it dies. The result of `work` is written to `outputs/metrics/<name>.json`.

    Args:
        name: the stage's name without its number, such as `convert`.
        work: the stage; its outputs go through `output_folder`.
        load: reads and validates params.yaml, such as `params.load.load_params`.

    Raises:
        SystemExit: with status 0, or 1 or 2 after one message on stderr (see `errors`), or 130 after Ctrl-C.
    """
    die_with_parent(os.getppid())
    try:
        n_workers()
        params = load(Path("params.yaml"))
        with _only_run(name):
            write_json(METRICS / f"{name}.json", work(params), digits=_SIGNIFICANT_DIGITS)
    except PesfitError as error:
        print(f"pesfit {name}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print(f"pesfit {name}: interrupted; `dvc repro` goes on from here", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def output_folder(path: Path | str) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an exception, and vanishes otherwise.

    The folder that was at `path` stays until the new one is whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.new-*"):  # of a run that was killed; `run_stage` holds the stage's lock
        shutil.rmtree(left_over)
    new = path.parent / f".{path.name}.new-{os.getpid()}"
    new.mkdir()
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if path.is_dir():
        shutil.rmtree(path)
    new.replace(path)


def input_folder(path: Path | str) -> Path:
    """Return a stage's input folder.

    Raises:
        DataError: if an earlier stage has not written it.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(
            f"{path} is missing; `dvc repro` runs the stages that write it, `dvc checkout` brings it back from the cache"
        )
    return path


@contextlib.contextmanager
def _only_run(name: str) -> Iterator[None]:
    """Hold the stage's lock, and drop it with the process, however that ends."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (SCRATCH / f"{name}.lock").open("a") as lock:
        for _ in range(20):  # a run that was just killed may need a moment to let go
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise ParamsError(f"another run of stage {name} is under way in {Path.cwd()}; wait for it or stop it")
        yield
