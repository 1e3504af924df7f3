"""Molecular dynamics of one molecule with a model, frame by frame: the loop of `simulate.loop` with one replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pesfit.application.geometries import Geometry
from pesfit.application.predict import EvaluatedGeometry, GeometryStd, predict_molecule
from pesfit.chemistry.smiles import standard_masses
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import PesfitError
from pesfit.core.units import BOLTZMANN
from pesfit.potentials.integrators import rigid_directions
from pesfit.potentials.model import Model
from pesfit.simulate.loop import Protocol, Simulation
from pesfit.simulate.replicas import Replicas


class ExplodedError(PesfitError):
    """Coordinates, forces or energy are not finite any more, or the total energy has changed by too much."""


@dataclass(frozen=True, eq=False)
class MDFrame:
    """One frame of a trajectory.

    Attributes:
        state: positions, energy and forces; the relative energy is relative to the first frame.
        masses: [g/mol], shape (n_atoms,).
        velocities: [Å/fs], shape (n_atoms, 3).
        step: number of steps from the start.
        time_fs: [fs].
        temperature_kelvin: [K], kinetic.
    """

    state: EvaluatedGeometry
    masses: FloatArray
    velocities: FloatArray
    step: int
    time_fs: float
    temperature_kelvin: float


def run_md(
    model: Model, start: Geometry, protocol: Protocol, advanced: Callable[[], object] | None = None
) -> Iterator[MDFrame]:
    """Yield the start, a frame after every `observe_every` steps, and one at the end.

    Args:
        model: any.
        start: the first frame.
        protocol: of the dynamics.
        advanced: called after each step.

    Raises:
        ExplodedError: where the molecule comes apart; the frames before are sound.
        PesfitError: where the model cannot evaluate the molecule.
    """
    prepared = model.prepare(start.atomic_numbers, start.smiles, start.where)
    (first,) = predict_molecule(model, prepared, [start])  # names what the model cannot evaluate
    masses = standard_masses(start.atomic_numbers)
    molecule = Replicas("md", start.atomic_numbers, masses, start.coords[None], prepared.terms, prepared.total_charge)
    n_degrees = 3 * len(masses)
    if protocol.friction_per_ps is None:
        n_degrees = max(1, n_degrees - len(rigid_directions(start.coords, masses)))
    simulation = Simulation(model.potential, [molecule], protocol)
    for seen in simulation.observations(advanced):
        if simulation.stops:
            reason = "the total energy has changed by more than"
            limit = f"{reason} {protocol.max_energy_change:g} kcal/mol/atom"
            raise ExplodedError(
                f"{start.where}: the molecule has flown apart by step {seen.step} ({seen.step * protocol.timestep_fs:g} fs): "
                f"{limit if simulation.stops[0] == 'energy' else 'forces are not finite'}; try a shorter time step, or relax the start"
            )
        geometry = replace(start, coords=seen.coords.numpy())
        energy = float(seen.prediction.energy[0])
        std = None
        if prepared.uncertainty is not None:
            std = GeometryStd.of(model, prepared.uncertainty(geometry.coords[None], start.coords), 0)
        yield MDFrame(
            replace(
                first,
                geometry=geometry,
                energy=energy,
                relative_energy=energy - first.energy,
                forces=seen.prediction.forces.numpy(),
                std=std,
            ),
            masses=masses,
            velocities=seen.velocities.numpy(),
            step=seen.step,
            time_fs=seen.step * protocol.timestep_fs,
            temperature_kelvin=2.0 * float(seen.kinetic_energy[0]) / (n_degrees * BOLTZMANN),
        )
