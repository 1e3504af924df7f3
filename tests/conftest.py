"""Shared by all tests: real data where they are at hand, one thread for linear algebra, and no worker processes unless asked for."""

from __future__ import annotations

import multiprocessing
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings

from pesfit.core import parallel

pytest_plugins = ["tests.models.fitted"]

# How long an example takes says how busy the machine is.
settings.register_profile("pesfit", deadline=None)
settings.load_profile("pesfit")

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Processes take seconds to start; tests that are about them say how many.
os.environ["PESFIT_WORKERS"] = "1"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data and golden files named by PESFIT_REAL_DATA."""
    folder = os.environ.get("PESFIT_REAL_DATA")
    if not folder:
        pytest.skip("needs real data: PESFIT_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def rmd17(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `rmd17` of the published archive of ethanol and aspirin, unpacked once: bzip2 takes seconds."""
    folder = tmp_path_factory.mktemp("published")
    with tarfile.open(real_data / "mirror" / "rmd17" / "rmd17.tar.bz2", "r|bz2") as archive:
        archive.extractall(
            folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # Python before 3.11.4 lacks it
    return folder / "rmd17"


class _SharedPool(ProcessPoolExecutor):
    """Outlives each use."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the session ends it."""


@pytest.fixture(scope="session")
def _pool() -> Iterator[ProcessPoolExecutor]:
    pool = _SharedPool(2, multiprocessing.get_context("spawn"), initializer=parallel.die_with_parent, initargs=(os.getpid(),))
    yield pool
    ProcessPoolExecutor.shutdown(pool)


@pytest.fixture
def worker_pool(_pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `ordered_map` use two processes that all tests share, wherever PESFIT_WORKERS is not 1: starting some takes seconds."""
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", lambda *_, **__: _pool)
