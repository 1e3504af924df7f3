"""Potentials that are no files: SMIRNOFF force fields by either engine, and GFN2-xTB. `models` opens what the pipeline fitted."""

from __future__ import annotations

from typing import Literal

from pesfit.data.topology import ForceField
from pesfit.potentials.base import Potential

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
        from pesfit.smirnoff.smee_potential import SmeePotential

        return SmeePotential(force_field)
    from pesfit.smirnoff.potential import SmirnoffPotential

    return SmirnoffPotential(force_field)


def build_gfn2() -> Potential:
    """Make the potential of GFN2-xTB; batches must come with the total charges of ions."""
    from pesfit.potentials.gfn2_potential import Gfn2Potential

    return Gfn2Potential()
