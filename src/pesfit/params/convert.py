"""Section `convert`, for `02_convert`."""

from __future__ import annotations

from pydantic import Field

from pesfit.params.base import MaxFailed, Section


class ConvertEspaloma(Section):
    """Which conformers of an Espaloma entry are kept; the defaults are its authors'."""

    energy_window_hartree: float = Field(
        0.1, gt=0.0, le=10.0, description="Keep conformers whose energy is within this many hartree of the entry's lowest."
    )
    min_conformers: int = Field(5, ge=1, le=100_000, description="Leave out an entry with fewer conformers than this.")


class ConvertMD17(Section):
    """Which frames of MD17 and rMD17 are kept."""

    max_frames: int | None = Field(
        None, ge=1, le=10_000_000, description="Keep the first so many frames a molecule; null keeps all."
    )


class ConvertXtb(Section):
    """The set that is built on this machine."""

    n_molecules: int = Field(40, ge=1, le=40, description="Take the first so many molecules of the built-in list.")
    n_conformers: int = Field(4, ge=1, le=100, description="ETKDG conformers a molecule, each relaxed and then sampled.")
    n_samples: int = Field(10, ge=1, le=10_000, description="Frames kept from the Langevin dynamics of each conformer.")
    sample_interval_fs: float = Field(20.0, gt=0.0, le=10_000.0, description="Time between kept frames, in fs.")
    temperature_kelvin: float = Field(500.0, gt=0.0, le=5000.0, description="Temperature of the Langevin dynamics, in K.")
    timestep_fs: float = Field(1.0, gt=0.0, le=5.0, description="Time step of the Langevin dynamics, in fs.")
    friction_per_ps: float = Field(10.0, gt=0.0, le=1000.0, description="Friction of the Langevin dynamics, in 1/ps.")
    n_trajectory_frames: int = Field(
        2000, ge=10, le=1_000_000, description="Frames of the ethanol trajectory that plays MD17's role."
    )
    trajectory_interval_fs: float = Field(5.0, gt=0.0, le=10_000.0, description="Time between those frames, in fs.")
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of conformers and dynamics.")


class Convert(MaxFailed):
    """How sources become Arrow data sets."""

    espaloma: ConvertEspaloma = Field(ConvertEspaloma(), description="Filter of the Espaloma entries.")
    rmd17: ConvertMD17 = Field(ConvertMD17(), description="Frames of revised MD17.")
    md17: ConvertMD17 = Field(ConvertMD17(), description="Frames of original MD17.")
    xtb: ConvertXtb = Field(ConvertXtb(), description="The GFN2-xTB set.")
