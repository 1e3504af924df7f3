"""Short simulations of the same molecules with each potential: stage 08."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pesfit.core.exceptions import DataError, Failure, PesfitError, check_failed_fraction
from pesfit.core.files import FAILURES_FILE, write_json
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import DatasetWriter, Record, write_failures
from pesfit.data.rollouts import (
    DYNAMICS,
    ENERGIES_FILE,
    ENERGIES_SCHEMA,
    MEASURES_FILE,
    PROBES,
    TRAJECTORIES,
    Dynamics,
    write_energies,
)
from pesfit.params.evaluation import Rollout
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.interface import Potential
from pesfit.potentials.model import Model
from pesfit.simulate.loop import Protocol, Trajectories, simulate
from pesfit.simulate.measures import (
    Measures,
    MeasureSettings,
    UncertaintyAlong,
    force_error_over_time,
    measure,
    summarize,
    uncertainty_along,
)
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.observables import DistanceHistogram
from pesfit.simulate.probes import write_probes
from pesfit.simulate.replicas import Replicas, as_batch
from pesfit.uncertainty.standard_deviations import Uncertainty

STAGE = "rollout"
GFN2 = "gfn2"
"""Name of GFN2-xTB itself: its trajectories have its level of theory, and `gfn2_replicas`."""
_DIGITS = 10


def run_rollouts(
    models: Mapping[str, Model],
    molecules: Sequence[SimulatedMolecule],
    params: Rollout,
    output: Path,
    timing: Path | None = None,
) -> dict[str, Any]:
    """Simulate every molecule with every potential, NVE and NVT, and measure what comes out.

    Every potential gets the same starting conformers, velocities and noise. Work is cut into tasks of one potential, NVE or NVT, and
    one of `shards` groups of molecules, which worker processes share; results do not depend on their number.

    Writes to `output`:

    - `trajectories/<potential>/`: a data set of frames with the potential's own energies and forces, `source` `rollout/<potential>`;
      `pesfit label` makes training data of it;
    - `energies.arrow`: all observations, and standard deviations where there is a posterior (`data.rollouts.ENERGIES_SCHEMA`);
    - `probes/`: conformers chosen to lie outside of the training domain (`probes.write_probes`);
    - `measures.json`: the measures of each potential, kind of dynamics and molecule;
    - `failures.csv`: molecules that a potential cannot evaluate, with ids `<potential>/<molecule>`.

    Args:
        models: by name; those that take longest first, so that workers finish together; GFN2-xTB as `GFN2`.
        molecules: from `molecules.find_molecules`.
        params: section `rollout`.
        output: folder.
        timing: JSON file for steps per second and ns per day, which differ from run to run and so are no output of the stage.

    Returns:
        Metrics: for each potential and kind of dynamics `measures.summarize` of all molecules.

    Raises:
        DataError: if there are no molecules, or none of them can be simulated.
        TooManyFailuresError: where more than `max_failed_fraction` of the simulations (potential, molecule) fail.
    """
    if not molecules:
        raise DataError(f"no molecule of {', '.join(params.sources)} has test conformers to start from; see rollout.sources")
    participants: dict[str, list[Participant]] = {name: [] for name in models}
    failures: list[Failure] = []
    for name, model in models.items():
        for molecule in molecules:
            found = prepare(model, name, molecule, params)
            if isinstance(found, Failure):
                failures.append(found)
            else:
                participants[name].append(found)
    check_failed_fraction(failures, len(models) * len(molecules), params.max_failed_fraction)
    tasks = list(make_tasks(models, participants, params))
    # Pickled here: torch would send tensors through shared memory, of which containers have little.
    results = ordered_map(_run, map(pickle.dumps, tasks), label=STAGE, n_items=len(tasks), unit="simulation")
    measured: dict[tuple[str, str], dict[str, Measures]] = {(name, kind): {} for name in models for kind in DYNAMICS}
    speeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    batches = []
    by_name = {molecule.name: molecule for molecule in molecules}
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        levels = {name: LEVEL_OF_THEORY if name == GFN2 else f"pesfit {name}" for name in models}
        writers = {
            name: stack.enter_context(DatasetWriter(output / TRAJECTORIES / name, {source_of(name): level}))
            for name, level in levels.items()
        }
        for task, result in zip(tasks, results, strict=True):
            speeds.setdefault((task.name, task.dynamics), []).append((result.n_replica_steps, result.seconds))
            for run, along, measures in result.simulated:
                measured[task.name, task.dynamics][run.name] = measures
                batches.append(energies(run, along, task.name, task.dynamics, task.protocol.timestep_fs))
                for record in frames(run, task.name, task.dynamics, by_name[run.name].first):
                    writers[task.name].write(record)
    write_energies(output / ENERGIES_FILE, batches)
    write_failures(output / FAILURES_FILE, failures)
    probe_failures = write_probes(molecules, params.probes, output / PROBES)
    write_json(output / MEASURES_FILE, _by_molecule(measured, molecules), digits=_DIGITS, indent=1)
    if timing is not None:
        write_json(timing, _timing(speeds, params.timestep_fs), digits=_DIGITS, indent=1)
    return {
        "n_molecules": len(molecules),
        "n_failures": len(failures),
        "n_probe_failures": len(probe_failures),
        "potentials": {
            name: {dynamics: summarize(list(measured[name, dynamics].values())) for dynamics in DYNAMICS} for name in models
        },
    }


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


@dataclass(frozen=True)
class TaskResult:
    """Trajectories of each participant with their uncertainty and measures, and the time that the simulation took."""

    simulated: list[tuple[Trajectories, UncertaintyAlong | None, Measures]]
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


def _run(pickled: bytes) -> TaskResult:
    """Simulate and measure a task that was pickled by `run_rollouts`."""
    task: Task = pickle.loads(pickled)  # noqa: S301 - never from a file
    replicas = [participant.replicas for participant in task.participants]
    step_fs = task.protocol.timestep_fs
    start = time.perf_counter()
    runs = simulate(task.potential, replicas, task.protocol)
    seconds = time.perf_counter() - start
    simulated: list[tuple[Trajectories, UncertaintyAlong | None, Measures]] = []
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


def _by_molecule(
    measured: Mapping[tuple[str, str], Mapping[str, Measures]], molecules: Sequence[SimulatedMolecule]
) -> list[dict[str, Any]]:
    of = {molecule.name: molecule.first for molecule in molecules}
    return [
        {
            "potential": potential,
            "dynamics": dynamics,
            "molecule": name,
            "smiles": of[name].smiles,
            "source": of[name].source,
            "n_atoms": of[name].n_atoms,
            **summarize([measures]),
            "force_mae_over_time_ps": force_error_over_time(measures),
        }
        for (potential, dynamics), found in measured.items()
        for name, measures in found.items()
    ]


def _timing(speeds: Mapping[tuple[str, str], Sequence[tuple[int, float]]], timestep_fs: float) -> dict[str, Any]:
    """Return steps per second and ns per day, summed over replicas that one process advances together."""
    timing: dict[str, Any] = {}
    for (name, dynamics), tasks in speeds.items():
        n_replica_steps, seconds = (sum(values) for values in zip(*tasks, strict=True))
        speed = n_replica_steps / seconds if seconds > 0.0 else 0.0
        timing.setdefault(name, {})[dynamics] = {
            "seconds": seconds,
            "replica_steps_per_second": speed,
            "ns_per_day": speed * timestep_fs * 1e-6 * 86400,
        }
    return timing


def source_of(potential: str) -> str:
    """Return the `source` of a potential's trajectories."""
    return f"rollout/{potential}"


def frames(run: Trajectories, potential: str, dynamics: str, like: Record) -> Iterator[Record]:
    """Yield the frames of each replica until it was stopped, as rows of a data set.

    Energies and forces are the potential's own. `frame` is the number of steps from the start.

    Args:
        run: of one molecule.
        potential: its name.
        dynamics: `nve` or `nvt`.
        like: a row of the molecule, for SMILES, elements, charge and group.
    """
    energies = run.potential_energy[:, (run.step[:, None] == run.frame_step).argmax(axis=0)]
    for replica in range(len(run.coords)):
        seen = slice(run.n_frames(replica))
        yield from Record(
            id=f"{dynamics}/{run.name}/{replica:04d}",
            smiles=like.smiles,
            atomic_numbers=like.atomic_numbers,
            coords=run.coords[replica, seen],
            energy=energies[replica, seen],
            forces=run.forces[replica, seen],
            charges=None,
            total_charge=like.total_charge,
            group=like.group,
            source=source_of(potential),
            frame=run.frame_step[seen].astype("int64"),
        ).rows()


def energies(
    run: Trajectories, along: UncertaintyAlong | None, potential: str, dynamics: str, timestep_fs: float
) -> pa.RecordBatch:
    """Return energies and standard deviations along each replica as rows of `ENERGIES_SCHEMA`."""
    rows: list[dict[str, Any]] = []
    for replica, n_observed in enumerate(run.n_observed):
        n_frames = run.n_frames(replica)
        rows.append(
            {
                "potential": potential,
                "dynamics": dynamics,
                "molecule": run.name,
                "replica": replica,
                "stopped": run.stops[replica],
                "time_fs": run.step[:n_observed] * timestep_fs,
                "potential_energy": run.potential_energy[replica, :n_observed],
                "kinetic_energy": run.kinetic_energy[replica, :n_observed],
                "frame_fs": run.frame_step[:n_frames] * timestep_fs,
                "force_std": None if along is None else along.score[replica, :n_frames],
                "relative_energy_std": None if along is None else along.relative_energy[replica, :n_frames],
                "left_domain_fs": None if along is None else along.left_fs[replica],
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=ENERGIES_SCHEMA)
