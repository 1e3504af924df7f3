"""Section `sources`: what a data set of one's own may be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.params.load import load_params
from pesfit.params.source_names import KNOWN_SOURCES, check_source_names

PROFILES = "profiles: {small: {}}\n"


def test_own_data_are_named_with_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        f"{PROFILES}sources: {{own: [{{name: mine, path: my/data}}, {{name: round-1, path: /x, level_of_theory: HF}}]}}"
    )
    first, second = load_params(path).sources.own
    assert (first.name, first.path, first.level_of_theory) == ("mine", "my/data", None)
    assert (second.name, second.path, second.level_of_theory) == ("round-1", "/x", "HF")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("[my/data]", 'sources.own.0 = "my/data": expected a mapping'),
        ("{mine: my/data}", 'sources.own = {"mine": "my/data"}: expected a list'),
        ("[{name: mine}]", "sources.own.0.path: missing; expected a string that is not empty"),
        ("[{name: mine, path: ''}]", 'sources.own.0.path = "": expected a string that is not empty'),
        ("[{name: a/b, path: x}]", 'sources.own.0.name = "a/b": expected letters, digits'),
        ("[{name: .., path: x}]", 'sources.own.0.name = "..": expected letters, digits'),
        ("[{name: xtb, path: x}]", 'sources.own.0.name = "xtb": is the name of a source of the pipeline'),
        ("[{name: a, path: x}, {name: a, path: y}]", ": a is there more than once; every data set needs a name of its own"),
        ("[{name: a, path: x, paht: y}]", 'sources.own.0.paht = "y": unknown key (did you mean path?)'),
    ],
)
def test_entries_that_are_not_allowed_are_refused(own: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{PROFILES}sources: {{own: {own}}}")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert message in str(caught.value)


def test_own_is_a_list_of_sources_and_no_source() -> None:
    assert "own" not in KNOWN_SOURCES
    with pytest.raises(ParamsError, match="'own' is no source; the data hold mine, xtb/conformers"):
        check_source_names("cluster.sources", ["own"], ["xtb/conformers", "mine"])
    check_source_names("cluster.sources", ["mine", "xtb"], ["xtb/conformers", "mine"])
