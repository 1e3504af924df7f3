"""Short simulations of the same molecules with each potential: stage 08."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from pesfit.dataset import DatasetWriter, write_failures
from pesfit.errors import DataError, Failure, PesfitError, check_failed_fraction
from pesfit.gfn2 import LEVEL_OF_THEORY
from pesfit.parallel import ordered_map
from pesfit.params.rollout import Rollout
from pesfit.potentials.base import Potential
from pesfit.simulate.distances import DistanceHistogram
from pesfit.simulate.dynamics import Protocol, Run, simulate
from pesfit.simulate.measures import Measures, Wanted, force_error_over_time, measure, summarize
from pesfit.simulate.replicas import Molecule, as_batch
from pesfit.simulate.subjects import Subject, make_replicas
from pesfit.simulate.trajectories import energies, frames, source_of, write_energies

STAGE = "rollout"
Ensemble = Literal["constant_energy", "bath"]
ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)

TRAJECTORIES, ENERGIES_FILE, MEASURES_FILE, FAILURES_FILE = "trajectories", "energies.arrow", "measures.json", "failures.csv"
GFN2 = "gfn2"
"""Name under which the labels' own method is given: its trajectories have its level of theory, and `gfn2_replicas`."""

_DIGITS = 10


@dataclass(frozen=True)
class _Task:
    """One simulation: a potential, an ensemble, and the molecules of one shard."""

    name: str
    potential: Potential
    ensemble: Ensemble
    protocol: Protocol
    molecules: list[Molecule]
    wanted: list[Wanted]


@dataclass(frozen=True)
class _Result:
    """What came of a task: for each molecule a run with its measures, or a failure; and how long the steps took."""

    found: list[tuple[Run, Measures] | Failure]
    n_replica_steps: int
    seconds: float


def run_rollouts(
    potentials: Mapping[str, Potential], subjects: Sequence[Subject], params: Rollout, output: Path, timing: Path | None = None
) -> dict[str, Any]:
    """Simulate every molecule with every potential, at constant energy and in a bath, and measure what comes out.

    Every potential gets the same starting conformers, velocities and noise. Work is cut into tasks of one potential, one ensemble and
    one of `shards` groups of molecules, which worker processes share; results do not depend on their number.

    Writes to `output`:

    - `trajectories/<potential>/`: a data set of frames with the potential's own energies and forces, `source` `rollout/<potential>`;
      `relabel.relabel_dataset` makes training data of it;
    - `energies.arrow`: all observations (`trajectories.ENERGIES_SCHEMA`);
    - `measures.json`: what is measured for each potential, ensemble and molecule;
    - `failures.csv`: molecules that a potential cannot be asked about, with ids `<potential>/<molecule>`.

    Args:
        potentials: by name; those that take longest first, so that workers finish together; GFN2-xTB as `GFN2`.
        subjects: as `subjects.find_subjects` finds them.
        params: section `rollout`.
        output: folder.
        timing: where steps a second and ns a day are written as JSON: a file that nothing declares, since they differ from run to run.

    Returns:
        Metrics: for each potential and ensemble what `measures.summarize` says of all molecules.

    Raises:
        DataError: if there is no subject, or none of them can be simulated.
        TooManyFailuresError: where more than `max_failed_fraction` of the simulations (potential, molecule) fail.
    """
    if not subjects:
        raise DataError(f"no molecule of {', '.join(params.sources)} has test conformers to start from; see rollout.sources")
    torch.set_num_threads(1)  # a sum must not depend on how a machine's threads divide it
    made = list(make_replicas(subjects, params.replicas))
    tasks = list(_tasks(potentials, subjects, made, params))
    results = ordered_map(_run_pickled, (_pickled(task) for task in tasks), label=STAGE, n_items=len(tasks), unit="simulation")
    failures = {failure: None for failure in made if isinstance(failure, Failure)}
    measured: dict[tuple[str, str], dict[str, Measures]] = {(name, kind): {} for name in potentials for kind in ENSEMBLES}
    speeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    batches = []
    by_name = {subject.name: subject for subject in subjects}
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(DatasetWriter(output / TRAJECTORIES / name, {source_of(name): _level_of_theory(name)}))
            for name in potentials
        }
        for task, result in zip(tasks, results, strict=True):
            speeds.setdefault((task.name, task.ensemble), []).append((result.n_replica_steps, result.seconds))
            for found in result.found:
                if isinstance(found, Failure):
                    failures[replace(found, id=f"{task.name}/{found.id}")] = None
                    continue
                run, measures = found
                measured[task.name, task.ensemble][run.name] = measures
                batches.append(energies(run, task.name, task.ensemble, task.protocol.timestep_fs))
                for record in frames(run, task.name, task.ensemble, by_name[run.name].first):
                    writers[task.name].write(record)
    write_energies(output / ENERGIES_FILE, batches)
    write_failures(output / FAILURES_FILE, failures)
    check_failed_fraction(list(failures), len(potentials) * len(subjects), params.max_failed_fraction)
    _write_json(output / MEASURES_FILE, _by_molecule(measured, subjects))
    if timing is not None:
        _write_json(timing, _timing(speeds, params.timestep_fs))
    return {
        "n_molecules": len(subjects),
        "n_failures": len(failures),
        "potentials": {
            name: {ensemble: summarize(list(measured[name, ensemble].values())) for ensemble in ENSEMBLES}
            for name in potentials
        },
    }


def protocol_of(ensemble: Ensemble, params: Rollout) -> Protocol:
    """Return how an ensemble is run."""
    is_bath = ensemble == "bath"
    length_fs = params.bath.length_fs if is_bath else params.constant_energy.length_fs
    return Protocol(
        timestep_fs=params.timestep_fs,
        n_steps=round(length_fs / params.timestep_fs),
        observe_every=round(params.observe_fs / params.timestep_fs),
        frame_every=round(params.frame_fs / params.observe_fs),
        temperature_kelvin=params.temperature_kelvin,
        friction_per_ps=params.bath.friction_per_ps if is_bath else None,
        seed=params.seed,
        max_stretch=params.max_stretch_angstrom,
        max_energy_change=params.max_energy_change,
    )


def _tasks(
    potentials: Mapping[str, Potential], subjects: Sequence[Subject], made: Sequence[Molecule | Failure], params: Rollout
) -> Iterator[_Task]:
    pairs = [(molecule, subject) for molecule, subject in zip(made, subjects, strict=True) if not isinstance(molecule, Failure)]
    references = {subject.name: _reference(subject, params) for _, subject in pairs}
    for name, potential in potentials.items():
        for ensemble in ENSEMBLES:
            for shard in range(min(params.shards, len(pairs))):
                dealt = pairs[shard :: params.shards]
                wanted = [
                    Wanted(
                        equilibration_fs=params.bath.equilibration_fs if ensemble == "bath" else 0.0,
                        reference=references[subject.name] if ensemble == "bath" else None,
                        label_frames=params.label_frames if subject.level_of_theory == LEVEL_OF_THEORY and name != GFN2 else 0,
                    )
                    for _, subject in dealt
                ]
                n_replicas = params.gfn2_replicas if name == GFN2 else params.replicas
                molecules = [replace(molecule, coords=molecule.coords[:n_replicas]) for molecule, _ in dealt]
                yield _Task(name, potential, ensemble, protocol_of(ensemble, params), molecules, wanted)


def _reference(subject: Subject, params: Rollout) -> DistanceHistogram | None:
    if subject.n_conformers < params.min_reference_frames:
        return None
    histogram = DistanceHistogram(params.distance_bin_angstrom)
    for row in subject.rows:
        histogram.add(row.coords)
    return histogram


def _pickled(task: _Task) -> bytes:
    # As bytes: torch would otherwise send tensors through shared memory, of which containers have little.
    return pickle.dumps(task)


def _run_pickled(task: bytes) -> _Result:
    torch.set_num_threads(1)
    return _run(pickle.loads(task))  # noqa: S301 - what `_pickled` made a moment ago


def _run(task: _Task) -> _Result:
    failed = {i: failure for i, one in enumerate(task.molecules) if (failure := _why_not(task.potential, one)) is not None}
    possible = [i for i in range(len(task.molecules)) if i not in failed]
    molecules = [task.molecules[i] for i in possible]
    if any(molecule.terms is None for molecule in molecules):
        molecules = [
            replace(molecule, terms=None) for molecule in molecules
        ]  # all have them or none; this potential needs none
    start = time.perf_counter()
    runs = simulate(task.potential, molecules, task.protocol) if molecules else []
    seconds = time.perf_counter() - start
    found: dict[int, tuple[Run, Measures] | Failure] = dict(failed)
    for i, molecule, run in zip(possible, molecules, runs, strict=True):
        found[i] = run, measure(run, molecule, task.protocol, task.wanted[i])
    n_replica_steps = task.protocol.n_steps * sum(molecule.n_replicas for molecule in molecules)
    return _Result([found[i] for i in range(len(task.molecules))], n_replica_steps, seconds)


def _why_not(potential: Potential, molecule: Molecule) -> Failure | None:
    """Say why a potential cannot be asked about a molecule, such as an element it does not know."""
    try:
        batch = as_batch([replace(molecule, coords=molecule.coords[:1])])
        potential.bind(batch)(batch.coords)
    except PesfitError as error:
        return Failure.from_exception(molecule.name, STAGE, error)
    return None


def _level_of_theory(name: str) -> str:
    return LEVEL_OF_THEORY if name == GFN2 else f"pesfit {name}"


def _by_molecule(
    measured: Mapping[tuple[str, str], Mapping[str, Measures]], subjects: Sequence[Subject]
) -> list[dict[str, Any]]:
    of = {subject.name: subject.first for subject in subjects}
    return [
        {
            "potential": potential,
            "ensemble": ensemble,
            "molecule": molecule,
            "smiles": of[molecule].smiles,
            "source": of[molecule].source,
            "n_atoms": of[molecule].n_atoms,
            **summarize([measures]),
            "force_mae_over_time_ps": force_error_over_time(measures),
        }
        for (potential, ensemble), found in measured.items()
        for molecule, measures in found.items()
    ]


def _timing(speeds: Mapping[tuple[str, str], Sequence[tuple[int, float]]], timestep_fs: float) -> dict[str, Any]:
    """Return steps a second and ns a day, summed over replicas that one process advances together."""
    timing: dict[str, Any] = {}
    for (name, ensemble), tasks in speeds.items():
        n_replica_steps, seconds = (sum(values) for values in zip(*tasks, strict=True))
        speed = n_replica_steps / seconds if seconds > 0.0 else 0.0
        timing.setdefault(name, {})[ensemble] = {
            "seconds": seconds,
            "replica_steps_per_second": speed,
            "ns_per_day": speed * timestep_fs * 1e-6 * 86400,
        }
    return timing


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(value), indent=1, allow_nan=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
