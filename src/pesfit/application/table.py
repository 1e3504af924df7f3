"""What a model says of geometries, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pesfit.application.predict import Predicted

OUTSIDE = (
    "outside of the training domain: the model is less sure of an atom's force here than on nearly all of its training data"
)


def table(model: str, predicted: Sequence[Predicted]) -> Iterator[str]:
    """Yield lines: for each conformer its energy, and a line for each atom with its position and the force on it.

    Args:
        model: name of the model.
        predicted: at least one.
    """
    yield f"# {model}: energies in kcal/mol, forces F in kcal/mol/Å, positions in Å; ± and s are standard deviations"
    from rdkit import Chem

    symbols = Chem.GetPeriodicTable()
    for of in predicted:
        charges = f"; charges from {of.charge_method}" if of.charge_method else ""
        yield f"# {of.geometry.where}{charges}"
        deviations = of.deviations
        yield f"energy           {_with(of.energy, None if deviations is None else deviations.energy)}"
        yield f"relative energy  {_with(of.relative_energy, None if deviations is None else deviations.relative_energy)}"
        if deviations is not None and deviations.outside_domain:
            yield OUTSIDE
        names = ["x", "y", "z", "Fx", "Fy", "Fz"] + (["sFx", "sFy", "sFz"] if deviations is not None else [])
        yield "  " + "".join(f"{name:>11}" for name in names)
        for i, number in enumerate(of.geometry.atomic_numbers):
            values = [*of.geometry.coords[i], *of.forces[i], *([] if deviations is None else deviations.forces[i])]
            yield f"{symbols.GetElementSymbol(int(number)):<2}" + "".join(f"{value:11.4f}" for value in values)


def _with(value: float, deviation: float | None) -> str:
    return f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
