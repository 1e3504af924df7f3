"""Section `analyse`, for `09_analyse`."""

from __future__ import annotations

from pydantic import Field

from pesfit.params.base import MaxFailed


class Analyse(MaxFailed):
    """The report: what every fitted potential says of the test set."""

    bootstrap: int = Field(1000, ge=10, le=1_000_000, description="Resamples of the molecules for the intervals of errors.")
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the resamples, and of the points that are drawn of many.")
    worst_molecules: int = Field(
        6, ge=0, le=100, description="How many molecules are drawn, those with the largest force errors; 0 for none."
    )
    energy_window: float = Field(
        5.0, gt=0.0, le=1e6, description="Width of the windows of energy above a molecule's lowest label, kcal/mol."
    )
    energy_windows: int = Field(
        8, ge=1, le=100, description="How many windows errors are told apart by; the last one has no upper end."
    )
    size_bin_atoms: int = Field(5, ge=1, le=10_000, description="Width of the ranges of atoms that errors are told apart by.")
    parity_points: int = Field(
        2000,
        ge=10,
        le=1_000_000,
        description="Points of a parity plot in the files for `dvc plots`; drawn where there are more.",
    )
