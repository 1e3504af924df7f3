"""Tagged SMARTS patterns."""

from __future__ import annotations

import pytest

from pesfit.core.exceptions import ForceFieldError
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.patterns import Pattern

WATER = "[H:1][O:2][H:3]"


def test_matches_are_by_tag_and_in_every_order() -> None:
    assert set(Pattern("[#1:2]-[#8:1]-[#1:3]").matches(read_mapped_smiles(WATER))) == {(1, 0, 2), (1, 2, 0)}
    assert set(Pattern("[#1]-[#8:1]").matches(read_mapped_smiles(WATER))) == {(1,)}


def test_stereochemistry_is_respected() -> None:
    pattern = Pattern("[#6](-[#9:1])(-[#1])(-[#17])=[#6]", 1)
    assert pattern.matches(read_mapped_smiles(WATER)) == []
    chiral = Pattern("[#9:1]-[C@](-[#17])(-[#35])-[#53]")
    matched = [bool(chiral.matches(read_mapped_smiles(f"[C{tag}:1]([F:2])([Cl:3])([Br:4])[I:5]"))) for tag in ("@", "@@")]
    assert sorted(matched) == [False, True]


@pytest.mark.parametrize(
    ("smarts", "n_tags", "message"),
    [
        ("[#6:1", 1, r"SMARTS '\[#6:1' cannot be read by RDKit"),
        ("[#6]", None, r"has the tags \[\]; expected 1 to 1"),
        ("[#6:1]-[#6:3]", 2, r"has the tags \[1, 3\]; expected 1 to 2"),
        ("[#6:1]-[#6:2]", 3, r"has the tags \[1, 2\]; expected 1 to 3"),
        ("[#6:1]-[#6:1]", 2, r"has the tags \[1, 1\]; expected 1 to 2"),
    ],
)
def test_unusable_patterns_are_refused(smarts: str, n_tags: int | None, message: str) -> None:
    with pytest.raises(ForceFieldError, match=message):
        Pattern(smarts, n_tags)
