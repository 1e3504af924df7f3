"""Small force fields written for a test."""

from __future__ import annotations

from pathlib import Path

SECTIONS = {
    "Bonds": '<Bonds version="0.4" potential="harmonic">'
    '<Bond smirks="[*:1]~[*:2]" id="b1" length="1.5 * angstrom" k="500.0 * kilocalories_per_mole/angstrom**2"/></Bonds>',
    "Angles": '<Angles version="0.3" potential="harmonic">'
    '<Angle smirks="[*:1]~[*:2]~[*:3]" id="a1" angle="109.5 * degree" k="100.0 * kilocalories_per_mole/radian**2"/></Angles>',
    "ProperTorsions": '<ProperTorsions version="0.4"><Proper smirks="[*:1]~[*:2]~[*:3]~[*:4]" id="t1" periodicity1="3" '
    'phase1="0.0 * degree" k1="0.2 * kilocalories_per_mole" idivf1="1.0"/></ProperTorsions>',
    "ImproperTorsions": '<ImproperTorsions version="0.3"><Improper smirks="[*:1]~[#6X3:2](~[*:3])~[*:4]" id="i1" periodicity1="2" '
    'phase1="180.0 * degree" k1="1.1 * kilocalories_per_mole"/></ImproperTorsions>',
    "vdW": '<vdW version="0.4" potential="Lennard-Jones-12-6" combining_rules="Lorentz-Berthelot" scale14="0.5" '
    'periodic_method="cutoff" nonperiodic_method="no-cutoff">'
    '<Atom smirks="[*:1]" id="n1" epsilon="0.1 * kilocalories_per_mole" rmin_half="1.8 * angstrom"/></vdW>',
    "Electrostatics": '<Electrostatics version="0.4" scale14="0.8333333333" periodic_potential="Ewald3D-ConductingBoundary" '
    'nonperiodic_potential="Coulomb" exception_potential="Coulomb"/>',
}


def write_offxml(folder: Path, name: str = "made.offxml", **sections: str | None) -> str:
    """Write a force field of one generic parameter a section, with some sections replaced, added, or, where None, left out."""
    content = "\n".join(text for text in (SECTIONS | sections).values() if text is not None)
    path = folder / name
    path.write_text(
        f'<?xml version="1.0"?>\n<SMIRNOFF version="0.3" aromaticity_model="OEAroModel_MDL">\n{content}\n</SMIRNOFF>\n'
    )
    return str(path)
