"""What a rule for splitting may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pesfit.params.split import SplitRule


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
def test_refused(values: dict[str, Any], message: str) -> None:
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
    assert rule.shares == shares
    assert [type(share) for share in rule.shares] == [type(share) for share in shares]
