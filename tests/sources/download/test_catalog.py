"""Addresses of published files, and Zenodo's listing of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from pesfit.core.exceptions import DownloadError
from pesfit.params.preparation import EspalomaSubset, MD17Molecule, Sources
from pesfit.sources.download.catalog import ORIGINS, Hosts, md17_name, raw_files, read_listing
from pesfit.sources.download.integrity import Expected

URL = "https://zenodo.org/api/records/8150601"
MD5 = "0123456789abcdef0123456789abcdef"
ALL = Sources(espaloma=get_args(EspalomaSubset), rmd17=get_args(MD17Molecule), md17=get_args(MD17Molecule))


def listing(**changes: Any) -> str:
    """The part of a Zenodo answer that matters, with a little of the rest."""
    file = {
        "id": "c5b2",
        "key": "gen2-opt.tar.gz",
        "size": 123,
        "checksum": f"md5:{MD5}",
        "links": {"self": f"{URL}/files/gen2-opt.tar.gz/content"},
    }
    return json.dumps({"id": 8150601, "files": [file | changes, file | {"key": "other.tar.gz", "size": 5}]})


def test_places_in_the_mirror_and_on_the_net() -> None:
    files = {file.path: file.urls for file in raw_files(ALL)}
    assert len(files) == 11 + 1 + 10
    assert files["espaloma/gen2-torsion.tar.gz"] == ("https://zenodo.org/records/8150601/files/gen2-torsion.tar.gz",)
    assert files["rmd17/rmd17.tar.bz2"] == (
        "https://figshare.com/ndownloader/files/23950376",
        "https://archive.materialscloud.org/records/pfffs-fff86/files/rmd17.tar.bz2",
    )
    assert files["md17/md17_ethanol.npz"] == ("http://www.quantum-machine.org/gdml/data/npz/md17_ethanol.npz",)


def test_names_of_md17_that_break_the_pattern() -> None:
    assert {molecule: md17_name(molecule) for molecule in ("benzene", "azobenzene", "paracetamol", "salicylic")} == {
        "benzene": "md17_benzene2017.npz",
        "azobenzene": "azobenzene_dft.npz",
        "paracetamol": "paracetamol_dft.npz",
        "salicylic": "md17_salicylic.npz",
    }


def test_order_and_repetition_do_not_matter() -> None:
    one = raw_files(Sources(espaloma=("spice-pubchem", "gen2-opt", "gen2-opt"), md17=("uracil", "aspirin"), rmd17=("ethanol",)))
    two = raw_files(
        Sources(espaloma=("gen2-opt", "spice-pubchem"), md17=("aspirin", "uracil", "uracil"), rmd17=("ethanol", "uracil"))
    )
    assert one == two
    assert [file.name for file in one] == [
        "gen2-opt.tar.gz",
        "spice-pubchem.tar.gz",
        "rmd17.tar.bz2",
        "md17_aspirin.npz",
        "md17_uracil.npz",
    ]


def test_nothing_asked_nothing_listed() -> None:
    assert raw_files(Sources()) == ()


def test_every_source_says_who_publishes_it() -> None:
    assert {file.source for file in raw_files(ALL)} == set(ORIGINS)


def test_mirror_of_real_samples_is_laid_out_as_the_catalog_says(real_data: Path) -> None:
    known = {file.path for file in raw_files(ALL)}
    found = {str(path.relative_to(real_data / "mirror")) for path in (real_data / "mirror").glob("*/*.[tn][ap][rz]*")}
    found = {path for path in found if not path.startswith("bad/")}
    assert len(found) >= 6
    assert found <= known


def test_listing_is_read() -> None:
    assert read_listing(listing(), URL) == {
        "gen2-opt.tar.gz": Expected(123, MD5, according_to=URL),
        "other.tar.gz": Expected(5, MD5, according_to=URL),
    }
    assert Hosts().zenodo_listing == URL


@pytest.mark.parametrize(
    "text",
    [
        "<html>Zenodo is down for maintenance</html>",
        "[]",
        "{}",
        '{"files": null}',
        '{"files": [{"key": "a"}]}',
        '{"files": ["a"]}',
        listing(checksum="md5:123"),
        listing(checksum=f"crc32:{MD5}"),
        listing(checksum=None),
        listing(size="123"),
    ],
)
def test_what_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(DownloadError, match=rf"^{URL}: is not the listing of a Zenodo record \(\w+: .*\); it begins with"):
        read_listing(text, URL)
