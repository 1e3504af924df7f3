"""Section `split`, for `05_split`."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pesfit.params.base import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)] | Annotated[int, Field(ge=0)]
"""A fraction (0.8) or a count (950): a number with a decimal point is a fraction."""


_PUBLISHED_ESPALOMA = (0.8, 0.1, 0.1)


class SplitRule(Section):
    """How the data of one source are divided."""

    source: str = Field(
        min_length=1,
        description="Source the rule is for. `espaloma` stands for all its subsets; shares are then of each of them by itself.",
    )
    by: Literal["molecule", "frame", "block", "rmd17", "espaloma"] = Field(
        description="molecule: whole molecules, drawn at random; one that another rule put into training is never a test molecule. "
        "frame: single conformers of each molecule, drawn at random. block: stretches of each molecule's trajectory. rmd17: the published "
        "split `number`; train and validation are shares of its training frames, test of its test frames. espaloma: the published "
        "recipe (80/10/10 of the molecules, seed 2666, duplicates apart)."
    )
    train: Share = Field(0.8, description="Share of the training set: a fraction (0.8) or a count (950).")
    validation: Share = Field(0.1, description="Share of the validation set: a fraction or a count.")
    test: Share = Field(0.1, description="Share of the test set: a fraction or a count.")
    number: int = Field(1, ge=1, le=5, description="Which published rMD17 split; used with `by: rmd17`.")
    stretches: int = Field(
        5,
        ge=1,
        le=1000,
        description="Into how many stretches a trajectory is cut, each with training, validation and test frames in seeded order; "
        "used with `by: block`. One stretch tests on the longest times apart, many on all that the trajectory visits.",
    )
    gap: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05,
        description="Fraction of a trajectory's frames that is left unused, evenly where stretches of different sets meet: frames "
        "next to each other are nearly the same; used with `by: block`, whose shares are of what remains.",
    )

    @property
    def shares(self) -> tuple[Share, Share, Share]:
        """Shares of training, validation and test set."""
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        # As written, not in binary: 0.7 + 0.2 + 0.1 is 1.
        parts = self.shares[:2] if self.by == "rmd17" else self.shares
        total = sum(Fraction(repr(share)) for share in parts if isinstance(share, float))
        if total > 1:
            raise ValueError(f"the fractions add up to {float(total):g}; at most 1.0 is allowed")
        if self.by == "espaloma" and self.shares != _PUBLISHED_ESPALOMA:
            raise ValueError(
                "the published recipe is 0.8, 0.1 and 0.1; leave train, validation and test out, or split by molecule"
            )
        return self


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
