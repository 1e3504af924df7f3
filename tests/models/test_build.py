"""Which family a name stands for."""

from __future__ import annotations

from pesfit.models.build import build_smirnoff
from pesfit.smirnoff.potential import SmirnoffPotential
from tests import openff_oracle


def test_our_own_engine_is_the_default() -> None:
    force_field, _ = openff_oracle.tables_and_topologies([openff_oracle.molecule("C")])
    assert isinstance(build_smirnoff(force_field), SmirnoffPotential)
