"""Section `sources`: which data go in. Read by `01_download` and `02_convert`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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


class Sources(Section):
    """Which data go in; an empty list leaves a source out."""

    espaloma: tuple[EspalomaSubset, ...] = Field((), description="Subsets of the Espaloma 0.3.0 record (Zenodo 8150601).")
    rmd17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the revised MD17 archive.")
    md17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the original MD17 data (its labels are noisy).")
    xtb: bool = Field(True, description="Build a set of small molecules on this machine, labelled with GFN2-xTB; no download.")
