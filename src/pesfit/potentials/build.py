"""The one place that knows all families of potentials by name; what is above sees `Potential` alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pesfit.potentials.base import Potential
from pesfit.topology import ForceField

if TYPE_CHECKING:
    from pesfit.potentials.painn import PaiNNPotential

Engine = Literal["pesfit", "smee"]


def build_smirnoff(force_field: ForceField, engine: Engine = "pesfit") -> Potential:
    """Make the potential of a SMIRNOFF force field.

    Args:
        force_field: with the parameters; batches must come with terms that index its tables.
        engine: what evaluates it: our own code in float64, or smee in float32 where it is installed.

    Raises:
        ForceFieldError: where the force field is not supported.
        ParamsError: where smee is asked for and cannot be imported.
    """
    if engine == "smee":
        from pesfit.potentials.smee_potential import SmeePotential

        return SmeePotential(force_field)
    from pesfit.potentials.smirnoff import SmirnoffPotential

    return SmirnoffPotential(force_field)


def build_gfn2() -> Potential:
    """Make the potential of GFN2-xTB; batches must come with the total charges of ions."""
    from pesfit.potentials.gfn2_potential import Gfn2Potential

    return Gfn2Potential()


def load_learned(folder: Path | str) -> PaiNNPotential:
    """Read a trained network, of either variant, as stage 07 saves it.

    Args:
        folder: such as `outputs/learned/conservative`.

    Raises:
        DataError: where a file is missing, damaged, or has another format version.
    """
    from pesfit.potentials.painn import load_painn

    return load_painn(folder).eval()
