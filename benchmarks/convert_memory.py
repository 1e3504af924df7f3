"""How much memory stage 02 takes for a large archive, and how long.

An Espaloma archive is put together from the entries of another one, or from made-up ones, again and again under new names, until it has the
size that is asked for; it is converted as the stage does it. The archive is stored rather than deflated: real ones hardly get smaller.

    python benchmarks/convert_memory.py [--gigabytes 2] [--entries protein-torsion.tar.gz] [--workers 2]
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
SUBSET = "protein-torsion"
LIMIT_MIB = 1024


def main() -> None:
    """Print one line of figures; exit with status 1 where memory went over 1 GiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--entries", type=Path, help="archive whose entries are repeated; made-up ones without it")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ["PESFIT_WORKERS"] = str(options.workers)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from pesfit.params.preparation import Convert, Sources
    from pesfit.sources.convert import convert_sources

    with tempfile.TemporaryDirectory() as folder:
        raw, output = Path(folder) / "raw", Path(folder) / "arrow"
        (raw / "espaloma").mkdir(parents=True)
        output.mkdir()
        n_entries = write_archive(raw / "espaloma" / f"{SUBSET}.tar.gz", entries(options.entries), options.gigabytes * 1e9)
        started = time.perf_counter()
        with PeakMemory() as peak:
            metrics = convert_sources(raw, Sources(espaloma=(SUBSET,), xtb=False), Convert(), output)
        seconds = time.perf_counter() - started
    figures = metrics["espaloma"][f"espaloma/{SUBSET}"]
    print(
        f"convert_memory: {options.gigabytes:g} GB, {n_entries} entries, {figures['conformers']} conformers, {options.workers} workers: "
        f"{seconds:.1f} s, peak {peak.mib:.0f} MiB resident in all processes together (limit {LIMIT_MIB})"
    )
    sys.exit(peak.mib > LIMIT_MIB)


def entries(archive: Path | None) -> list[dict[str, bytes]]:
    """Read the entries of an archive, or make up one: a dipeptide with 576 conformers."""
    if archive is None:
        from tests.sources.synthetic import espaloma_files, make_frames

        return [espaloma_files(make_frames("CC(=O)N[C@@H](C)C(=O)N[C@@H](Cc1ccccc1)C(=O)NC", 576))]
    from pesfit.sources.espaloma import read_entries

    return [entry.files for entry in read_entries(archive, SUBSET)]


def write_archive(path: Path, of: list[dict[str, bytes]], n_bytes: float) -> int:
    """Repeat entries until the archive has so many bytes; return how many that were."""
    n_entries = 0
    with gzip.open(path, "wb", compresslevel=0) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        while tar.offset < n_bytes:
            for name, content in of[n_entries % len(of)].items():
                info = tarfile.TarInfo(f"{SUBSET}/{n_entries}/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            tar.members = []  # type: ignore[attr-defined]
            n_entries += 1
    return n_entries


class PeakMemory:
    """Largest resident memory of this process and its children together, sampled 20 times a second."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.mib = max(self.mib, sum(self._resident()) / 2**20)

    def _resident(self) -> Iterator[int]:
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            try:
                yield process.memory_info().rss
            except psutil.NoSuchProcess:
                continue


if __name__ == "__main__":
    main()
