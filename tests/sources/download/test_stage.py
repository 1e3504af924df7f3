"""Stage 01 against a stand-in for the internet, mirrors, and a cache of its own."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.params.preparation import Download, Sources
from pesfit.sources.download import catalog
from pesfit.sources.download.catalog import Hosts
from pesfit.sources.download.integrity import Expected
from pesfit.sources.download.stage import download_sources, read_sums
from tests.sources.download.file_server import Fault, FileServer, Served

SOURCES = Sources(espaloma=("gen2-torsion", "rna-diverse"), rmd17=("ethanol",), md17=("ethanol", "benzene"))


def _npz(n_frames: int) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, E=np.zeros((n_frames, 1)))
    return buffer.getvalue()


def _noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(20_000)


FILES = {
    "espaloma/gen2-torsion.tar.gz": gzip.compress(_noise(1), mtime=0),
    "espaloma/rna-diverse.tar.gz": gzip.compress(_noise(2), mtime=0),
    "rmd17/rmd17.tar.bz2": bz2.compress(_noise(3)),
    "md17/md17_benzene2017.npz": _npz(300),
    "md17/md17_ethanol.npz": _npz(500),
}
TORSION, RNA, RMD17, BENZENE, ETHANOL = FILES
RECORD = "api/records/8150601"
FIGSHARE, CLOUD = "figshare/ndownloader/files/23950376", "cloud/records/pfffs-fff86/files/rmd17.tar.bz2"


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PESFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def internet(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """All files where they are published."""
    for path, content in FILES.items():
        name = Path(path).name
        place = {"espaloma": f"records/8150601/files/{name}", "rmd17": FIGSHARE, "md17": f"gdml/gdml/data/npz/{name}"}
        server.files[place[path.split("/")[0]]] = Served(content)
    server.files[CLOUD] = Served(FILES[RMD17])
    listed = {Path(path).name: content for path, content in FILES.items() if path.startswith("espaloma")}
    server.files[RECORD] = Served(
        json.dumps(
            {
                "files": [
                    {"key": key, "size": len(content), "checksum": f"md5:{_md5(content)}"} for key, content in listed.items()
                ]
            }
        ).encode()
    )
    monkeypatch.setattr(
        catalog,
        "RMD17_EXPECTED",
        Expected(len(FILES[RMD17]), sha256=hashlib.sha256(FILES[RMD17]).hexdigest(), according_to="catalog"),
    )
    return server


@pytest.fixture
def http_mirror(server: FileServer) -> FileServer:
    for path, content in FILES.items():
        server.files[f"mirror/{path}"] = Served(content)
    return server


def _hosts(server: FileServer) -> Hosts:
    return Hosts(server.url, f"{server.url}/figshare", f"{server.url}/cloud", f"{server.url}/gdml")


class Run:
    """One run of the stage; each has its own output folder."""

    def __init__(self, folder: Path, server: FileServer) -> None:
        self.folder = folder
        self.server = server
        self.count = 0

    def __call__(self, sources: Sources = SOURCES, mirror: str | None = None, retries: int = 1) -> tuple[dict[str, Any], Path]:
        self.count += 1
        output = self.folder / f"raw-{self.count}"
        output.mkdir()
        params = Download(mirror=mirror, retries=retries, timeout_s=10.0)
        return download_sources(sources, params, output, hosts=_hosts(self.server), sleep=lambda _: None), output


@pytest.fixture
def run(tmp_path: Path, server: FileServer, cache: Path) -> Run:
    assert not cache.exists()
    return Run(tmp_path, server)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_internet_then_cache_then_mirrors_give_the_same_bytes(internet: FileServer, http_mirror: FileServer, run: Run) -> None:
    metrics, output = run()
    tree = _tree(output)
    assert {path: tree[path] for path in FILES} == FILES
    assert set(tree) == {*FILES, "manifest.json"}
    assert metrics == {
        "n_files": 5,
        "size_bytes": sum(map(len, FILES.values())),
        "sources": {
            "espaloma": {
                "n_files": 2,
                "size_bytes": len(FILES[TORSION]) + len(FILES[RNA]),
                "published_at": "doi:10.5281/zenodo.8150601",
            },
            "rmd17": {"n_files": 1, "size_bytes": len(FILES[RMD17]), "published_at": "doi:10.6084/m9.figshare.12672038.v3"},
            "md17": {
                "n_files": 2,
                "size_bytes": len(FILES[BENZENE]) + len(FILES[ETHANOL]),
                "published_at": "http://www.quantum-machine.org/gdml",
            },
        },
    }
    manifest = json.loads(tree["manifest.json"])
    assert [(file["path"], file["size_bytes"], file["sha256"]) for file in manifest["files"]] == [
        (path, len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()
    ]
    n_requests = len(internet.requests)
    assert n_requests == 6

    again, output = run()
    assert (again, _tree(output)) == (metrics, tree)
    assert len(internet.requests) == n_requests  # all from the cache

    folder = run.folder / "mirror"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for mirror in (str(folder), f"{http_mirror.url}/mirror/"):
        metrics_of_mirror, output = run(mirror=mirror)
        assert (metrics_of_mirror, _tree(output)) == (metrics, tree)


def test_nothing_to_download_still_leaves_a_folder(run: Run, cache: Path) -> None:
    metrics, output = run(Sources())
    assert metrics == {"n_files": 0, "size_bytes": 0, "sources": {}}
    assert json.loads((output / "manifest.json").read_text()) == {"format": 1, "files": []}
    assert not cache.exists()
    assert run.server.requests == []


def test_drops_are_resumed(http_mirror: FileServer, run: Run) -> None:
    for served in http_mirror.files.values():
        served.faults = [Fault(drop_after=len(served.content) // 3), Fault(drop_after=len(served.content) // 3)]
    _, output = run(mirror=f"{http_mirror.url}/mirror")
    assert FILES.items() <= _tree(output).items()
    for path, content in FILES.items():
        starts = [request.range for request in http_mirror.requests_for(f"/mirror/{path}")]
        assert starts == [None, f"bytes={len(content) // 3}-", f"bytes={len(content) // 3 * 2}-"]


def test_wrong_checksum_in_the_listing(internet: FileServer, run: Run, cache: Path) -> None:
    internet.files[f"records/8150601/files/{Path(RNA).name}"].content = FILES[TORSION].ljust(len(FILES[RNA]), b"\0")[
        : len(FILES[RNA])
    ]
    with pytest.raises(DownloadError, match=r"rna-diverse\.tar\.gz.* expected according to .*/api/records/8150601"):
        run()
    assert {path.name for path in (cache / "published/espaloma").glob("rna*")} == {"rna-diverse.tar.gz.lock"}


@pytest.mark.usefixtures("internet")
def test_file_that_zenodo_does_not_list(run: Run) -> None:
    with pytest.raises(
        DownloadError, match=r"does not list gen2-opt\.tar\.gz; it lists gen2-torsion\.tar\.gz, rna-diverse\.tar\.gz"
    ):
        run(Sources(espaloma=("gen2-opt",)))


def test_record_that_is_gone(run: Run) -> None:
    with pytest.raises(DownloadError, match=r"/api/records/8150601: there is no such record"):
        run(Sources(espaloma=("gen2-opt",)))


def test_second_host_of_rmd17_takes_over(internet: FileServer, run: Run) -> None:
    internet.files[FIGSHARE].faults = [Fault(status=403)]
    _, output = run(Sources(rmd17=("ethanol",)))
    assert (output / RMD17).read_bytes() == FILES[RMD17]
    assert len(internet.requests_for(f"/{CLOUD}")) == 1


@pytest.mark.usefixtures("internet")
def test_published_rmd17_must_be_the_recorded_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PESFIT_CACHE", str(run.folder / "cache"))
    with pytest.raises(
        DownloadError, match=r"the server's file has \d+ bytes; 1066301513 expected according to pesfit's catalog"
    ):
        run(Sources(rmd17=("ethanol",)))


def test_without_published_checksum_the_first_download_is_the_measure(
    internet: FileServer, run: Run, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sources = Sources(md17=("ethanol",))
    run(sources)
    note = cache / f"published/{ETHANOL}.json"
    assert f"its SHA-256 {hashlib.sha256(FILES[ETHANOL]).hexdigest()} is kept in {note}" in capfd.readouterr().err
    (cache / "published" / ETHANOL).unlink()
    internet.files["gdml/gdml/data/npz/md17_ethanol.npz"].content = _npz(501)
    with pytest.raises(DownloadError, match=rf"according to {note}, written when it was first downloaded \(delete that note"):
        run(sources)
    internet.files["gdml/gdml/data/npz/md17_ethanol.npz"].content = FILES[ETHANOL]
    _, output = run(sources)
    assert (output / ETHANOL).read_bytes() == FILES[ETHANOL]


@pytest.mark.usefixtures("internet")
def test_damaged_cache_is_noticed_and_fetched_again(run: Run, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, first = run()
    for path in FILES:
        place = cache / "published" / path
        place.write_bytes(place.read_bytes()[:-1] + b"\0\0")
    _, second = run()
    assert _tree(second) == _tree(first)
    assert capfd.readouterr().err.count("the copy in the cache is damaged and is fetched again") == 5


def test_error_page_instead_of_an_archive(internet: FileServer, run: Run, cache: Path) -> None:
    internet.files["gdml/gdml/data/npz/md17_ethanol.npz"].content = b"<html>Please log in to this network</html>"
    with pytest.raises(DownloadError, match=r"md17_ethanol\.npz: is not a zip file; it begins with b'<html>Please"):
        run(Sources(md17=("ethanol",)))
    assert {path.name for path in (cache / "published/md17").iterdir()} == {"md17_ethanol.npz.lock"}


@pytest.mark.parametrize("kind", ["folder", "http"])
@pytest.mark.parametrize(("algorithm", "sums"), [("sha256", "SHA256SUMS"), ("md5", "MD5SUMS")])
def test_checksum_file_of_a_mirror_is_used(http_mirror: FileServer, run: Run, kind: str, algorithm: str, sums: str) -> None:
    lines = "".join(f"{hashlib.new(algorithm, FILES[path]).hexdigest()}  ./{path}\n" for path in (TORSION, RNA))
    mirror = run.folder / "mirror"
    for path, content in FILES.items():
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(content)
    (mirror / sums).write_text(lines)
    http_mirror.files[f"mirror/{sums}"] = Served(lines.encode())
    address = str(mirror) if kind == "folder" else f"{http_mirror.url}/mirror"
    run(Sources(espaloma=("gen2-torsion",)), mirror=address)
    bad = FILES[RNA][:-1] + b"!"
    (mirror / RNA).write_bytes(bad)
    http_mirror.files[f"mirror/{RNA}"].content = bad
    with pytest.raises(
        DownloadError, match=rf"its {algorithm} checksum is {hashlib.new(algorithm, bad).hexdigest()}; .*{sums}"
    ):
        run(mirror=address)
    assert not (run.folder / "raw-2" / RNA).exists()


def test_mirror_folder_that_lacks_files(run: Run) -> None:
    mirror = run.folder / "mirror"
    (mirror / "espaloma").mkdir(parents=True)
    (mirror / TORSION).write_bytes(FILES[TORSION])
    with pytest.raises(DownloadError) as error:
        run(mirror=str(mirror))
    assert str(error.value) == (
        f"download.mirror = '{mirror}' lacks {RNA}, {RMD17}, {BENZENE}, {ETHANOL}; expected a folder that holds "
        "espaloma/<subset>.tar.gz, rmd17/rmd17.tar.bz2, md17/md17_<molecule>.npz"
    )


def test_mirror_server_that_lacks_a_file(http_mirror: FileServer, run: Run) -> None:
    del http_mirror.files[f"mirror/{BENZENE}"]
    with pytest.raises(DownloadError, match=rf"/mirror/{BENZENE}: the server answered 404 Not Found"):
        run(mirror=f"{http_mirror.url}/mirror")


@pytest.mark.parametrize(
    ("mirror", "error", "message"),
    [
        ("/nowhere", DownloadError, "download.mirror = '/nowhere': there is no such folder"),
        (
            "ftp://host/data",
            ParamsError,
            "download.mirror = 'ftp://host/data': expected a folder, or a URL that begins with http",
        ),
    ],
)
def test_mirror_that_is_none(run: Run, mirror: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        run(mirror=mirror)
    assert str(raised.value).startswith(message)


def test_mirrors_do_not_share_files(http_mirror: FileServer, run: Run) -> None:
    sources = Sources(md17=("ethanol",))
    http_mirror.files[f"samples/{ETHANOL}"] = Served(_npz(7))
    _, whole = run(sources, mirror=f"{http_mirror.url}/mirror")
    _, sample = run(sources, mirror=f"{http_mirror.url}/samples")
    assert (whole / ETHANOL).read_bytes() == FILES[ETHANOL]
    assert (sample / ETHANOL).read_bytes() == _npz(7)


def test_disk_too_small_for_all_is_seen_before_the_first_byte(internet: FileServer, run: Run) -> None:
    listing = json.loads(internet.files[RECORD].content)
    for file in listing["files"]:
        file["size"] = 2**59
    internet.files[RECORD].content = json.dumps(listing).encode()
    with pytest.raises(DownloadError, match=rf"downloading to the cache and copying from there needs {2**61} bytes in "):
        run(Sources(espaloma=("gen2-torsion", "rna-diverse")))
    assert [request.path for request in internet.requests] == [f"/{RECORD}"]


_STAGE = """
import sys
from pathlib import Path
from pesfit.params.preparation import Download
from pesfit.params.preparation import Sources
from pesfit.sources.download.stage import download_sources
download_sources(Sources(md17=("ethanol",)), Download(mirror=sys.argv[1]), Path(sys.argv[2]))
"""


def test_two_processes_fetch_a_file_once(http_mirror: FileServer, run: Run) -> None:
    http_mirror.files[f"mirror/{ETHANOL}"].faults = [Fault(stall_after=1000)]
    outputs = [run.folder / "a", run.folder / "b"]
    for output in outputs:
        output.mkdir()

    def start(output: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _STAGE, f"{http_mirror.url}/mirror", output], stderr=subprocess.PIPE, text=True
        )

    with start(outputs[0]) as first:
        while not http_mirror.stalled.wait(0.05):
            assert first.poll() is None
        with start(outputs[1]) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "md17_ethanol.npz: another process is downloading it; waiting\n"
            http_mirror.release.set()
            second.communicate()
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert _tree(outputs[0]) == _tree(outputs[1])
    assert (outputs[0] / ETHANOL).read_bytes() == FILES[ETHANOL]
    assert [request.range for request in http_mirror.requests_for(f"/mirror/{ETHANOL}")] == [None, "bytes=1000-"]


def test_real_samples_over_http_with_drops_and_from_the_folder(real_data: Path, server: FileServer, run: Run) -> None:
    mirror = real_data / "mirror"
    sources = Sources(
        espaloma=("gen2-torsion", "protein-torsion", "rna-diverse", "duplicated-isomeric-smiles-merge"),
        rmd17=("ethanol", "aspirin"),
        md17=("ethanol",),
    )
    paths = [file.path for file in catalog.raw_files(sources)]
    for path in paths:
        content = (mirror / path).read_bytes()
        server.files[path] = Served(content, faults=[Fault(drop_after=len(content) // 2)])
    metrics, from_folder = run(sources, mirror=str(mirror))
    assert (metrics["n_files"], metrics["size_bytes"]) == (6, sum((mirror / path).stat().st_size for path in paths))
    assert run(sources, mirror=server.url)[0] == metrics
    assert _tree(run.folder / "raw-2") == _tree(from_folder)
    assert {path: (mirror / path).read_bytes() for path in paths}.items() <= _tree(from_folder).items()
    assert len(server.requests) == 2 + 2 * len(paths)


MD5 = "0123456789abcdef0123456789abcdef"
SHA256 = MD5 + MD5


def test_sums_in_both_styles() -> None:
    lines = [f"{SHA256}  espaloma/a b.tar.gz", f"{SHA256.upper()} *./md17/b.npz", "", "# a comment"]
    assert read_sums("\n".join(lines), "sha256", "SHA256SUMS") == {"espaloma/a b.tar.gz": SHA256, "md17/b.npz": SHA256}


@pytest.mark.parametrize("line", ["<html>", f"{MD5}  a", f"{SHA256}", f"{SHA256[:-1]}g  a"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(DownloadError, match=r"^SHA256SUMS: line 2 is .*; expected 64 hexadecimal digits"):
        read_sums(f"{SHA256}  a\n{line}", "sha256", "SHA256SUMS")
