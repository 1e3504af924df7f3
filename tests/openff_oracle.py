"""Molecules parameterized by OpenFF Interchange and evaluated by OpenMM: what our own parameters and energies are held against.

Nothing here uses `pesfit.parameterize` or `pesfit.potentials`, so that it stays an independent source.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import openff.toolkit
import openmm
from openff.interchange import Interchange
from openff.units import Quantity
from openmm import unit

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import COLUMNS, ForceField, ParameterTable, Topology

FORCE_FIELD = "openff_unconstrained-2.1.0.offxml"

SMILES = (
    "C",
    "CCO",
    "CC#N",
    "CC#CC",
    "c1ccccc1",
    "CC(=O)NC",
    "O=[N+]([O-])c1ccccc1",
    "CS(C)=O",
    "COP(=O)([O-])OC",
    "NC(N)=[NH2+]",
    "c1c[nH]cn1",
    "C1CC1",
    "FC(Cl)(Br)I",
    "CS(=O)(=O)Nc1ccsc1",
    "CC(=O)N[C@@H](C)C(=O)NC",
    "C=CC=O",
)
"""Small molecules that need every kind of term: linear groups, rings of three to six atoms, ions, halogens, S and P, impropers."""

_TERMS = {"Bonds": "bond", "Angles": "angle", "ProperTorsions": "proper", "ImproperTorsions": "improper"}


@cache
def sage() -> openff.toolkit.ForceField:
    """The unconstrained OpenFF 2.1.0, read once."""
    return openff.toolkit.ForceField(FORCE_FIELD)


@dataclass(frozen=True)
class OracleMolecule:
    """A molecule as Interchange parameterizes it.

    Attributes:
        interchange: from which OpenMM systems are made.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_conformers, n_atoms, 3).
        charges: [e], shape (n_atoms,).
    """

    interchange: Interchange
    atomic_numbers: LongArray
    coords: FloatArray
    charges: FloatArray

    @property
    def smiles(self) -> str:
        """Mapped SMILES."""
        molecule = next(iter(self.interchange.topology.molecules))
        return str(molecule.to_smiles(mapped=True, explicit_hydrogens=True))


@cache
def molecule(smiles: str, n_conformers: int = 2, jitter: float = 0.05, seed: int = 1) -> OracleMolecule:
    """Parameterize a molecule with Gasteiger charges and make strained conformers, once: its arrays are read-only.

    Args:
        smiles: with or without map numbers.
        n_conformers: how many; all are jittered copies of one embedding.
        jitter: [Å], standard deviation of the displacement of each coordinate.
        seed: of the displacements.
    """
    found = openff.toolkit.Molecule.from_smiles(smiles, allow_undefined_stereo=True)
    found.assign_partial_charges("gasteiger")
    found.generate_conformers(n_conformers=1)
    coords = found.conformers[0].m_as("angstrom")[None] + np.random.default_rng(seed).normal(
        scale=jitter, size=(n_conformers, found.n_atoms, 3)
    )
    made = parameterized(found, coords, found.partial_charges.m_as("elementary_charge"))
    for array in (made.atomic_numbers, made.coords, made.charges):
        array.setflags(write=False)
    return made


def mapped_molecule(smiles: str, coords: FloatArray, charges: FloatArray) -> OracleMolecule:
    """Parameterize a molecule whose atoms are in the order of its map numbers.

    Args:
        smiles: mapped.
        coords: [Å], shape (n_conformers, n_atoms, 3).
        charges: [e], shape (n_atoms,).
    """
    return parameterized(openff.toolkit.Molecule.from_mapped_smiles(smiles, allow_undefined_stereo=True), coords, charges)


def parameterized(found: openff.toolkit.Molecule, coords: FloatArray, charges: FloatArray) -> OracleMolecule:
    """Parameterize an OpenFF molecule with these charges."""
    found.partial_charges = Quantity(charges, "elementary_charge")
    with warnings.catch_warnings():
        # Interchange looks at every object alive, and torch has one that warns when it is looked at.
        warnings.filterwarnings("ignore", message=".*reduce_op.*", category=FutureWarning)
        interchange = Interchange.from_smirnoff(sage(), found.to_topology(), charge_from_molecules=[found])
    assigned = interchange["Electrostatics"].charges
    return OracleMolecule(
        interchange,
        np.array([atom.atomic_number for atom in found.atoms]),
        coords,
        np.array([assigned[key].m_as("elementary_charge") for key in sorted(assigned, key=lambda key: key.atom_indices)]),
    )


def tables_and_topologies(molecules: list[OracleMolecule]) -> tuple[ForceField, list[Topology]]:
    """Put what Interchange assigned into our form; tables hold the parameters in use alone, in the order of first use."""
    rows: dict[str, dict[tuple[str, int], int]] = {handler: {} for handler in COLUMNS}
    values: dict[str, list[list[float]]] = {handler: [] for handler in COLUMNS}

    def index(interchange: Interchange, handler: str, key: Any) -> int:
        found = rows[handler].setdefault((key.id, key.mult or 0), len(rows[handler]))
        if found == len(values[handler]):
            parameters = interchange[handler].potentials[key].parameters
            values[handler].append(
                [float(parameters[name].m_as(column_unit)) for name, column_unit in COLUMNS[handler].items()]
            )
        return found

    topologies = [_topology(molecule, index) for molecule in molecules]
    tables = {}
    for handler, columns in COLUMNS.items():
        smirks = tuple(smirks for smirks, _ in rows[handler])
        tables[handler] = ParameterTable(
            handler=handler,
            ids=tuple("" for _ in smirks),
            smirks=smirks,
            mult=np.array([mult for _, mult in rows[handler]], dtype=np.int32),
            values=np.array(values[handler], dtype=np.float64).reshape(-1, len(columns)),
            uses=np.zeros(len(smirks), dtype=np.int64),
        )
    vdw, coulomb = molecules[0].interchange["vdW"], molecules[0].interchange["Electrostatics"]
    return ForceField(FORCE_FIELD, "", tables, vdw.scale_14, coulomb.scale_14), topologies


def _topology(molecule: OracleMolecule, index: Any) -> Topology:
    interchange = molecule.interchange
    terms: dict[str, Any] = {}
    for (handler, name), n_body in zip(_TERMS.items(), (2, 3, 4, 4), strict=True):
        keys = interchange[handler].key_map if handler in interchange.collections else {}
        terms[f"{name}s"] = np.array([key.atom_indices for key in keys], dtype=np.int32).reshape(-1, n_body)
        terms[f"{name}_parameters"] = np.array([index(interchange, handler, key) for key in keys.values()], dtype=np.int32)
    vdw = sorted((key.atom_indices[0], index(interchange, "vdW", value)) for key, value in interchange["vdW"].key_map.items())
    graph = interchange.topology
    return Topology(
        smiles=molecule.smiles,
        connectivity=np.array(
            [[graph.atom_index(atom) for atom in bond.atoms] for bond in graph.bonds], dtype=np.int32
        ).reshape(-1, 2),
        vdw_parameters=np.array([row for _, row in vdw], dtype=np.int32),
        charges=molecule.charges,
        charge_method="dataset",
        **terms,
    )


def openmm_energy_forces(molecule: OracleMolecule) -> tuple[FloatArray, FloatArray]:
    """Evaluate all conformers on OpenMM's Reference platform.

    Returns:
        Energies [kcal/mol], shape (n_conformers,), and forces [kcal/mol/Å], shape (n_conformers, n_atoms, 3).
    """
    context = openmm.Context(
        molecule.interchange.to_openmm_system(combine_nonbonded_forces=True),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    energies, forces = [], []
    for coords in molecule.coords:
        context.setPositions(coords * 0.1)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilocalorie_per_mole))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilocalorie_per_mole / unit.angstrom))
    return np.array(energies), np.array(forces)
