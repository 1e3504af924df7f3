"""The one unit system (kcal/mol, Å, fs, g/mol, e) and the factors that lead into it.

Multiply a value in the named unit by the factor to get the internal unit: `energy * HARTREE` is in kcal/mol.

Factors follow from the CODATA 2018 constants: https://physics.nist.gov/cuu/Constants/ (Tiesinga et al.,
Rev. Mod. Phys. 93, 025010, 2021).
"""

from __future__ import annotations

AVOGADRO = 6.02214076e23  # 1/mol
KCAL = 4184.0  # J, the thermochemical calorie

HARTREE = 4.3597447222071e-18 * AVOGADRO / KCAL
"""kcal/mol in one hartree."""

BOHR = 0.529177210903
"""Å in one bohr."""

EV = 1.602176634e-19 * AVOGADRO / KCAL
"""kcal/mol in one electronvolt."""

KJ = 1.0 / 4.184
"""kcal/mol in one kJ/mol."""

BOLTZMANN = 1.380649e-23 * AVOGADRO / KCAL
"""Boltzmann's constant in kcal/mol/K."""

COULOMB = 1.602176634e-19**2 / (4.0 * 3.141592653589793 * 8.8541878128e-12) * AVOGADRO / KCAL * 1e10
"""Coulomb's constant e²/(4πε₀) in kcal/mol·Å."""

ACCELERATION = KCAL * 1e-7
"""Å/fs² per (kcal/mol/Å)/(g/mol): acceleration = force / mass * ACCELERATION."""

INTERNAL_UNITS = {
    "coords": "angstrom",
    "energy": "kcal/mol",
    "forces": "kcal/mol/angstrom",
    "charges": "elementary_charge",
    "time": "fs",
    "mass": "g/mol",
}
"""Units as data sets name them in the metadata of their tables."""
