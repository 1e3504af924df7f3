"""Sections of stages 01 to 05: own data sets and rules for splitting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pesfit.core.exceptions import ParamsError
from pesfit.params.load import load_params
from pesfit.params.preparation import SplitRule
from pesfit.split.rows import shares_of

PROFILES = "profiles: {small: {}}\n"


def test_own_data_are_named_with_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        f"{PROFILES}sources: {{own: [{{name: mine, path: inputs/datasets/mine}}, "
        "{name: round-1, path: inputs/datasets/x, level_of_theory: HF}]}"
    )
    first, second = load_params(path).sources.own
    assert (first.name, first.path, first.level_of_theory) == ("mine", "inputs/datasets/mine", None)
    assert (second.name, second.path, second.level_of_theory) == ("round-1", "inputs/datasets/x", "HF")


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": "molecule", "train": 0.9}, r"add up to 1\.1; at most 1\.0"),
        ({"by": "rmd17", "train": 0.9, "validation": 0.2, "test": 0.0}, r"add up to 1\.1"),
        ({"by": "espaloma", "train": 0.7, "validation": 0.2}, r"published recipe is 0\.8, 0\.1 and 0\.1"),
        ({"by": "frame", "train": 1.5}, "less than or equal to 1"),
        ({"by": "frame", "train": -1}, "greater than or equal to 0"),
        ({"by": "frame", "train": "0.8"}, "valid number"),
        ({"by": "block", "gap": 1.0}, "less than 1"),
        ({"by": "block", "stretches": 0}, "greater than or equal to 1"),
        ({"by": "scaffold"}, "Input should be 'molecule', 'frame', 'block', 'rmd17' or 'espaloma'"),
    ],
)
def test_rules_for_splitting_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitRule(source="xtb", **values)


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ({"by": "molecule"}, (0.8, 0.1, 0.1)),
        ({"by": "espaloma"}, (0.8, 0.1, 0.1)),
        ({"by": "molecule", "train": 0.7, "validation": 0.2, "test": 0.1}, (0.7, 0.2, 0.1)),
        ({"by": "frame", "train": 1, "validation": 0, "test": 1.0}, (1, 0, 1.0)),
        ({"by": "rmd17", "train": 0.95, "validation": 0.05, "test": 1.0}, (0.95, 0.05, 1.0)),
    ],
)
def test_counts_stay_counts_and_fractions_fractions(values: dict[str, Any], shares: tuple[float, ...]) -> None:
    rule = SplitRule(source="xtb", **values)
    assert shares_of(rule) == shares
    assert [type(share) for share in shares_of(rule)] == [type(share) for share in shares]
