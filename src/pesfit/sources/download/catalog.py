"""The files of each source, where they are published, and their sizes and checksums as far as they are known beforehand.

The folder a file goes to below `data/raw`, and its place in a mirror, are the same: `<source>/<name>`.

- Espaloma 0.3.0: Zenodo record 8150601, one archive a subset. Zenodo's own listing has their sizes and MD5 sums.
- rMD17: one archive at figshare (article 12672038, version 3) and, the same bytes, at the Materials Cloud (record pfffs-fff86). Its size,
  MD5 and SHA-256 are those that several projects which use it have published independently of each other, for either host.
- MD17: one `.npz` a molecule at quantum-machine.org. No checksums are published; they are trusted on first use (`cache`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pesfit.core.exceptions import DownloadError
from pesfit.params.preparation import Sources
from pesfit.sources.download.integrity import Expected

ZENODO_RECORD = "8150601"

RMD17_EXPECTED = Expected(
    size=1_066_301_513,
    md5="cb1a927628d96f2e966025da4fb63d18",
    sha256="cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
    according_to="pesfit's catalog",
)

MIRROR_LAYOUT = "espaloma/<subset>.tar.gz, rmd17/rmd17.tar.bz2, md17/md17_<molecule>.npz"

_MD17_NAMES = {"benzene": "md17_benzene2017.npz", "azobenzene": "azobenzene_dft.npz", "paracetamol": "paracetamol_dft.npz"}


@dataclass(frozen=True)
class Hosts:
    """Base URLs of the hosts that publish the data; tests put a server of their own here."""

    zenodo: str = "https://zenodo.org"
    figshare: str = "https://figshare.com"
    materials_cloud: str = "https://archive.materialscloud.org"
    quantum_machine: str = "http://www.quantum-machine.org"

    @property
    def zenodo_listing(self) -> str:
        """URL of the record's listing."""
        return f"{self.zenodo}/api/records/{ZENODO_RECORD}"


PUBLISHED = Hosts()


@dataclass(frozen=True)
class RawFile:
    """One file of a source, such as `gen2-opt.tar.gz` of `espaloma`; its addresses in the order to be tried; its size and checksum."""

    source: str
    name: str
    urls: tuple[str, ...]
    expected: Expected = field(default_factory=Expected)

    @property
    def path(self) -> str:
        """Where it lies in a mirror, and below `data/raw`."""
        return f"{self.source}/{self.name}"


ORIGINS = {
    "espaloma": "doi:10.5281/zenodo.8150601",
    "rmd17": "doi:10.6084/m9.figshare.12672038.v3",
    "md17": "http://www.quantum-machine.org/gdml",
}
"""Publication of each source: the same whether a file came from there, from a mirror or from the cache."""


def raw_files(sources: Sources, hosts: Hosts = PUBLISHED) -> tuple[RawFile, ...]:
    """Return the files that the parameters ask for, each once, in a fixed order.

    Args:
        sources: section `sources` of the parameters.
        hosts: where the data are published.
    """
    espaloma = (
        RawFile("espaloma", name, (f"{hosts.zenodo}/records/{ZENODO_RECORD}/files/{name}",))
        for name in sorted({f"{subset}.tar.gz" for subset in sources.espaloma})
    )
    rmd17 = RawFile(
        "rmd17",
        "rmd17.tar.bz2",
        (
            f"{hosts.figshare}/ndownloader/files/23950376",
            f"{hosts.materials_cloud}/records/pfffs-fff86/files/rmd17.tar.bz2",
        ),
        RMD17_EXPECTED,
    )
    md17 = (
        RawFile("md17", name, (f"{hosts.quantum_machine}/gdml/data/npz/{name}",))
        for name in sorted({md17_name(molecule) for molecule in sources.md17})
    )
    return (*espaloma, *((rmd17,) if sources.rmd17 else ()), *md17)


def md17_name(molecule: str) -> str:
    """Return the name of the file that holds a molecule of the original MD17; three do not follow the pattern."""
    return _MD17_NAMES.get(molecule, f"md17_{molecule}.npz")


def read_listing(text: str, url: str) -> dict[str, Expected]:
    """Parse the listing of a Zenodo record.

    Args:
        text: the answer of `https://zenodo.org/api/records/<record>`: a JSON object whose `files` have `key`, `size` and `checksum`
            (`md5:<digest>`).
        url: where it came from, for messages.

    Returns:
        Size and checksum of each file, by name.

    Raises:
        DownloadError: if the text is something else.
    """
    try:
        files = json.loads(text)["files"]
        return {file["key"]: _listed(file, url) for file in files}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{url}: is not the listing of a Zenodo record ({type(error).__name__}: {error}); it begins with {text[:80]!r}"
        ) from error


def _listed(file: Mapping[str, Any], url: str) -> Expected:
    algorithm, _, digest = file["checksum"].rpartition(":")
    if algorithm != "md5" or len(digest) != 32 or not isinstance(file["size"], int):
        raise ValueError(f"size {file['size']!r}, checksum {file['checksum']!r}")
    return Expected(size=file["size"], md5=digest.lower(), according_to=url)
