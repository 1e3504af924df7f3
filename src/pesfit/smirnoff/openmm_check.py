"""A written force field in OpenMM, by the OpenFF toolkit and Interchange: does it give the energies of the fit?"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import ForceField
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exported_charges import ExportedCharges
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows
from pesfit.smirnoff.parameters import AddedPeriodicities
from pesfit.smirnoff.potential import SmirnoffPotential

if TYPE_CHECKING:
    import openmm

_N_CHECKED = 3
"""Molecules, conformers of each, and their size at most, whose energies the written force field is checked with."""
_MAX_CHECKED_ATOMS = 60


_Sample = tuple[str, FloatArray | None, FloatArray, FloatArray]


def samples(
    inputs: FitInputs,
    molecules: Sequence[MoleculeRows],
    extension: AddedPeriodicities,
    fitted: ForceField,
    charges: ExportedCharges,
) -> list[_Sample]:
    """Evaluate the fitted force field on a few molecules: mapped SMILES, charges, coords and energies of each, for `check_energies`."""
    potential, in_file = SmirnoffPotential(fitted), dict((*charges.library, *charges.trained))
    chosen_molecules: dict[int, MoleculeRows] = {}
    for molecule in molecules:
        small = len(inputs.datasets[molecule.dataset][molecule.rows[0]].atomic_numbers) <= _MAX_CHECKED_ATOMS
        if len(chosen_molecules) < _N_CHECKED and small:
            chosen_molecules.setdefault(molecule.topology, molecule)
        if len(chosen_molecules) == _N_CHECKED:
            break
    samples: list[_Sample] = []
    for molecule in chosen_molecules.values():
        record = inputs.datasets[molecule.dataset][molecule.rows[0]]
        topology = extension.extend(inputs.parameterized[molecule.topology])
        given = None if topology.smiles in in_file else topology.charges
        topology = replace(topology, charges=in_file.get(topology.smiles, topology.charges))
        coords = record.coords[:_N_CHECKED]
        numbers = torch.tensor(record.atomic_numbers, dtype=torch.int64)
        with torch.no_grad():
            energy = potential(collate([Conformers(numbers, torch.tensor(coords), Terms.from_topology(topology))])).energy
        samples.append((topology.smiles, given, coords, energy.numpy()))
    return samples


def openmm_system(path: Path, smiles: str, charges: FloatArray | None) -> openmm.System:
    """Build one molecule in vacuum with a written force field, by the OpenFF toolkit and Interchange.

    Args:
        path: the force field.
        smiles: mapped.
        charges: [e], shape (n_atoms,); None for those that the force field itself gives.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openff.interchange import Interchange
        from openff.toolkit import Molecule
        from openff.units import Quantity

        molecule = Molecule.from_mapped_smiles(smiles, allow_undefined_stereo=True)
        given = []
        if charges is not None:
            molecule.partial_charges = Quantity(charges, "elementary_charge")  # type: ignore[no-untyped-call]
            given = [molecule]
        force_field = _toolkit_force_field(path.read_text("utf-8"))
        interchange = Interchange.from_smirnoff(force_field, molecule.to_topology(), charge_from_molecules=given)
        return interchange.to_openmm_system(add_constrained_forces=True)


@functools.lru_cache(maxsize=1)
def _toolkit_force_field(text: str) -> Any:
    """Let the toolkit read a force field once for all molecules; it takes half a second, and more with library charges."""
    from openff.toolkit import ForceField as Toolkit

    return Toolkit(io.BytesIO(text.encode()))


def openmm_energies(path: Path, smiles: str, charges: FloatArray | None, coords: FloatArray) -> FloatArray:
    """Evaluate conformers with a written force field in OpenMM, on its Reference platform.

    Args:
        path: the force field.
        smiles: mapped.
        charges: [e], shape (n_atoms,); None for those that the force field itself gives.
        coords: [Å], shape (n_conformers, n_atoms, 3).

    Returns:
        Energies, [kcal/mol], shape (n_conformers,).
    """
    import openmm

    system = openmm_system(path, smiles, charges)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies = []
    for positions in coords:
        context.setPositions(positions * 0.1)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        energies.append(energy.value_in_unit(openmm.unit.kilocalorie_per_mole))
    return np.array(energies)


def check_energies(
    path: Path, expected: Sequence[tuple[str, FloatArray | None, FloatArray, FloatArray]], tolerance: float = 1e-6
) -> float:
    """Compare energies of the fitted force field with those of the written file in OpenMM.

    Args:
        path: the force field.
        expected: mapped SMILES, charges [e] (None for those of the force field), coords [Å] and energies [kcal/mol] of a few molecules.
        tolerance: [kcal/mol] largest difference allowed, or so much of the energy by which rounding grows with it.

    Returns:
        The largest difference, [kcal/mol].

    Raises:
        ForceFieldError: where the difference is larger than allowed.
    """
    largest = 0.0
    for smiles, charges, coords, energies in expected:
        found = openmm_energies(path, smiles, charges, coords)
        difference = float(np.abs(found - energies).max())
        if difference > tolerance * max(1.0, float(np.abs(energies).max()) * 1e-3):
            raise ForceFieldError(
                f"{path}: OpenMM's energy of {smiles} differs by {difference:.1e} kcal/mol from the fitted one"
            )
        largest = max(largest, difference)
    return largest


def order_of_magnitude(value: float) -> float:
    """Round rounding errors up to a power of ten: their digits depend on the processor."""
    return 10.0 ** math.ceil(math.log10(value)) if value > 0.0 else 0.0
