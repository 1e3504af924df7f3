"""Simulations of stage 08 as tasks for worker processes: a potential, NVE or NVT, and the molecules of one shard."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from pesfit.core.exceptions import Failure, PesfitError
from pesfit.data.rollouts import DYNAMICS, Dynamics
from pesfit.params.evaluation import Rollout
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.interface import Potential
from pesfit.potentials.model import Model
from pesfit.simulate.loop import Protocol, Trajectories, simulate
from pesfit.simulate.measures import Measures, MeasureSettings, UncertaintyAlong, measure, uncertainty_along
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.observables import DistanceHistogram
from pesfit.simulate.replicas import Replicas, as_batch
from pesfit.uncertainty.standard_deviations import Uncertainty

STAGE = "rollout"
GFN2 = "gfn2"
"""Name of GFN2-xTB itself: its trajectories have its level of theory, and `gfn2_replicas`."""


@dataclass(frozen=True, eq=False)
class Participant:
    """A molecule as one model simulates it.

    Attributes:
        replicas: with the model's own terms.
        uncertainty: of the model for this molecule; None where it has no posterior.
        wanted: settings of the measures, by kind of dynamics.
    """

    replicas: Replicas
    uncertainty: Uncertainty | None
    wanted: Mapping[Dynamics, MeasureSettings]


@dataclass(frozen=True, eq=False)
class Task:
    """One simulation: a potential, NVE or NVT, and the molecules of one shard.

    Attributes:
        name: of the potential.
        potential: what is simulated with.
        dynamics: its kind.
        protocol: how it is run.
        participants: at least one.
    """

    name: str
    potential: Potential
    dynamics: Dynamics
    protocol: Protocol
    participants: Sequence[Participant]


Simulated: TypeAlias = tuple[Trajectories, UncertaintyAlong | None, Measures]


@dataclass(frozen=True)
class TaskResult:
    """Trajectories of each participant with their uncertainty and measures, and the time that the simulation took."""

    simulated: list[Simulated]
    n_replica_steps: int
    seconds: float


def prepare(model: Model, name: str, molecule: SimulatedMolecule, params: Rollout) -> Participant | Failure:
    """Let a model prepare a molecule; a failure where it cannot evaluate it, such as for an element that it does not know."""
    first, topology = molecule.first, molecule.topology
    n_replicas = params.gfn2_replicas if name == GFN2 else params.replicas
    try:
        replicas = molecule.replicas(params.replicas)
        charges = None if topology is None else topology.charges
        prepared = model.prepare(first.atomic_numbers, first.smiles, molecule.name, charges)
        replicas = replace(replicas, terms=prepared.terms, coords=replicas.coords[:n_replicas])
        batch = as_batch([replace(replicas, coords=replicas.coords[:1])])
        model.potential.bind(batch)(batch.coords)
    except PesfitError as error:
        return Failure.from_exception(f"{name}/{molecule.name}", STAGE, error)
    has_labels = molecule.level_of_theory == LEVEL_OF_THEORY and name != GFN2
    threshold = None if model.calibration is None else model.calibration.threshold_of(first.group)
    nve = MeasureSettings(label_frames=params.label_frames if has_labels else 0, domain_threshold=threshold)
    nvt = replace(nve, equilibration_fs=params.nvt.equilibration_fs, reference=_reference(molecule, params))
    return Participant(replicas, prepared.uncertainty, {"nve": nve, "nvt": nvt})


def make_tasks(
    models: Mapping[str, Model], participants: Mapping[str, Sequence[Participant]], params: Rollout
) -> Iterator[Task]:
    """Yield tasks in the order of the models, each molecule in one of `shards` of them."""
    for name, model in models.items():
        for dynamics in DYNAMICS:
            for shard in range(min(params.shards, len(participants[name]))):
                dealt = participants[name][shard :: params.shards]
                yield Task(name, model.potential, dynamics, protocol_of(dynamics, params), dealt)


def protocol_of(dynamics: Dynamics, params: Rollout) -> Protocol:
    """Return the parameters of a kind of dynamics."""
    is_nvt = dynamics == "nvt"
    length_fs = params.nvt.length_fs if is_nvt else params.nve.length_fs
    return Protocol(
        timestep_fs=params.timestep_fs,
        n_steps=round(length_fs / params.timestep_fs),
        observe_every=round(params.observe_fs / params.timestep_fs),
        frame_every=round(params.frame_fs / params.observe_fs),
        temperature_kelvin=params.temperature_kelvin,
        friction_per_ps=params.nvt.friction_per_ps if is_nvt else None,
        seed=params.seed,
        max_stretch=params.max_stretch_angstrom,
        max_energy_change=params.max_energy_change,
    )


def pickled(task: Task) -> bytes:
    """Return a task as bytes: torch would send tensors through shared memory, of which containers have little."""
    return pickle.dumps(task)


def run_pickled(task: bytes) -> TaskResult:
    """Run what `pickled` made a moment ago."""
    return run(pickle.loads(task))  # noqa: S301 - never from a file


def run(task: Task) -> TaskResult:
    """Simulate and measure."""
    replicas = [participant.replicas for participant in task.participants]
    step_fs = task.protocol.timestep_fs
    start = time.perf_counter()
    runs = simulate(task.potential, replicas, task.protocol)
    seconds = time.perf_counter() - start
    simulated: list[Simulated] = []
    for participant, one in zip(task.participants, runs, strict=True):
        wanted = participant.wanted[task.dynamics]
        along = None
        if participant.uncertainty is not None:
            along = uncertainty_along(one, participant.uncertainty, wanted.domain_threshold, step_fs)
        simulated.append((one, along, measure(one, participant.replicas, task.protocol, wanted, along)))
    return TaskResult(simulated, task.protocol.n_steps * sum(each.n_replicas for each in replicas), seconds)


def _reference(molecule: SimulatedMolecule, params: Rollout) -> DistanceHistogram | None:
    if molecule.n_conformers < params.min_reference_frames:
        return None
    histogram = DistanceHistogram(params.distance_bin_angstrom)
    for row in molecule.rows:
        histogram.add(row.coords)
    return histogram
