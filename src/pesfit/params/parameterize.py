"""Section `parameterize`, for `03_parameterize`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pesfit.params.base import MaxFailed, Section

ChargeMethod = Literal["dataset", "nagl", "sqm", "gasteiger"]


class Charges(Section):
    """Where partial charges come from."""

    methods: tuple[ChargeMethod, ...] = Field(
        ("dataset", "nagl", "sqm"),
        min_length=1,
        description="Tried in this order, the first that works is taken: those that come with the data, the AM1-BCC graph network "
        "of NAGL, AmberTools' sqm where it is on PATH, Gasteiger.",
    )


class Parameterize(MaxFailed):
    """How SMIRNOFF parameters are assigned."""

    force_field: str = Field(
        "openff_unconstrained-2.1.0.offxml",
        min_length=1,
        description="Name of an installed force field, or path of an .offxml file (from the top of the repository). DVC "
        "notices another path, not another content: give an edited file a new name, or `dvc repro --force 03_parameterize`.",
    )
    charges: Charges = Field(Charges(), description="Partial charges.")
