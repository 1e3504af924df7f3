"""Frames as extxyz, in the units of ASE: eV, Å, eV/Å."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, TextIO

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from pesfit.application.predict import FrameDeviations
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.units import EV


@dataclass(frozen=True, eq=False)
class Frame:
    """What is written of one conformer.

    Attributes:
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_atoms, 3).
        energy: [kcal/mol].
        forces: [kcal/mol/Å], shape (n_atoms, 3).
        deviations: None where the model has no posterior.
        charges: partial charges, [e], shape (n_atoms,); None where there are none.
        velocities: [Å/fs], shape (n_atoms, 3); None where nothing moves.
        masses: [g/mol], shape (n_atoms,); None where nothing moves.
        info: further properties of the frame, written as they are; None is left out.
    """

    atomic_numbers: IntArray
    coords: FloatArray
    energy: float
    forces: FloatArray
    deviations: FrameDeviations | None = None
    charges: FloatArray | None = None
    velocities: FloatArray | None = None
    masses: FloatArray | None = None
    info: dict[str, Any] = field(default_factory=dict)


def write_frame(stream: TextIO, frame: Frame) -> None:
    """Append a frame, which `ase.io.read` gives back with energy, forces and charges in its calculator.

    Deviations are `energy_std`, `relative_energy_std` [eV], the column `forces_std` [eV/Å], and `outside_domain` where the model knows.
    """
    atoms = ase.Atoms(numbers=frame.atomic_numbers, positions=frame.coords, masses=frame.masses)
    atoms.info.update({key: value for key, value in frame.info.items() if value is not None})
    if frame.deviations is not None:
        atoms.info["energy_std"] = frame.deviations.energy / EV
        atoms.info["relative_energy_std"] = frame.deviations.relative_energy / EV
        atoms.arrays["forces_std"] = frame.deviations.forces / EV
        if frame.deviations.outside_domain is not None:
            atoms.info["outside_domain"] = frame.deviations.outside_domain
    if frame.velocities is not None and frame.masses is not None:
        momenta = np.asarray(frame.masses)[:, None] * frame.velocities / ase.units.fs
        atoms.set_momenta(momenta)  # type: ignore[no-untyped-call]
    results = {"energy": frame.energy / EV, "forces": frame.forces / EV}
    if frame.charges is not None:
        results["charges"] = frame.charges
    atoms.calc = SinglePointCalculator(atoms, **results)  # type: ignore[no-untyped-call]
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    stream.write(text.getvalue())  # in one piece, so that Ctrl-C does not leave half a frame
