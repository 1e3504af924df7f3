"""What a force field may contain: everything else is refused by name, so that no section of a file is ever dropped.

Cutoffs, switching and periodic methods are left aside on purpose: they say nothing about one molecule in vacuum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pesfit.core.exceptions import ForceFieldError
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.patterns import N_TAGS, Pattern

_POTENTIALS = {
    "Bonds": ("harmonic", "(k/2)*(r-length)^2"),
    "Angles": ("harmonic",),
    "ProperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "ImproperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "vdW": ("Lennard-Jones-12-6",),
}

COVERED = (
    *_POTENTIALS,
    "Constraints",
    "Electrostatics",
    "LibraryCharges",
    "ChargeIncrementModel",
    "ToolkitAM1BCC",
    "NAGLCharges",
)
"""Sections that are supported."""

_NAGL_MODEL = "openff-gnn-am1bcc-1.0.0.pt"
_NAGL_SHA256 = "7981e7f5b0b1e424c9e10a40d9e7606d96dcd3dd2b095cb4eeff6829f92238ee"

_INCREMENT_BASES = ("zeros", "formal_charge", "gasteiger", "am1bcc", "am1bccelf10")


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
    for name, attribute, allowed in _settings():
        if name in sections and getattr(sections[name], attribute) not in allowed:
            raise ForceFieldError(
                f"{name} {attribute}={getattr(sections[name], attribute)!r} is not supported; "
                f"allowed: {' or '.join(repr(value) for value in allowed if value is not None)}"
            )


def _settings() -> Iterator[tuple[str, str, tuple[object, ...]]]:
    """Yield section, attribute and the values that are supported."""
    for name, potentials in _POTENTIALS.items():
        yield name, "potential", potentials
    yield "vdW", "combining_rules", ("Lorentz-Berthelot",)
    yield "vdW", "nonperiodic_method", ("no-cutoff",)
    yield "Electrostatics", "nonperiodic_potential", ("Coulomb",)
    yield "Electrostatics", "exception_potential", ("Coulomb",)
    for name in ("vdW", "Electrostatics"):
        for scale, value in (("scale12", 0.0), ("scale13", 0.0), ("scale15", 1.0)):
            yield name, scale, (value,)
    yield "NAGLCharges", "model_file", (_NAGL_MODEL,)
    yield "NAGLCharges", "model_file_hash", (_NAGL_SHA256, None)
    yield "ChargeIncrementModel", "partial_charge_method", _INCREMENT_BASES


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
