"""Sections `sources`, `download`, `convert`, `parameterize`, `cluster` and `split`, for stages 01 to 05."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pesfit.params.section import MaxFailed, ParamsSection

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


class OwnData(ParamsSection):
    """A data set of the user's own: a folder that `datasets.load_from_disk` opens."""

    name: str = Field(
        min_length=1,
        max_length=64,
        description="Its name in rules and lists of sources, and of its folder in data/arrow: letters, digits, `.`, `_` and `-`.",
    )
    path: str = Field(
        min_length=1,
        description="Folder below inputs/datasets, with the columns of docs/conventions.md, or descent's alone: smiles, coords, energy, "
        "forces. `cp -rs /absolute/path/of/folder inputs/datasets/` links the files of one that lies elsewhere; DVC notices changes.",
    )
    level_of_theory: str | None = Field(
        None, min_length=1, description="Of its labels; null where the data set itself names it, as ours do."
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("expected letters, digits, `.`, `_` and `-`, the first a letter or digit")
        if name in BUILT_IN:
            raise ValueError(f"is the name of a source of the pipeline; expected another than {', '.join(BUILT_IN)}")
        return name


class Sources(ParamsSection):
    """Data that go in; an empty list leaves a source out."""

    espaloma: tuple[EspalomaSubset, ...] = Field((), description="Subsets of the Espaloma 0.3.0 record (Zenodo 8150601).")
    rmd17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the revised MD17 archive.")
    md17: tuple[MD17Molecule, ...] = Field((), description="Molecules of the original MD17 data (its labels are noisy).")
    xtb: bool = Field(True, description="Build a set of small molecules on this machine, labeled with GFN2-xTB; no download.")
    own: tuple[OwnData, ...] = Field(
        (),
        description="Data sets of your own, and those that `pesfit label` wrote; each needs a rule in `split.rules`.",
    )

    @field_validator("own")
    @classmethod
    def _check_own(cls, own: tuple[OwnData, ...]) -> tuple[OwnData, ...]:
        names = [data.name for data in own]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there more than once; every data set needs a name of its own")
        return own


class Download(ParamsSection):
    """Transfer of the files that `sources` names."""

    mirror: str | None = Field(
        None,
        description="Folder inputs/mirror or one below it, or http(s) base URL, used instead of the internet; it holds espaloma/*.tar.gz, "
        "rmd17/rmd17.tar.bz2 and md17/*.npz. DVC tracks the content of the folder; that of a URL is compared with known checksums.",
    )
    retries: int = Field(
        5,
        ge=0,
        le=100,
        description="How often in a row a broken transfer is taken up again, each time after a longer pause; bytes that are new start "
        "the count again.",
    )
    timeout_s: float = Field(
        60.0, gt=0.0, le=3600.0, description="Seconds without a byte after which a transfer counts as broken."
    )


class ConvertEspaloma(ParamsSection):
    """Filter of an Espaloma entry's conformers; the defaults are its authors'."""

    energy_window_hartree: float = Field(
        0.1, gt=0.0, le=10.0, description="Keep conformers whose energy is within this many hartree of the entry's lowest."
    )
    min_conformers: int = Field(5, ge=1, le=100_000, description="Leave out an entry with fewer conformers than this.")


class ConvertMD17(ParamsSection):
    """Selection of frames of MD17 and rMD17."""

    max_frames: int | None = Field(
        None, ge=1, le=10_000_000, description="Keep the first so many frames a molecule; null keeps all."
    )


class ConvertXtb(ParamsSection):
    """Data set that is built on this machine."""

    n_molecules: int = Field(40, ge=1, le=40, description="Take the first so many molecules of the built-in list.")
    n_conformers: int = Field(
        4,
        ge=1,
        le=100,
        description="ETKDG conformers a molecule; as many walkers start from the distinct minima they relax to.",
    )
    timestep_fs: float = Field(1.0, gt=0.0, le=5.0, description="Time step of the Langevin dynamics, in fs.")
    n_samples: int = Field(10, ge=1, le=10_000, description="Frames kept from the Langevin dynamics of each walker.")
    sample_interval_fs: float = Field(
        20.0,
        gt=0.0,
        le=10_000.0,
        validate_default=True,
        description="Time between kept frames, in fs; a whole multiple of the time step.",
    )
    equilibration_fs: float = Field(
        50.0, ge=0.0, le=100_000.0, description="Dynamics of each walker before its first interval, in fs."
    )
    temperature_kelvin: float = Field(500.0, gt=0.0, le=5000.0, description="Temperature of the Langevin dynamics, in K.")
    friction_per_ps: float = Field(10.0, gt=0.0, le=1000.0, description="Friction of the Langevin dynamics, in 1/ps.")
    n_trajectory_frames: int = Field(
        2000, ge=10, le=1_000_000, description="Frames of the ethanol trajectory that takes the place of MD17."
    )
    trajectory_interval_fs: float = Field(
        5.0,
        gt=0.0,
        le=10_000.0,
        validate_default=True,
        description="Time between those frames, in fs; a whole multiple of the time step.",
    )
    trajectory_equilibration_fs: float = Field(
        1000.0, ge=0.0, le=1_000_000.0, description="Dynamics of ethanol before its first interval, in fs."
    )
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of conformers and dynamics.")

    @field_validator("sample_interval_fs", "trajectory_interval_fs")
    @classmethod
    def _whole_steps(cls, interval: float, info: ValidationInfo) -> float:
        step = info.data.get("timestep_fs")
        if step is not None and not (interval >= step and math.isclose(interval / step, round(interval / step), rel_tol=1e-9)):
            raise ValueError(f"must be a whole multiple of timestep_fs = {step:g}")
        return interval


class Convert(MaxFailed):
    """Conversion of sources to Arrow data sets."""

    espaloma: ConvertEspaloma = Field(ConvertEspaloma(), description="Filter of the Espaloma entries.")
    rmd17: ConvertMD17 = Field(ConvertMD17(), description="Frames of revised MD17.")
    md17: ConvertMD17 = Field(ConvertMD17(), description="Frames of original MD17.")
    xtb: ConvertXtb = Field(ConvertXtb(), description="The GFN2-xTB set.")


ChargeMethod = Literal["dataset", "nagl", "sqm", "gasteiger"]


class AssignCharges(ParamsSection):
    """Methods for partial charges."""

    methods: tuple[ChargeMethod, ...] = Field(
        ("dataset", "nagl", "sqm"),
        min_length=1,
        description="Tried in this order, the first that works is taken: those that come with the data, the AM1-BCC graph network "
        "of NAGL, AmberTools' sqm where it is on PATH, Gasteiger.",
    )


class Parameterize(MaxFailed):
    """Assignment of SMIRNOFF parameters."""

    force_field: str = Field(
        "openff_unconstrained-2.1.0.offxml",
        min_length=1,
        description="Name of an installed force field, or path of an .offxml file below inputs/force-fields, whose content DVC tracks.",
    )
    charges: AssignCharges = Field(AssignCharges(), description="Partial charges.")


class Minima(MaxFailed):
    """Minima, Hessians and relaxed torsion scans by the method that labeled the data."""

    sources: tuple[str, ...] = Field(
        ("xtb", "espaloma"),
        description="Sources whose molecules get minima and scans (`xtb` stands for all its parts). Those labeled with GFN2-xTB get theirs "
        "made on this machine; of all others they are the minima and torsion drives among the conformers, without Hessians.",
    )
    n_conformers: int = Field(10, ge=1, description="Conformers of each molecule that are embedded and relaxed with GFN2-xTB.")
    n_minima: int = Field(5, ge=1, description="Minima of each molecule that are kept, lowest first.")
    hessians: bool = Field(
        True, description="Differentiate GFN2-xTB's forces at each minimum: harmonic frequencies, and curvatures to fit to."
    )
    max_force: float = Field(0.05, gt=0.0, description="Largest force on an atom at a minimum by GFN2-xTB, in kcal/mol/Å.")
    scans_per_molecule: int = Field(
        2,
        ge=0,
        description="Torsion scans of each molecule: with GFN2-xTB of the rotatable bonds between larger fragments first, in published "
        "data the torsion drives with most points first.",
    )
    scan_points: int = Field(24, ge=6, description="Points of a GFN2-xTB scan, evenly spaced over the full turn.")
    scan_max_force: float = Field(
        0.2, gt=0.0, description="Largest force on an atom at a point of a GFN2-xTB scan, in kcal/mol/Å."
    )
    labeled_max_force: float = Field(
        1.0,
        gt=0.0,
        le=10.0,
        description="Largest force on an atom, in kcal/mol/Å, at a published conformer that counts as a minimum, or, without the forces "
        "along held dihedrals, as a point of a torsion drive. Published optimizations end at about 0.5, in few cases at more.",
    )
    seed: int = Field(2666, ge=0, description="Seed of the embedding.")


class Cluster(MaxFailed):
    """Selection of representative conformers."""

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
    representative: dict[str, Literal["centroid", "lowest_energy"]] = Field(
        {"espaloma": "lowest_energy"},
        description="Member of a cluster that is kept, by source (`espaloma` stands for all its subsets): `centroid`, the one with most "
        "neighbors, where none is given; `lowest_energy` for geometry optimizations alone, whose last step it keeps. Of a simulation it "
        "would keep the coldest geometries, in test sets too, so that errors come out too small.",
    )


Share = Annotated[float, Field(ge=0.0, le=1.0)] | Annotated[int, Field(ge=0)]
"""A fraction (0.8) or a count (950): a number with a decimal point is a fraction."""


_PUBLISHED_ESPALOMA = (0.8, 0.1, 0.1)


class SplitRule(ParamsSection):
    """Division of the data of one source."""

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
    number: int = Field(1, ge=1, le=5, description="Number of the published rMD17 split; used with `by: rmd17`.")
    stretches: int = Field(
        5,
        ge=1,
        le=1000,
        description="Number of stretches that a trajectory is cut into, each with training, validation and test frames in seeded order; "
        "used with `by: block`. One stretch tests on the longest times apart, many on all that the trajectory visits.",
    )
    gap: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05,
        description="Fraction of a trajectory's frames that is left unused, evenly where stretches of different sets meet: frames "
        "next to each other are nearly the same; used with `by: block`, whose shares are of what remains.",
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        # As written, not in binary: 0.7 + 0.2 + 0.1 is 1.
        shares = (self.train, self.validation, self.test)
        parts = shares[:2] if self.by == "rmd17" else shares
        total = sum(Fraction(repr(share)) for share in parts if isinstance(share, float))
        if total > 1:
            raise ValueError(f"the fractions add up to {float(total):g}; at most 1.0 is allowed")
        if self.by == "espaloma" and shares != _PUBLISHED_ESPALOMA:
            raise ValueError(
                "the published recipe is 0.8, 0.1 and 0.1; leave train, validation and test out, or split by molecule"
            )
        return self


class Split(ParamsSection):
    """Training, validation and test set."""

    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the draws.")
    group_by: Literal["molecule", "connectivity"] = Field(
        "connectivity",
        description="Unit that is never divided when splitting by molecule: a molecule, or one with its stereo- and protonation isomers.",
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
