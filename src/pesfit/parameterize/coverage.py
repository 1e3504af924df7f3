"""What a force field may contain: everything else is refused by name, so that no section of a file is ever dropped.

Cutoffs, switching and periodic methods are left aside on purpose: they say nothing about one molecule in vacuum.
"""

from __future__ import annotations

from typing import Any

from pesfit.errors import ForceFieldError
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.patterns import N_TAGS, Pattern

_POTENTIALS = {
    "Bonds": ("harmonic", "(k/2)*(r-length)^2"),
    "Angles": ("harmonic",),
    "ProperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "ImproperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "vdW": ("Lennard-Jones-12-6",),
}

COVERED = (*_POTENTIALS, "Constraints", "Electrostatics", "LibraryCharges", "ChargeIncrementModel", "ToolkitAM1BCC", "NAGLCharges")
"""Sections that are supported."""

_NAGL_MODEL = "openff-gnn-am1bcc-1.0.0.pt"
_NAGL_SHA256 = "7981e7f5b0b1e424c9e10a40d9e7606d96dcd3dd2b095cb4eeff6829f92238ee"

INCREMENT_BASES = ("zeros", "formal_charge", "gasteiger", "am1bcc", "am1bccelf10")
"""What `partial_charge_method` of a `ChargeIncrementModel` section may be, in lower case."""


def check_sections(sections: dict[str, Any]) -> None:
    """Check which sections there are, and their settings.

    Args:
        sections: the toolkit's parameter handlers, by name.

    Raises:
        ForceFieldError: naming the section, the attribute, its value and what is allowed.
    """
    for name, section in sections.items():
        # An empty section of virtual sites adds none.
        if name not in COVERED and not (name == "VirtualSites" and not section.parameters):
            raise ForceFieldError(f"section {name} is not supported; supported are {', '.join(COVERED)}")
    for name in ("vdW", "Electrostatics"):
        if name not in sections:
            raise ForceFieldError(f"section {name} is missing; without it atoms that are not bonded would not interact")
    for name, allowed in _POTENTIALS.items():
        if name in sections:
            _check(name, sections[name], "potential", *allowed)
    _check("vdW", sections["vdW"], "combining_rules", "Lorentz-Berthelot")
    _check("vdW", sections["vdW"], "nonperiodic_method", "no-cutoff")
    _check("Electrostatics", sections["Electrostatics"], "nonperiodic_potential", "Coulomb")
    _check("Electrostatics", sections["Electrostatics"], "exception_potential", "Coulomb")
    for name in ("vdW", "Electrostatics"):
        for scale, only in (("scale12", 0.0), ("scale13", 0.0), ("scale15", 1.0)):
            _check(name, sections[name], scale, only)
    if "NAGLCharges" in sections:
        _check("NAGLCharges", sections["NAGLCharges"], "model_file", _NAGL_MODEL)
        _check("NAGLCharges", sections["NAGLCharges"], "model_file_hash", _NAGL_SHA256, None)
    if "ChargeIncrementModel" in sections:
        method = sections["ChargeIncrementModel"].partial_charge_method
        if str(method).lower() not in INCREMENT_BASES:
            raise ForceFieldError(
                f"ChargeIncrementModel partial_charge_method={method!r} is not supported; allowed: {', '.join(INCREMENT_BASES)}"
            )


def _check(name: str, section: Any, attribute: str, *allowed: float | str | None) -> None:
    value = getattr(section, attribute)
    if value not in allowed:
        raise ForceFieldError(f"{name} {attribute}={value!r} is not supported; allowed: {' or '.join(map(repr, allowed))}")


def check_constraints(file_name: str, constraints: tuple[tuple[str, str], ...]) -> None:
    """Refuse a force field that holds bonds to hydrogen at fixed length, as the plain Sage files do.

    Rigid water is allowed here: the unconstrained files have it too, and it concerns water alone, which is refused as a molecule.

    Args:
        file_name: such as `openff-2.1.0.offxml`.
        constraints: id and SMIRKS of each.

    Raises:
        ForceFieldError: naming the constraint and, by its name, the unconstrained force field.
    """
    methane = read_mapped_smiles("[C:1]([H:2])([H:3])([H:4])[H:5]")
    for label, smirks in constraints:
        if Pattern(smirks, N_TAGS["Constraints"]).matches(methane):
            twin = file_name.replace("openff-", "openff_unconstrained-", 1)
            hint = f": {twin}" if twin != file_name else ""
            raise ForceFieldError(
                f"constraint {label or smirks} ({smirks}) fixes bonds to hydrogen, which then have no energy; use the unconstrained "
                f"force field{hint}"
            )
