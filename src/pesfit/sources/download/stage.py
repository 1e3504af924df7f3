"""Stage 01: the archives that the parameters name in one folder, as they came, from the internet, a mirror or the cache."""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.core.files import write_json
from pesfit.params.preparation import Download, OwnData, Sources
from pesfit.sources.download.cache import CachedFile, cache_folder
from pesfit.sources.download.catalog import MIRROR_LAYOUT, ORIGINS, PUBLISHED, Hosts, RawFile, raw_files, read_listing
from pesfit.sources.download.integrity import ChecksumError, Expected, Received, check_archive, check_free_space, copy_checked
from pesfit.sources.download.transfer import RetryPolicy, fetch, fetch_text, report
from pesfit.sources.own_folder import OWN, open_own

MANIFEST = "manifest.json"

_SUMS = {"sha256": ("SHA256SUMS", 64), "md5": ("MD5SUMS", 32)}
_SUMS_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]+) [ *](?P<path>.+)")
_OWN_ORIGIN = "own data"


def download_sources(
    sources: Sources,
    params: Download,
    output: Path,
    *,
    hosts: Hosts = PUBLISHED,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Fetch the files that `sources` names to `output/<source>/<name>`, and list them in `output/manifest.json`.

    Data sets of the user's own come first, being at hand; they are copied to `output/own/<name>/`.

    Args:
        sources: which data go in; `xtb` needs no file.
        params: mirror, retries, time-out.
        output: a folder that exists.
        hosts: where the data are published.
        sleep: waits so many seconds.

    Returns:
        Metrics: number of files and bytes, in all and for each source, and who publishes it. They depend on the files alone, not on
        where they came from this time.

    Raises:
        DownloadError: if a file cannot be had whole and unchanged; `output` may then hold some whole files.
        DataError: if a data set of the user's own is missing, or not what it should be.
        ParamsError: if the mirror or the cache folder is something that cannot be used.
    """
    copied = copy_own(sources.own, output)
    files = raw_files(sources, hosts)
    policy = RetryPolicy(params.retries, params.timeout_s, sleep)
    for file in files:
        (output / file.source).mkdir(exist_ok=True)
    if params.mirror is None:
        received = _from_network(files, "published", _published_expectation(hosts, policy), output, policy)
    elif params.mirror.startswith(("http://", "https://")):
        received = _from_http_mirror(files, params.mirror.rstrip("/"), output, policy)
    elif "://" in params.mirror:
        raise ParamsError(
            f"download.mirror = {params.mirror!r}: expected a folder, or a URL that begins with http:// or https://"
        )
    else:
        received = _from_folder(files, Path(params.mirror).expanduser(), output)
    received |= copied
    manifest = [
        {
            "path": path,
            "size_bytes": file.size,
            "sha256": file.sha256,
            "published_at": ORIGINS.get(_source_of(path), _OWN_ORIGIN),
        }
        for path, file in received.items()
    ]
    write_json(output / MANIFEST, {"format": 1, "files": manifest})
    return _metrics(received)


def copy_own(entries: Sequence[OwnData], output: Path) -> dict[str, Received]:
    """Copy data sets to `<output>/own/<name>/`, without other files of their folders, after all of them have been checked.

    Args:
        entries: of `sources.own`.
        output: a folder that exists.

    Returns:
        Size and SHA-256 of each file, by its path below `output`.

    Raises:
        DataError: as `open_own` does.
        DownloadError: if the disk is full, or a file cannot be read or written.
    """
    places = {own.name: Path(own.path).expanduser() for own in entries}
    files = {own.name: open_own(own, places[own.name]).files for own in entries}
    for name, folder in places.items():
        check_free_space(output, sum((folder / file).stat().st_size for file in files[name]), f"copying {folder}")
    copied: dict[str, Received] = {}
    for name, folder in places.items():
        (output / OWN / name).mkdir(parents=True)
        for file in files[name]:
            path = f"{OWN}/{name}/{file}"
            copied[path] = copy_checked(folder / file, output / path, Expected(), f"{name}/{file}")
    return copied


def _from_folder(files: Sequence[RawFile], mirror: Path, output: Path) -> dict[str, Received]:
    """Copy files from a mirror folder; they are not cached, being at hand already."""
    address = f"download.mirror = {str(mirror)!r}"
    if not mirror.is_dir():
        raise DownloadError(f"{address}: there is no such folder; expected one that holds {MIRROR_LAYOUT}")
    if missing := [file.path for file in files if not (mirror / file.path).is_file()]:
        raise DownloadError(f"{address} lacks {', '.join(missing)}; expected a folder that holds {MIRROR_LAYOUT}")
    check_free_space(output, sum((mirror / file.path).stat().st_size for file in files), "copying from download.mirror")
    expectation = _mirror_expectation(
        str(mirror), lambda name: (mirror / name).read_text(errors="replace") if (mirror / name).is_file() else None
    )
    received = {}
    for file in files:
        source = mirror / file.path
        check_archive(source, str(source))
        received[file.path] = copy_checked(source, output / file.path, expectation(file), str(source))
    return received


def _from_http_mirror(files: Sequence[RawFile], mirror: str, output: Path, policy: RetryPolicy) -> dict[str, Received]:
    """Fetch files from a mirror into a separate cache directory, as a mirror may hold samples or other versions."""
    there = [RawFile(file.source, file.name, (f"{mirror}/{file.path}",)) for file in files]
    directory = f"mirror-{hashlib.sha256(mirror.encode()).hexdigest()[:16]}"
    expectation = _mirror_expectation(mirror, lambda name: fetch_text(f"{mirror}/{name}", policy, name))
    return _from_network(there, directory, expectation, output, policy)


def _mirror_expectation(mirror: str, read: Callable[[str], str | None]) -> Callable[[RawFile], Expected]:
    """Return a function that gives the checksums which a mirror's checksum files have of a file; they are read at the first call.

    Args:
        mirror: folder or URL.
        read: returns the text of a file of the mirror, or None where there is none.
    """

    @functools.cache
    def sums() -> dict[str, dict[str, str]]:
        texts = {algorithm: read(name) for algorithm, (name, _) in _SUMS.items()}
        return {
            algorithm: read_sums(text, algorithm, f"{mirror}/{_SUMS[algorithm][0]}")
            for algorithm, text in texts.items()
            if text is not None
        }

    def expectation(file: RawFile) -> Expected:
        found = {algorithm: digests[file.path] for algorithm, digests in sums().items() if file.path in digests}
        names = " and ".join(_SUMS[algorithm][0] for algorithm in found)
        return Expected(None, found.get("md5"), found.get("sha256"), f"the mirror's {names}") if found else Expected()

    return expectation


def read_sums(text: str, algorithm: str, where: str) -> dict[str, str]:
    """Parse what `sha256sum` or `md5sum` wrote.

    Args:
        text: lines such as `<digest>  espaloma/gen2-opt.tar.gz`.
        algorithm: `md5` or `sha256`.
        where: name of the file in messages.

    Returns:
        Digest by path; a leading `./` is dropped.

    Raises:
        DownloadError: if a line is not of that form.
    """
    n_digits = _SUMS[algorithm][1]
    sums = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SUMS_LINE.fullmatch(line)
        if match is None or len(match["digest"]) != n_digits:
            raise DownloadError(
                f"{where}: line {number} is {line[:80]!r}; expected {n_digits} hexadecimal digits, two spaces and a path"
            )
        sums[match["path"].removeprefix("./")] = match["digest"].lower()
    return sums


def _published_expectation(hosts: Hosts, policy: RetryPolicy) -> Callable[[RawFile], Expected]:
    """Return a function that gives size and checksum of a published file; Zenodo's listing is read when it is first needed."""
    url = hosts.zenodo_listing

    @functools.cache
    def listing() -> dict[str, Expected]:
        text = fetch_text(url, policy, "the listing of the Zenodo record")
        if text is None:
            raise DownloadError(f"{url}: there is no such record")
        return read_listing(text, url)

    def expectation(file: RawFile) -> Expected:
        if file.source != "espaloma":
            return file.expected
        if file.name not in listing():
            raise DownloadError(f"{url} does not list {file.name}; it lists {', '.join(sorted(listing()))}")
        return listing()[file.name]

    return expectation


def _from_network(
    files: Sequence[RawFile], directory: str, expectation: Callable[[RawFile], Expected], output: Path, policy: RetryPolicy
) -> dict[str, Received]:
    """Fetch what the cache lacks, and copy everything from the cache.

    Args:
        files: the files to provide.
        directory: in the cache.
        expectation: gives what is known about a file that must be fetched.
        output: where the files go.
        policy: retries, time-out.
    """
    if not files:
        return {}
    cache = cache_folder() / directory
    places = {file: CachedFile(cache / file.path) for file in files}
    missing = sum(expectation(file).size or 0 for file, place in places.items() if not place.has(file.expected))
    cached = sum(place.path.stat().st_size for place in places.values() if place.path.is_file())
    begun = sum(part.stat().st_size for part in cache.glob("*/*.part"))
    if cache.stat().st_dev == output.stat().st_dev:
        check_free_space(cache, 2 * missing - begun + cached, "downloading to the cache and copying from there")
    else:
        check_free_space(cache, missing - begun, "downloading to the cache")
        check_free_space(output, missing + cached, "copying from the cache")
    return {file.path: _provide(file, place, expectation, output / file.path, policy) for file, place in places.items()}


def _provide(
    file: RawFile, place: CachedFile, expectation: Callable[[RawFile], Expected], target: Path, policy: RetryPolicy
) -> Received:
    """Copy a file from the cache, after fetching it where it is missing or no longer what it was."""
    with place.lock():
        if place.has(file.expected):
            try:
                return copy_checked(place.path, target, place.first_seen(), file.name)
            except ChecksumError as error:
                report(f"{error}; the copy in the cache is damaged and is fetched again")
                place.path.unlink()
        published = expectation(file)
        expected = published if published.has_checksum else place.first_seen()
        received = fetch(file.urls, place.path, expected, policy, file.name)
        try:
            check_archive(place.path, file.name)
        except ChecksumError:
            place.path.unlink()
            raise
        place.write_note(received, expected.according_to)
        if not expected.has_checksum:
            report(
                f"{file.name}: no checksum is published for it; its SHA-256 {received.sha256} is kept in {place.note_path}, "
                "and later downloads must have the same"
            )
        return copy_checked(
            place.path, target, Expected(received.size, sha256=received.sha256, according_to="the cache"), file.name
        )


def _source_of(path: str) -> str:
    """Return the source of a file: its folder, or that of the data set where it is the user's own."""
    first, second, *_ = path.split("/")
    return second if first == OWN else first


def _metrics(received: Mapping[str, Received]) -> dict[str, Any]:
    by_source: dict[str, list[Received]] = defaultdict(list)
    for path, file in received.items():
        by_source[_source_of(path)].append(file)
    return _totals(received.values()) | {
        "sources": {
            source: _totals(files) | {"published_at": ORIGINS.get(source, _OWN_ORIGIN)} for source, files in by_source.items()
        }
    }


def _totals(files: Collection[Received]) -> dict[str, Any]:
    return {"n_files": len(files), "size_bytes": sum(file.size for file in files)}
