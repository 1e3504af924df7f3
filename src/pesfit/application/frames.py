"""Evaluated geometries as text for a terminal, and as extxyz in the units of ASE: eV, Å, eV/Å."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pesfit.application.predict import EvaluatedGeometry
from pesfit.core.arrays import FloatArray
from pesfit.core.units import EV

OUTSIDE = (
    "outside of the training domain: the force on some atom is more uncertain than on nearly all of the model's training data"
)


def table(model: str, evaluated: Sequence[EvaluatedGeometry]) -> Iterator[str]:
    """Yield lines: for each geometry its energy, and a line for each atom with its position and the force on it.

    Args:
        model: name of the model.
        evaluated: at least one.
    """
    from rdkit import Chem

    yield f"# {model}: energies in kcal/mol, forces F in kcal/mol/Å, positions in Å; ± and s are standard deviations"
    symbols = Chem.GetPeriodicTable()
    for of in evaluated:
        charges = f"; charges from {of.charge_method}" if of.charge_method else ""
        yield f"# {of.geometry.where}{charges}"
        std = of.std
        yield f"energy           {_with(of.energy, None if std is None else std.energy)}"
        yield f"relative energy  {_with(of.relative_energy, None if std is None else std.relative_energy)}"
        for handler, energy in of.by_term.items():
            yield f"  {handler:<18}{energy:12.4f}"
        if std is not None and std.outside_domain:
            yield OUTSIDE
        names = ["x", "y", "z", "Fx", "Fy", "Fz"] + (["sFx", "sFy", "sFz"] if std is not None else [])
        yield "  " + "".join(f"{name:>11}" for name in names)
        for i, number in enumerate(of.geometry.atomic_numbers):
            values = [*of.geometry.coords[i], *of.forces[i], *([] if std is None else std.forces[i])]
            yield f"{symbols.GetElementSymbol(int(number)):<2}" + "".join(f"{value:11.4f}" for value in values)


def _with(value: float, std: float | None) -> str:
    return f"{value:.4f}" + ("" if std is None else f" ± {std:.4f}")


def write_frame(
    stream: TextIO,
    model: str,
    of: EvaluatedGeometry,
    masses: FloatArray | None = None,
    velocities: FloatArray | None = None,
    **info: Any,
) -> None:
    """Append a frame, which `ase.io.read` gives back with energy, forces and charges in its calculator.

    Standard deviations are `energy_std`, `relative_energy_std` [eV], the column `forces_std` [eV/Å], and `outside_domain` where it is
    known; energies of SMIRNOFF terms are `energy_<term>` [eV].

    Args:
        stream: the file.
        model: name of the model.
        of: what is written.
        masses: [g/mol], shape (n_atoms,); None without velocities.
        velocities: [Å/fs], shape (n_atoms, 3).
        info: further properties of the frame.
    """
    import ase
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = ase.Atoms(numbers=of.geometry.atomic_numbers, positions=of.geometry.coords, masses=masses)
    properties = info | {
        "model": model,
        "relative_energy": of.relative_energy / EV,
        "smiles": of.geometry.smiles,
        "charges_from": of.charge_method,
        **{f"energy_{handler}": energy / EV for handler, energy in of.by_term.items()},
    }
    atoms.info.update({key: value for key, value in properties.items() if value is not None})
    if of.std is not None:
        atoms.info["energy_std"] = of.std.energy / EV
        atoms.info["relative_energy_std"] = of.std.relative_energy / EV
        atoms.arrays["forces_std"] = of.std.forces / EV
        if of.std.outside_domain is not None:
            atoms.info["outside_domain"] = of.std.outside_domain
    if masses is not None and velocities is not None:
        atoms.set_momenta(masses[:, None] * velocities / ase.units.fs)  # type: ignore[no-untyped-call]
    results: dict[str, float | FloatArray] = {"energy": of.energy / EV, "forces": of.forces / EV}
    if of.charges is not None:
        results["charges"] = of.charges
    atoms.calc = SinglePointCalculator(atoms, **results)  # type: ignore[no-untyped-call]
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    stream.write(text.getvalue())  # in one piece, so that Ctrl-C does not leave half a frame
