"""Part `probes` of section `rollout`: conformers on purpose outside of what potentials are trained on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pesfit.params.base import Section

_Temperature = Annotated[float, Field(gt=0.0, le=10_000.0)]
_Stretch = Annotated[float, Field(gt=0.0, le=10.0)]


class Probes(Section):
    """Hot dynamics and stretched bonds, labelled with GFN2-xTB, to see whether deviations tell them from the test set."""

    temperatures_kelvin: tuple[_Temperature, ...] = Field(
        (1000.0, 1500.0),
        description="Temperatures of GFN2-xTB Langevin dynamics from test conformers, K; none for no dynamics.",
    )
    replicas: int = Field(2, ge=1, le=10_000, description="Replicas of each molecule at each temperature.")
    frames: int = Field(32, ge=1, le=1_000_000, description="Frames of each replica.")
    timestep_fs: float = Field(1.0, gt=0.0, le=10.0, description="Time step of the dynamics, fs.")
    frame_fs: float = Field(20.0, gt=0.0, le=1e6, description="Time between frames, fs.")
    equilibration_fs: float = Field(100.0, ge=0.0, le=1e9, description="What is left out at the start of each replica, fs.")
    friction_per_ps: float = Field(10.0, gt=0.0, le=1000.0, description="Friction, 1/ps.")
    max_stretch_angstrom: float = Field(
        0.5, gt=0.0, le=100.0, description="A replica is cut where a bond is further from its reference mean, Å."
    )
    stretch_angstrom: tuple[_Stretch, ...] = Field(
        (0.2, 0.4), description="By how much one bond of a test conformer is stretched, Å; none for no such conformers."
    )
    conformers: int = Field(
        32, ge=1, le=1_000_000, description="Conformers of each molecule with a stretched bond, each length."
    )
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of velocities and noise.")

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        for name, whole, step in (
            ("frame_fs", self.frame_fs, self.timestep_fs),
            ("equilibration_fs", self.equilibration_fs, self.frame_fs),
        ):
            part = "timestep_fs" if name == "frame_fs" else "frame_fs"
            if abs(whole / step - round(whole / step)) > 1e-6 or (name == "frame_fs" and round(whole / step) < 1):
                raise ValueError(f"{name} = {whole:g} is not a whole number of times {part} = {step:g}")
        return self
