"""Sections `rollout`, `benchmark` and `analyse`, for the stages of these names."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pesfit.params.section import MaxFailed, ParamsSection

_Temperature = Annotated[float, Field(gt=0.0, le=10_000.0)]
_Stretch = Annotated[float, Field(gt=0.0, le=10.0)]


class Probes(ParamsSection):
    """Hot dynamics and stretched bonds, labeled with GFN2-xTB, to see whether uncertainties tell them from the test set."""

    temperatures_kelvin: tuple[_Temperature, ...] = Field(
        (1000.0, 1500.0),
        description="Temperatures of GFN2-xTB Langevin dynamics from test conformers, K; none for no dynamics.",
    )
    replicas: int = Field(2, ge=1, le=10_000, description="Replicas of each molecule at each temperature.")
    frames: int = Field(32, ge=1, le=1_000_000, description="Frames of each replica.")
    timestep_fs: float = Field(1.0, gt=0.0, le=10.0, description="Time step of the dynamics, fs.")
    frame_fs: float = Field(20.0, gt=0.0, le=1e6, description="Time between frames, fs.")
    equilibration_fs: float = Field(100.0, ge=0.0, le=1e9, description="Left out at the start of each replica, fs.")
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


PotentialName = Literal["smirnoff-initial", "smirnoff", "conservative", "direct", "gfn2"]


class Nve(ParamsSection):
    """Velocity Verlet (NVE), where drift is measured."""

    length_fs: float = Field(1000.0, gt=0.0, le=1e9, description="Length of each replica, fs.")


class Nvt(ParamsSection):
    """Langevin dynamics by BAOAB (NVT), where temperature and distances are measured."""

    length_fs: float = Field(1000.0, gt=0.0, le=1e9, description="Length of each replica, fs.")
    equilibration_fs: float = Field(
        250.0, ge=0.0, le=1e9, description="Left out of temperature and distances at the start, fs."
    )
    friction_per_ps: float = Field(10.0, gt=0.0, le=1000.0, description="Friction, 1/ps.")


class Rollout(MaxFailed):
    """Short simulations with each potential."""

    potentials: tuple[PotentialName, ...] = Field(
        ("gfn2", "conservative", "direct", "smirnoff", "smirnoff-initial"),
        description="Potentials to simulate: GFN2-xTB itself, both networks, SMIRNOFF after and before the fit.",
    )
    sources: tuple[str, ...] = Field(
        ("xtb", "rmd17", "md17", "espaloma"), description="Sources of the molecules; `espaloma` stands for all its subsets."
    )
    molecules_per_source: int = Field(1, ge=1, le=100_000, description="Number at most: the first that have test conformers.")
    replicas: int = Field(8, ge=1, le=100_000, description="Replicas of each molecule, from test conformers in turn.")
    gfn2_replicas: int = Field(
        2,
        ge=1,
        le=100_000,
        description="Replicas, the first of these, with GFN2-xTB itself, which takes a thousand times as long.",
    )
    timestep_fs: float = Field(0.5, gt=0.0, le=10.0, description="Time step, fs.")
    temperature_kelvin: float = Field(
        500.0, gt=0.0, le=10_000.0, description="Temperature of the first velocities and of the thermostat, K."
    )
    nve: Nve = Field(Nve(), description="NVE: velocity Verlet.")
    nvt: Nvt = Field(Nvt(), description="NVT: Langevin dynamics.")
    observe_fs: float = Field(5.0, gt=0.0, le=1e6, description="Time between checks of energies and bonds, fs.")
    frame_fs: float = Field(20.0, gt=0.0, le=1e6, description="Time between stored frames, fs.")
    max_stretch_angstrom: float = Field(
        0.5,
        gt=0.0,
        le=100.0,
        description="A replica is unstable, and stopped, when a bond is further from its reference mean, Å.",
    )
    max_energy_change: float = Field(
        20.0,
        gt=0.0,
        le=1e6,
        description="A replica is stopped when its total energy is further from its first value, kcal/mol/atom.",
    )
    distance_bin_angstrom: float = Field(0.05, gt=0.0, le=1.0, description="Width of the bins of interatomic distances, Å.")
    min_reference_frames: int = Field(
        100,
        ge=2,
        le=10_000_000,
        description="Distances are compared where the reference data have at least so many conformers.",
    )
    label_frames: int = Field(
        32,
        ge=0,
        le=10_000_000,
        description="Frames of each molecule whose forces are compared with the labels' method, where it is GFN2-xTB.",
    )
    probes: Probes = Field(Probes(), description="Conformers that are out of distribution on purpose.")
    shards: int = Field(2, ge=1, le=10_000, description="Groups the molecules are dealt into; each is simulated as one graph.")
    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of velocities and noise; every potential gets the same.")

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        for whole, part in (
            ("observe_fs", "timestep_fs"),
            ("frame_fs", "observe_fs"),
            ("nve.length_fs", "frame_fs"),
            ("nvt.length_fs", "frame_fs"),
        ):
            long, short = self._time(whole), self._time(part)
            if abs(long / short - round(long / short)) > 1e-6 or round(long / short) < 1:
                raise ValueError(f"{whole} = {long:g} is not a whole number of times {part} = {short:g}")
        if not self.nvt.equilibration_fs < self.nvt.length_fs:
            raise ValueError(
                f"nvt.equilibration_fs = {self.nvt.equilibration_fs:g}; less than nvt.length_fs = {self.nvt.length_fs:g} is needed"
            )
        return self

    def _time(self, key: str) -> float:
        section, _, name = key.rpartition(".")
        return float(getattr(getattr(self, section) if section else self, name))


class Benchmark(MaxFailed):
    """Minima, frequencies and torsion scans with each potential."""

    potentials: tuple[PotentialName, ...] = Field(
        ("gfn2", "smirnoff-initial", "smirnoff", "conservative", "direct"),
        description="Potentials to compare; GFN2-xTB, whose minima they are, for a check that it returns to them.",
    )
    max_steps: int = Field(
        300,
        ge=1,
        le=1_000_000,
        description="Evaluations in each relaxation at most; one that has not ended then counts as failed.",
    )
    network_scan_step: int = Field(
        4,
        ge=1,
        le=1000,
        description="Networks, which take ten times as long as force fields, relax every so many-th point of each scan.",
    )


class Analyse(MaxFailed):
    """The report: every fitted potential evaluated on the test set."""

    seed: int = Field(2666, ge=0, le=2**31 - 1, description="Seed of the points of parity plots.")
    worst_molecules: int = Field(
        6, ge=0, le=100, description="Molecules whose structure is drawn, those with the largest force errors; 0 for none."
    )
    energy_window: float = Field(
        5.0, gt=0.0, le=1e6, description="Width of the windows of energy above a molecule's lowest label, kcal/mol."
    )
    energy_windows: int = Field(
        8, ge=1, le=100, description="Number of windows that errors are listed for; the last one has no upper end."
    )
    size_bin_atoms: int = Field(
        5, ge=1, le=10_000, description="Width of the ranges of numbers of atoms that errors are listed for."
    )
    parity_points: int = Field(
        2000,
        ge=10,
        le=1_000_000,
        description="Points of a parity plot in the files for `dvc plots`; drawn where there are more.",
    )
