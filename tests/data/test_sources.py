"""Names of sources in parameters."""

from __future__ import annotations

import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.data.sources import KNOWN_SOURCES, check_source_names, covers

PRESENT = ("mine/a", "mine/b", "xtb/conformers")


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("espaloma", "espaloma/gen2-opt", True),
        ("espaloma/gen2-opt", "espaloma/gen2-opt", True),
        ("espaloma/gen2", "espaloma/gen2-opt", False),
        ("md17", "rmd17", False),
        ("xtb/conformers", "xtb", False),
    ],
)
def test_a_name_covers_a_source_and_its_parts(name: str, source: str, expected: bool) -> None:
    assert covers(name, source) is expected


@pytest.mark.parametrize("name", ["mine", "mine/b", "xtb", "xtb/trajectory", "espaloma", "espaloma/gen2-torsion", "rmd17"])
def test_names_of_known_sources_are_allowed_though_absent(name: str) -> None:
    check_source_names("cluster.sources", [name], PRESENT)


@pytest.mark.parametrize(("name", "hint"), [("mine/c", "mine/"), ("espaloma/gen2", "espaloma/gen2-opt"), ("rmd", "rmd17")])
def test_a_name_for_nothing_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ParamsError, match=rf"split\.rules: '{name}' is no source; the data hold mine/a, .*mean '{hint}"):
        check_source_names("split.rules", ["xtb", name], PRESENT)


def test_own_is_a_list_of_sources_and_no_source() -> None:
    assert "own" not in KNOWN_SOURCES
    with pytest.raises(ParamsError, match="'own' is no source; the data hold mine, xtb/conformers"):
        check_source_names("cluster.sources", ["own"], ["xtb/conformers", "mine"])
    check_source_names("cluster.sources", ["mine", "xtb"], ["xtb/conformers", "mine"])
