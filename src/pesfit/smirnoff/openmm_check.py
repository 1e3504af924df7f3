"""A written force field in OpenMM, by the OpenFF toolkit and Interchange: energies, a minimization and a short simulation.

One molecule of the training set stands for each functional group, those with linear chains of atoms first: a torsion about a straight
angle is undefined, so that a term there, however small, makes forces without bound. Such a file agrees with the fit in every energy, and
still does not minimize.

Of each molecule:

1. energies of a few conformers of the data, against those of the fitted force field;
2. a minimization (L-BFGS): the root mean square of the force components has to fall below `MAX_LEFT_FORCE`;
3. dynamics at constant energy from the minimum, `N_STEPS` velocity Verlet steps of `TIMESTEP_FS`, with velocities of `TEMPERATURE_KELVIN`.
   The total energy, averaged over tenths of the run, must not move further than `MAX_DRIFT` from that of the first tenth. Averaging
   removes its oscillation with the fastest bonds, 0.01 to 0.02 kcal/mol.

For OpenFF 2.1.0 and eight molecules of 6 to 17 atoms, three runs each, the largest drift is 0.007 kcal/mol for each atom. A fit that gave
torsions about straight angles -0.05 and -0.22 kcal/mol left forces of more than 2,000 kcal/mol/Å in propyne, 2-butyne, 1,3-butadiyne and
3-butyn-1-ol, and their energies drifted by 0.01 to 1e10 kcal/mol for each atom. Twelve molecules take 5 s of one core.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ForceFieldError
from pesfit.core.units import KJ
from pesfit.data.splits import TRAIN
from pesfit.data.topology import ForceField
from pesfit.parameterize.assign import Pattern
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exported_charges import ExportedCharges
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows
from pesfit.smirnoff.parameters import AddedPeriodicities
from pesfit.smirnoff.potential import SmirnoffPotential

if TYPE_CHECKING:
    import openmm

FUNCTIONAL_GROUPS = {
    "alkyne": "[CX2:1]#[CX2]",
    "nitrile": "[CX2:1]#[NX1]",
    "other linear": "[X2&!$(*#*):1](=*)=*",
    "azide or diazo": "[#7:1]=[#7X2+]=[#7,#6]",
    "phosphorus": "[#15:1]",
    "sulfonyl or sulfoxide": "[#16X3,#16X4:1]",
    "thiol or sulfide": "[#16X2:1]",
    "nitro": "[NX3+:1](=O)[O-]",
    "acid or carboxylate": "[CX3:1](=O)[OX1-,OX2H1]",
    "ester": "[CX3:1](=O)[OX2H0]",
    "amide or urea": "[CX3:1](=O)[NX3]",
    "aldehyde or ketone": "[CX3:1](=O)([#6,#1])[#6,#1]",
    "ammonium": "[NX4+:1]",
    "amine": "[NX3+0;!$(N-C=[O,N,S]);!$(N-a):1]",
    "aromatic ring with a heteroatom": "[n,o,s:1]",
    "aromatic ring": "[c:1]",
    "halide": "[F,Cl,Br,I:1]",
    "alkene": "[CX3:1]=[CX3]",
    "alcohol": "[CX4][OX2H:1]",
    "ether": "[CX4][OX2:1][CX4]",
    "small ring": "[r3,r4:1]",
    "alkyl": "[CX4:1]",
}
"""SMARTS with one tagged atom, in the order in which molecules are sought for them."""
N_MOLECULES = 12
"""Molecules that are checked at most."""
MAX_ATOMS = 60
"""Largest molecules that are checked."""
N_CONFORMERS = 3
"""Conformers of each molecule whose energies are compared."""
MAX_DIFFERENCE = 1e-6
"""[kcal/mol] between OpenMM's energy and the fit's, or so much of the energy by which rounding grows with it."""
MAX_LEFT_FORCE = 0.05
"""[kcal/mol/Å] after a minimization."""
N_STEPS, TIMESTEP_FS, TEMPERATURE_KELVIN = 2000, 0.5, 300.0
MAX_DRIFT = 0.02
"""[kcal/mol] for each atom."""
_N_ITERATIONS = 5000
_N_WINDOWS, _STEPS_PER_SAMPLE = 10, 10
_SEED = 1


@dataclass(frozen=True, eq=False)
class CheckedMolecule:
    """A molecule with its energies by the fitted force field.

    Attributes:
        smiles: mapped.
        charges: [e], shape (n_atoms,).
        in_file: whether the force field's file gives these charges without a charge model.
        coords: [Å], shape (n_conformers, n_atoms, 3).
        energies: [kcal/mol], shape (n_conformers,).
    """

    smiles: str
    charges: FloatArray
    in_file: bool
    coords: FloatArray
    energies: FloatArray


@dataclass(frozen=True)
class ShortRun:
    """A minimization and dynamics from the minimum.

    Attributes:
        left_force: [kcal/mol/Å] root mean square of the force components after the minimization; infinite where it failed.
        drift: [kcal/mol] for each atom, see the docstring of this module; infinite where a coordinate became infinite.
    """

    left_force: float
    drift: float

    @property
    def minimized(self) -> bool:
        """Whether the minimization ended in a minimum."""
        return self.left_force <= MAX_LEFT_FORCE


@dataclass(frozen=True)
class OpenmmCheck:
    """Results over all molecules.

    Attributes:
        n_molecules: checked.
        largest_difference: [kcal/mol] of OpenMM's energies from those of the fit.
        not_minimized: molecules that do not minimize, and did not with the starting force field either.
        largest_drift: [kcal/mol] for each atom, over molecules that minimize.
    """

    n_molecules: int
    largest_difference: float
    not_minimized: int
    largest_drift: float


def check_in_openmm(path: Path, start: str, molecules: Sequence[CheckedMolecule]) -> OpenmmCheck:
    """Check a written force field on molecules.

    Args:
        path: the force field.
        start: text of the starting force field, which a molecule that fails is tried with.
        molecules: to be checked.

    Raises:
        ForceFieldError: naming the molecule, where energies differ, it does not minimize, or its energy drifts; the last two only where
            the starting force field does better.
    """
    offxml = path.read_text("utf-8")
    not_minimized, differences, drifts = 0, [0.0], [0.0]
    for molecule in molecules:
        system = openmm_system(offxml, molecule.smiles, None if molecule.in_file else molecule.charges)
        differences.append(_difference(path, system, molecule))
        found = minimize_and_run(system, molecule.coords[0])
        if found.minimized and found.drift <= MAX_DRIFT:
            drifts.append(found.drift)
            continue
        before = minimize_and_run(openmm_system(start, molecule.smiles, molecule.charges), molecule.coords[0])
        if before.minimized and not found.minimized:
            raise ForceFieldError(
                f"{path}: {molecule.smiles} does not minimize in OpenMM: forces of {found.left_force:.1e} kcal/mol/Å are left, "
                f"{before.left_force:.1e} with the starting force field"
            )
        if found.minimized and before.drift <= MAX_DRIFT:
            raise ForceFieldError(
                f"{path}: the total energy of {molecule.smiles} drifts by {found.drift:.1e} kcal/mol for each atom in 1 ps of NVE in "
                f"OpenMM, by {before.drift:.1e} with the starting force field; at most {MAX_DRIFT} are allowed"
            )
        not_minimized += not found.minimized
        drifts += [found.drift] if found.minimized else []
    return OpenmmCheck(len(molecules), max(differences), not_minimized, max(drifts))


def _difference(path: Path, system: openmm.System, molecule: CheckedMolecule) -> float:
    difference = float(np.abs(openmm_energies(system, molecule.coords) - molecule.energies).max())
    if difference > MAX_DIFFERENCE * max(1.0, float(np.abs(molecule.energies).max()) * 1e-3):
        raise ForceFieldError(
            f"{path}: OpenMM's energy of {molecule.smiles} differs by {difference:.1e} kcal/mol from the fitted one"
        )
    return difference


def choose_molecules(inputs: FitInputs, molecules: Sequence[MoleculeRows]) -> list[MoleculeRows]:
    """Choose the first training molecule that has each of `FUNCTIONAL_GROUPS`, `N_MOLECULES` at most, none twice."""
    patterns = {name: Pattern(smarts, 1) for name, smarts in FUNCTIONAL_GROUPS.items()}
    first: dict[str, MoleculeRows] = {}
    groups: dict[int, frozenset[str]] = {}
    for molecule in molecules:
        is_trained_on = any((inputs.splits.of(molecule.dataset, record) == TRAIN).any() for record in molecule.ids)
        if len(first) == len(patterns) or not is_trained_on or molecule.topology in groups:
            continue
        mol = read_mapped_smiles(inputs.parameterized[molecule.topology].smiles)
        if mol.GetNumAtoms() <= MAX_ATOMS:
            groups[molecule.topology] = frozenset(name for name, pattern in patterns.items() if pattern.matches(mol))
            for name in groups[molecule.topology]:
                first.setdefault(name, molecule)
    chosen: list[MoleculeRows] = []
    covered: set[str] = set()
    for name in patterns:
        if name in first and name not in covered and len(chosen) < N_MOLECULES:
            chosen.append(first[name])
            covered |= groups[first[name].topology]
    return chosen


def checked_molecules(
    inputs: FitInputs,
    molecules: Sequence[MoleculeRows],
    extension: AddedPeriodicities,
    fitted: ForceField,
    charges: ExportedCharges,
) -> list[CheckedMolecule]:
    """Evaluate the fitted force field on a few conformers of the molecules that are to be checked.

    Args:
        inputs: what was fitted to.
        molecules: of the fit.
        extension: the starting force field with the periodicities that were added.
        fitted: the same with the fitted values.
        charges: those in the file.
    """
    potential, in_file = SmirnoffPotential(fitted), dict((*charges.library, *charges.trained))
    found = []
    for molecule in choose_molecules(inputs, molecules):
        record = inputs.datasets[molecule.dataset][molecule.rows[0]]
        topology = extension.extend(inputs.parameterized[molecule.topology])
        topology = replace(topology, charges=in_file.get(topology.smiles, topology.charges))
        coords = record.coords[:N_CONFORMERS]
        numbers = torch.tensor(record.atomic_numbers, dtype=torch.int64)
        with torch.no_grad():
            energy = potential(collate([Conformers(numbers, torch.tensor(coords), Terms.from_topology(topology))])).energy
        found.append(CheckedMolecule(topology.smiles, topology.charges, topology.smiles in in_file, coords, energy.numpy()))
    return found


def openmm_system(offxml: str, smiles: str, charges: FloatArray | None) -> openmm.System:
    """Build one molecule in vacuum, by the OpenFF toolkit and Interchange.

    Args:
        offxml: text of the force field.
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
        interchange = Interchange.from_smirnoff(
            _toolkit_force_field(offxml), molecule.to_topology(), charge_from_molecules=given
        )
        return interchange.to_openmm_system(add_constrained_forces=True)


@functools.lru_cache(maxsize=2)
def _toolkit_force_field(offxml: str) -> Any:
    """Let the toolkit read a force field once for all molecules; it takes half a second, and more with library charges."""
    from openff.toolkit import ForceField as Toolkit

    return Toolkit(io.BytesIO(offxml.encode()))


def minimize_and_run(system: openmm.System, coords: FloatArray, n_steps: int = N_STEPS, seed: int = _SEED) -> ShortRun:
    """Minimize one conformer and run dynamics at constant energy from there, on OpenMM's Reference platform.

    Args:
        system: one molecule.
        coords: [Å], shape (n_atoms, 3).
        n_steps: of 0.5 fs, a multiple of 100.
        seed: of the velocities.
    """
    import openmm
    from openmm import unit

    integrator = openmm.VerletIntegrator(TIMESTEP_FS * 1e-3)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(coords * 0.1)
    energies = []
    try:
        openmm.LocalEnergyMinimizer.minimize(context, MAX_LEFT_FORCE / 2.0 / KJ * 10.0, _N_ITERATIONS)
        forces = (
            context.getState(getForces=True).getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        )
        left_force = float(np.sqrt(np.mean(np.square(forces)))) * KJ * 0.1
        context.setVelocitiesToTemperature(TEMPERATURE_KELVIN, seed)
        for _ in range(n_steps // _STEPS_PER_SAMPLE):
            integrator.step(_STEPS_PER_SAMPLE)
            state = context.getState(getEnergy=True)
            energies.append((state.getKineticEnergy() + state.getPotentialEnergy()).value_in_unit(unit.kilocalorie_per_mole))
    except openmm.OpenMMException:  # a coordinate or an energy is not finite
        return ShortRun(math.inf, math.inf)
    windows = np.reshape(energies, (_N_WINDOWS, -1)).mean(axis=1)
    drift = float(np.abs(windows - windows[0]).max()) / len(coords)
    return ShortRun(*(value if math.isfinite(value) else math.inf for value in (left_force, drift)))


def openmm_energies(system: openmm.System, coords: FloatArray) -> FloatArray:
    """Evaluate conformers in OpenMM, on its Reference platform.

    Args:
        system: one molecule, see `openmm_system`.
        coords: [Å], shape (n_conformers, n_atoms, 3).

    Returns:
        Energies, [kcal/mol], shape (n_conformers,).
    """
    import openmm

    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies = []
    for positions in coords:
        context.setPositions(positions * 0.1)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        energies.append(energy.value_in_unit(openmm.unit.kilocalorie_per_mole))
    return np.array(energies)


def order_of_magnitude(value: float) -> float:
    """Round rounding errors up to a power of ten: their digits depend on the processor."""
    return 10.0 ** math.ceil(math.log10(value)) if value > 0.0 else 0.0
