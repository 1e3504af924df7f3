"""Names of potentials."""

from __future__ import annotations

from pesfit.report.potential_names import in_order, label_of


def test_potentials_have_one_order() -> None:
    assert in_order(["direct", "other", "gfn2", "direct"]) == ["gfn2", "direct", "other"]
    assert label_of("other") == "other"
