"""Section `convert`, for `02_convert`."""

from __future__ import annotations

import math

from pydantic import Field, ValidationInfo, field_validator

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
        2000, ge=10, le=1_000_000, description="Frames of the ethanol trajectory that plays MD17's role."
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
    """How sources become Arrow data sets."""

    espaloma: ConvertEspaloma = Field(ConvertEspaloma(), description="Filter of the Espaloma entries.")
    rmd17: ConvertMD17 = Field(ConvertMD17(), description="Frames of revised MD17.")
    md17: ConvertMD17 = Field(ConvertMD17(), description="Frames of original MD17.")
    xtb: ConvertXtb = Field(ConvertXtb(), description="The GFN2-xTB set.")
