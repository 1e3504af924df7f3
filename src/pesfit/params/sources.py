"""Section `sources`: which data go in. Read by `01_download` and `02_convert`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from pesfit.params.base import Section

EspalomaSubset = Literal[
    "duplicated-isomeric-smiles-merge",
    "gen2-opt",
    "gen2-torsion",
    "pepconf-opt",
    "protein-torsion",
    "rna-diverse",
    "rna-nucleoside",
    "rna-trinucleotide",
    "spice-des-monomers",
    "spice-dipeptide",
    "spice-pubchem",
]
MD17Molecule = Literal[
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
]

BUILT_IN = ("espaloma", "rmd17", "md17", "xtb")
"""Sources the pipeline fetches or makes itself."""


class OwnData(Section):
    """A data set of the user's own: a folder that `datasets.load_from_disk` opens."""

    name: str = Field(
        min_length=1,
        max_length=64,
        description="What rules and lists of sources call it, and its folder in data/arrow: letters, digits, `.`, `_` and `-`.",
    )
    path: str = Field(
        min_length=1,
        description="Folder with the columns of docs/conventions.md, or descent's alone: smiles, coords, energy, forces. A relative one is "
        "taken from the top of the repository. DVC follows this entry, not what the folder holds: give changed data another name.",
    )
    level_of_theory: str | None = Field(
        None, min_length=1, description="Of its labels; null where the data set itself says it, as ours do."
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("expected letters, digits, `.`, `_` and `-`, the first a letter or digit")
        if name in BUILT_IN:
            raise ValueError(f"is the name of a source of the pipeline; expected another than {', '.join(BUILT_IN)}")
        return name


class Sources(Section):
    """Which data go in; an empty list leaves a source out."""

    espaloma: tuple[EspalomaSubset, ...] = Field((), description="Subsets of the Espaloma 0.3.0 record (Zenodo 8150601).")
    rmd17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the revised MD17 archive.")
    md17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the original MD17 data (its labels are noisy).")
    xtb: bool = Field(True, description="Build a set of small molecules on this machine, labelled with GFN2-xTB; no download.")
    own: tuple[OwnData, ...] = Field(
        (),
        description="Data sets of your own, and those that `python -m pesfit label` wrote; each needs a rule in `split.rules`.",
    )

    @field_validator("own")
    @classmethod
    def _check_own(cls, own: tuple[OwnData, ...]) -> tuple[OwnData, ...]:
        names = [data.name for data in own]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there more than once; every data set needs a name of its own")
        return own
