"""Section `split`, for `05_split`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pesfit.params.base import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)] | Annotated[int, Field(ge=0)]
"""A fraction (0.8) or a count (950): a number with a decimal point is a fraction."""


class SplitRule(Section):
    """How the data of one source are divided."""

    source: str = Field(min_length=1, description="Source the rule is for (`espaloma` stands for all its subsets).")
    by: Literal["molecule", "frame", "block", "rmd17", "espaloma"] = Field(
        description="molecule: whole molecules, drawn at random. frame: single conformers, drawn at random. block: contiguous "
        "stretches of a trajectory. rmd17: the published split `number`. espaloma: the published recipe (80/10/10 of the molecules, "
        "seed 2666, duplicates apart)."
    )
    train: Share = Field(0.8, description="Share of the training set: a fraction (0.8) or a count (950).")
    validation: Share = Field(0.1, description="Share of the validation set: a fraction or a count.")
    test: Share = Field(0.1, description="Share of the test set: a fraction or a count.")
    number: int = Field(1, ge=1, le=5, description="Which published rMD17 split; used with `by: rmd17`.")


class Split(Section):
    """Training, validation and test set."""

    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the draws.")
    group_by: Literal["molecule", "connectivity"] = Field(
        "connectivity",
        description="What stays together when splitting by molecule: the same molecule, or also its stereo- and protonation twins.",
    )
    rules: tuple[SplitRule, ...] = Field(
        (
            SplitRule(source="espaloma", by="molecule"),
            SplitRule(source="xtb/conformers", by="molecule"),
            SplitRule(source="xtb/trajectory", by="block"),
            SplitRule(source="rmd17", by="rmd17", train=950, validation=50, test=1000),
            SplitRule(source="md17", by="block"),
        ),
        min_length=1,
        description="One for each source; the first that fits is used, and a source without one is refused.",
    )
