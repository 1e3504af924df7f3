"""The simulations of stage 08, cut into pieces that worker processes share."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from pesfit.core.exceptions import Failure, PesfitError
from pesfit.data.rollouts import DYNAMICS, Dynamics
from pesfit.params.evaluation import Rollout
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.interface import Potential
from pesfit.potentials.model import Model
from pesfit.simulate.distances import DistanceHistogram
from pesfit.simulate.loop import Protocol, Run, simulate
from pesfit.simulate.measures import Measures, Wanted, measure
from pesfit.simulate.replicas import Molecule, as_batch
from pesfit.simulate.subjects import Subject
from pesfit.simulate.uncertainty_along import Carried, carry
from pesfit.uncertainty.standard_deviations import Uncertainty

STAGE = "rollout"
GFN2 = "gfn2"
"""Name of the labels' own method: its trajectories have its level of theory, and `gfn2_replicas`."""


@dataclass(frozen=True, eq=False)
class Participant:
    """A molecule as one model simulates it.

    Attributes:
        molecule: with the model's own terms.
        uncertainty: of the model for this molecule; None where it has no posterior.
        domain_threshold: [kcal/mol/Å], see `domain.carry`; None where it is not known.
        wanted: what is measured, by kind of dynamics.
    """

    molecule: Molecule
    uncertainty: Uncertainty | None
    domain_threshold: float | None
    wanted: Mapping[Dynamics, Wanted]


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


Found: TypeAlias = tuple[Run, Carried | None, Measures]


@dataclass(frozen=True)
class Result:
    """What came of a task: for each participant a run, how sure the potential was along it, and its measures; and how long it took."""

    found: list[Found]
    n_replica_steps: int
    seconds: float


def prepare(model: Model, name: str, subject: Subject, molecule: Molecule, params: Rollout) -> Participant | Failure:
    """Let a model prepare a molecule, or say why it cannot be asked about it, such as an element it does not know."""
    first = subject.first
    n_replicas = params.gfn2_replicas if name == GFN2 else params.replicas
    charges = None if subject.topology is None else subject.topology.charges
    try:
        prepared = model.prepare(first.atomic_numbers, first.smiles, subject.name, charges)
        mine = replace(molecule, terms=prepared.terms, coords=molecule.coords[:n_replicas])
        batch = as_batch([replace(mine, coords=mine.coords[:1])])
        model.potential.bind(batch)(batch.coords)
    except PesfitError as error:
        return Failure.from_exception(f"{name}/{subject.name}", STAGE, error)
    has_labels = subject.level_of_theory == LEVEL_OF_THEORY and name != GFN2
    label_frames = params.label_frames if has_labels else 0
    nvt = Wanted(params.nvt.equilibration_fs, _reference(subject, params), label_frames)
    threshold = None if model.calibration is None else model.calibration.threshold_of(first.group)
    return Participant(mine, prepared.uncertainty, threshold, {"nve": Wanted(0.0, None, label_frames), "nvt": nvt})


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
    """Return how a kind of dynamics is run."""
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


def run_pickled(task: bytes) -> Result:
    """Run what `pickled` made a moment ago."""
    torch.set_num_threads(1)
    return run(pickle.loads(task))  # noqa: S301 - never from a file


def run(task: Task) -> Result:
    """Simulate and measure."""
    molecules = [participant.molecule for participant in task.participants]
    step_fs = task.protocol.timestep_fs
    start = time.perf_counter()
    runs = simulate(task.potential, molecules, task.protocol)
    seconds = time.perf_counter() - start
    found: list[Found] = []
    for participant, one in zip(task.participants, runs, strict=True):
        carried = None
        if participant.uncertainty is not None:
            carried = carry(one, participant.uncertainty, participant.domain_threshold, step_fs)
        measures = measure(one, participant.molecule, task.protocol, participant.wanted[task.dynamics])
        if carried is not None and participant.domain_threshold is not None:
            measures = replace(measures, left_fs=carried.left_fs)
        found.append((one, carried, measures))
    return Result(found, task.protocol.n_steps * sum(molecule.n_replicas for molecule in molecules), seconds)


def _reference(subject: Subject, params: Rollout) -> DistanceHistogram | None:
    if subject.n_conformers < params.min_reference_frames:
        return None
    histogram = DistanceHistogram(params.distance_bin_angstrom)
    for row in subject.rows:
        histogram.add(row.coords)
    return histogram
