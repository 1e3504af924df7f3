"""The parameterized molecules that stage 03 stores: one force field, and for each molecule indices into it.

`parameterize` writes these, `potentials`, `fit` and `simulate` read them. Coordinates are never part of a topology.
"""

from __future__ import annotations

from dataclasses import dataclass

from pesfit.arrays import FloatArray, IntArray, LongArray

BONDED_HANDLERS = ("Bonds", "Angles", "ProperTorsions", "ImproperTorsions")

COLUMNS: dict[str, dict[str, str]] = {
    "Bonds": {"k": "kcal/mol/angstrom**2", "length": "angstrom"},
    "Angles": {"k": "kcal/mol/radian**2", "angle": "radian"},
    "ProperTorsions": {"k": "kcal/mol", "periodicity": "dimensionless", "phase": "radian", "idivf": "dimensionless"},
    "ImproperTorsions": {"k": "kcal/mol", "periodicity": "dimensionless", "phase": "radian", "idivf": "dimensionless"},
    "vdW": {"epsilon": "kcal/mol", "sigma": "angstrom"},
}
"""Columns of each handler's parameter table, with their units."""


@dataclass(frozen=True)
class ParameterTable:
    """All parameters of one handler of a force field, in the order of the offxml.

    A torsion with several periodicities is several rows that share `id` and `smirks` and differ in `mult`.

    Attributes:
        handler: key of `COLUMNS`.
        ids: such as `b83`, or "" where the force field gives none; length n_parameters.
        smirks: length n_parameters.
        mult: 0-based index of the periodicity inside its torsion (`k{mult+1}` in the offxml), 0 elsewhere; shape (n_parameters,).
        values: [units of `COLUMNS`], shape (n_parameters, n_columns).
        uses: how many terms of all stored topologies use each parameter, shape (n_parameters,).
    """

    handler: str
    ids: tuple[str, ...]
    smirks: tuple[str, ...]
    mult: IntArray
    values: FloatArray
    uses: LongArray

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `values`."""
        return tuple(COLUMNS[self.handler])

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the columns of `values`."""
        return tuple(COLUMNS[self.handler].values())


@dataclass(frozen=True)
class ForceField:
    """A SMIRNOFF force field as numbers.

    Attributes:
        name: file name it was asked for by.
        offxml: the text of the file, from which a fitted force field is exported.
        tables: by handler; each key of `COLUMNS` is there, with no rows where the force field lacks the section.
        vdw_scale_14: factor on the van der Waals energy of atoms three bonds apart (1-2 and 1-3 pairs are excluded).
        electrostatics_scale_14: the same for the Coulomb energy.
    """

    name: str
    offxml: str
    tables: dict[str, ParameterTable]
    vdw_scale_14: float
    electrostatics_scale_14: float


@dataclass(frozen=True)
class Topology:
    """One molecule's terms. `*_parameters` index the rows of the handler's `ParameterTable`.

    A torsion contributes one row for each of its periodicities. An improper contributes three rows for each periodicity, to be
    evaluated with k / idivf like propers, in the order of the atoms in the row. The central atom, second in the SMIRKS (a, c, b, d),
    is FIRST in these rows: (c, a, b, d), (c, b, d, a), (c, d, a, b), the dihedrals that OpenMM is given
    (https://openforcefield.github.io/standards/standards/smirnoff/#impropertorsions).

    Attributes:
        smiles: mapped SMILES, the identity under which it is stored.
        connectivity: the molecule's bonds (which pairs are 1-2, 1-3 and 1-4 follows from them), shape (n_edges, 2).
        bonds, angles, propers, impropers: atom indices, shapes (n_terms, 2), (n_terms, 3), (n_terms, 4), (n_terms, 4).
        bond_parameters, angle_parameters, proper_parameters, improper_parameters: shape (n_terms,).
        vdw_parameters: one for each atom, shape (n_atoms,).
        charges: [e], shape (n_atoms,); their sum is the total charge exactly.
        charge_method: where the charges come from: `dataset`, `nagl`, `sqm`, `gasteiger`, or `force-field`.
    """

    smiles: str
    connectivity: IntArray
    bonds: IntArray
    bond_parameters: IntArray
    angles: IntArray
    angle_parameters: IntArray
    propers: IntArray
    proper_parameters: IntArray
    impropers: IntArray
    improper_parameters: IntArray
    vdw_parameters: IntArray
    charges: FloatArray
    charge_method: str

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.charges)
