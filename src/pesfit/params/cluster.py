"""Section `cluster`, for `04_cluster`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pesfit.params.base import MaxFailed


class Cluster(MaxFailed):
    """Which conformers are kept as representatives of those like them."""

    sources: tuple[str, ...] = Field(
        ("espaloma", "xtb/conformers"),
        description="Sources that are clustered (`espaloma` stands for all its subsets); others pass through as they are.",
    )
    cutoff_angstrom: float = Field(
        0.25,
        gt=0.0,
        le=10.0,
        description="Conformers at most this RMSD apart, in Å, are neighbors. In a molecule of a few heavy atoms vibrations alone "
        "move these less than 0.25 Å: to keep distorted geometries of small molecules, compare all atoms or lower it.",
    )
    heavy_atoms: bool = Field(
        True, description="Compare heavy atoms only (all atoms where a molecule has fewer than 3 heavy ones)."
    )
    symmetry: bool = Field(
        False,
        description="Take the lowest RMSD over the molecule's symmetry-equivalent atom orders, of which 256 are tried at most.",
    )
    representative: Literal["lowest_energy", "centroid"] = Field(
        "lowest_energy",
        description="Which member of a cluster is kept: the one lowest in energy, or the one with most neighbors.",
    )
