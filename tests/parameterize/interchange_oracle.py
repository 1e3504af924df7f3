"""Parameters that openff-interchange assigns to a molecule, in a form that can be compared term by term."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import openff.toolkit
from openff.interchange import Interchange
from openff.units import Quantity

from pesfit.data.topology import COLUMNS, ForceField
from pesfit.parameterize.assign import AssignedTerms

Assignment = dict[tuple[str, tuple[int, ...], int], tuple[str, tuple[float, ...]]]
"""SMIRKS and values of each term, by section, atoms and index of the periodicity."""


@cache
def toolkit_force_field(name: str) -> openff.toolkit.ForceField:
    """Read a force field with the toolkit, once."""
    return openff.toolkit.ForceField(name)


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Hide what is alive from Interchange, which looks at every object on each call and takes twice as long for it."""
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            # One of torch's objects warns when it is looked at.
            warnings.filterwarnings("ignore", message=".*reduce_op.*", category=FutureWarning)
            yield
    finally:
        gc.unfreeze()


def interchange(force_field: openff.toolkit.ForceField, smiles: str, *, allow_undefined_stereo: bool = False) -> Interchange:
    """Parameterize a mapped SMILES; charges are not looked at, so that preset ones are as good as any."""
    molecule = openff.toolkit.Molecule.from_mapped_smiles(smiles, allow_undefined_stereo=allow_undefined_stereo)
    uniform = np.full(molecule.n_atoms, molecule.total_charge.m / molecule.n_atoms)
    molecule.partial_charges = Quantity(uniform, "elementary_charge")
    return Interchange.from_smirnoff(force_field, [molecule], charge_from_molecules=[molecule])


def assigned_by_interchange(found: Interchange) -> Assignment:
    """Return every term of bonds, angles, torsions and vdW."""
    terms: Assignment = {}
    for handler, columns in COLUMNS.items():
        if handler not in found.collections:
            continue
        collection = found.collections[handler]
        for key, potential in collection.key_map.items():
            values: Mapping[str, Any] = collection.potentials[potential].parameters
            where = (handler, tuple(key.atom_indices), getattr(key, "mult", None) or 0)
            terms[where] = (potential.id, tuple(values[column].m_as(unit) for column, unit in columns.items()))
    return terms


def assigned_by_us(force_field: ForceField, terms: Mapping[str, AssignedTerms]) -> Assignment:
    """Return the same from what `Assigner.assign` gave."""
    assignment: Assignment = {}
    for handler, found in terms.items():
        table = force_field.tables[handler]
        for atoms, row in zip(found.atoms.tolist(), found.parameters.tolist(), strict=True):
            where = (handler, tuple(atoms), int(table.mult[row]))
            assert where not in assignment, f"{where} is there twice"
            assignment[where] = (table.smirks[row], tuple(table.values[row].tolist()))
    return assignment


def mapped(smiles: str) -> str:
    """Give a SMILES map numbers and explicit hydrogens, atoms in the toolkit's order."""
    return str(openff.toolkit.Molecule.from_smiles(smiles).to_smiles(mapped=True))
