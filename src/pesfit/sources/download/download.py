"""Stage 01: bring the archives that the parameters name to one folder, as they came, from the internet, a mirror or the cache."""

from __future__ import annotations

import functools
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import DownloadError, ParamsError
from pesfit.core.files import write_json
from pesfit.params.preparation import Download, Sources
from pesfit.sources.download.cache import CachedFile, cache_folder, copy_checked
from pesfit.sources.download.catalog import MIRROR_LAYOUT, ORIGINS, PUBLISHED, Hosts, RawFile, raw_files, read_listing
from pesfit.sources.download.integrity import ChecksumError, Expected, Received, check_archive, expected_from_sums, read_sums
from pesfit.sources.download.own_copy import copy_own
from pesfit.sources.download.part import check_free_space
from pesfit.sources.download.retry import Patience, tell
from pesfit.sources.download.transfer import fetch, fetch_text

MANIFEST = "manifest.json"

_SUMS = {"sha256": "SHA256SUMS", "md5": "MD5SUMS"}
_OWN_ORIGIN = "own data"


@dataclass(frozen=True)
class _Listed:
    """A file that is there: its path below the output, its source, who publishes it, and what it is."""

    path: str
    source: str
    published_at: str
    received: Received


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
    patience = Patience(params.retries, params.timeout_s, sleep)
    for source in dict.fromkeys(file.source for file in files):
        (output / source).mkdir(exist_ok=True)
    if params.mirror is None:
        received = _from_network(files, "published", _published_expectation(hosts, patience), output, patience)
    elif params.mirror.startswith(("http://", "https://")):
        received = _from_http_mirror(files, params.mirror.rstrip("/"), output, patience)
    elif "://" in params.mirror:
        raise ParamsError(
            f"download.mirror = {params.mirror!r}: expected a folder, or a URL that begins with http:// or https://"
        )
    else:
        received = _from_folder(files, Path(params.mirror).expanduser(), output)
    listed = [_Listed(file.path, file.source, ORIGINS[file.source], item) for file, item in zip(files, received, strict=True)]
    listed += [_Listed(path, path.split("/")[1], _OWN_ORIGIN, item) for path, item in copied.items()]
    _write_manifest(listed, output)
    return _metrics(listed)


def _from_folder(files: Sequence[RawFile], mirror: Path, output: Path) -> list[Received]:
    """Copy files from a mirror folder; they are not cached, being at hand already."""
    if not mirror.is_dir():
        raise DownloadError(
            f"download.mirror = {str(mirror)!r}: there is no such folder; expected one that holds {MIRROR_LAYOUT}"
        )
    missing = [file.path for file in files if not (mirror / file.path).is_file()]
    if missing:
        raise DownloadError(
            f"download.mirror = {str(mirror)!r} lacks {', '.join(missing)}; expected a folder that holds {MIRROR_LAYOUT}"
        )
    check_free_space(output, sum((mirror / file.path).stat().st_size for file in files), "copying from download.mirror")
    sums = {
        algorithm: read_sums((mirror / name).read_text(errors="replace").splitlines(), algorithm, str(mirror / name))
        for algorithm, name in _SUMS.items()
        if (mirror / name).is_file()
    }
    received = []
    for file in files:
        check_archive(mirror / file.path, str(mirror / file.path))
        received.append(
            copy_checked(mirror / file.path, output / file.path, expected_from_sums(file.path, sums), str(mirror / file.path))
        )
    return received


def _from_http_mirror(files: Sequence[RawFile], mirror: str, output: Path, patience: Patience) -> list[Received]:
    """Fetch files from a mirror; they get a corner of the cache to themselves, as a mirror may hold samples or other versions."""

    @functools.cache
    def sums() -> dict[str, dict[str, str]]:
        texts = {algorithm: fetch_text(f"{mirror}/{name}", patience, name) for algorithm, name in _SUMS.items()}
        return {
            algorithm: read_sums(text.splitlines(), algorithm, f"{mirror}/{_SUMS[algorithm]}")
            for algorithm, text in texts.items()
            if text is not None
        }

    there = [RawFile(file.source, file.name, (f"{mirror}/{file.path}",)) for file in files]
    corner = f"mirror-{hashlib.sha256(mirror.encode()).hexdigest()[:16]}"
    return _from_network(there, corner, lambda file: expected_from_sums(file.path, sums()), output, patience)


def _published_expectation(hosts: Hosts, patience: Patience) -> Callable[[RawFile], Expected]:
    """Return what says how large a published file is and what its checksum is; Zenodo's listing is read when it is first needed."""

    @functools.cache
    def listing() -> dict[str, Expected]:
        url = hosts.zenodo_listing
        text = fetch_text(url, patience, "the listing of the Zenodo record")
        if text is None:
            raise DownloadError(f"{url}: there is no such record")
        return read_listing(text, url)

    def expectation(file: RawFile) -> Expected:
        if not file.listed:
            return file.expected
        if file.name not in listing():
            raise DownloadError(f"{hosts.zenodo_listing} does not list {file.name}; it lists {', '.join(sorted(listing()))}")
        return listing()[file.name]

    return expectation


def _from_network(
    files: Sequence[RawFile], corner: str, expectation: Callable[[RawFile], Expected], output: Path, patience: Patience
) -> list[Received]:
    """Fetch what the cache lacks, and copy everything from the cache.

    Args:
        files: what is wanted.
        corner: folder in the cache.
        expectation: says what is known about a file that must be fetched.
        output: where the files go.
        patience: retries, time-out.
    """
    if not files:
        return []
    cache = cache_folder() / corner
    cached = [CachedFile(cache / file.path) for file in files]
    _check_room(
        [place.path for place in cached],
        [
            (expectation(file).size or 0) if not place.has(file.expected) else 0
            for file, place in zip(files, cached, strict=True)
        ],
        output,
    )
    return [_provide(file, place, expectation, output / file.path, patience) for file, place in zip(files, cached, strict=True)]


def _check_room(places: Sequence[Path], missing: Sequence[int], output: Path) -> None:
    """Stop before the first byte if the disk cannot hold them all, as far as sizes are known.

    Args:
        places: where files lie in the cache, or will.
        missing: bytes of each that are still to come; 0 where it is here or its size is not known.
        output: where copies go.
    """
    if not places:
        return
    cache = places[0].parent
    begun = sum(part.stat().st_size for place in places if (part := place.with_name(f"{place.name}.part")).is_file())
    to_fetch = max(0, sum(missing) - begun)
    to_copy = sum(missing) + sum(place.stat().st_size for place in places if place.is_file())
    if cache.stat().st_dev == output.stat().st_dev:
        check_free_space(cache, to_fetch + to_copy, "downloading to the cache and copying from there")
    else:
        check_free_space(cache, to_fetch, "downloading to the cache")
        check_free_space(output, to_copy, "copying from the cache")


def _provide(
    file: RawFile, place: CachedFile, expectation: Callable[[RawFile], Expected], target: Path, patience: Patience
) -> Received:
    """Copy a file from the cache, after fetching it where it is missing or no longer what it was."""
    with place.lock():
        if place.has(file.expected):
            try:
                return copy_checked(place.path, target, place.first_seen(), file.name)
            except ChecksumError as error:
                tell(f"{error}; the copy in the cache is damaged and is fetched again")
                place.path.unlink()
        expected = expectation(file)
        if not expected.has_checksum:
            expected = place.first_seen()
        received = fetch(file.urls, place.path, expected, patience, file.name)
        try:
            check_archive(place.path, file.name)
        except ChecksumError:
            place.path.unlink()
            raise
        place.write_note(received, expected.said_by)
        if not expected.has_checksum:
            tell(
                f"{file.name}: no checksum is published for it; its SHA-256 {received.sha256} is kept in {place.note_path}, "
                "and later downloads must have the same"
            )
        return copy_checked(place.path, target, Expected(received.size, sha256=received.sha256, said_by="the cache"), file.name)


def _write_manifest(listed: Sequence[_Listed], output: Path) -> None:
    manifest = {
        "format": 1,
        "files": [
            {
                "path": file.path,
                "size_bytes": file.received.size,
                "sha256": file.received.sha256,
                "published_at": file.published_at,
            }
            for file in listed
        ],
    }
    write_json(output / MANIFEST, manifest)


def _metrics(listed: Sequence[_Listed]) -> dict[str, Any]:
    sources: dict[str, list[_Listed]] = defaultdict(list)
    for file in listed:
        sources[file.source].append(file)
    return {
        "n_files": len(listed),
        "size_bytes": sum(file.received.size for file in listed),
        "sources": {
            source: {
                "n_files": len(files),
                "size_bytes": sum(file.received.size for file in files),
                "published_at": files[0].published_at,
            }
            for source, files in sources.items()
        },
    }
