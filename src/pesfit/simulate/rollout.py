"""Short simulations of the same molecules with each potential: stage 08."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pesfit.core.exceptions import DataError, Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE, write_json
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import DatasetWriter, write_failures
from pesfit.data.rollouts import DYNAMICS, ENERGIES_FILE, MEASURES_FILE, PROBES, TRAJECTORIES, write_energies
from pesfit.params.evaluation import Rollout
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.model import Model
from pesfit.simulate.measures import Measures, force_error_over_time, summarize
from pesfit.simulate.probes import write_probes
from pesfit.simulate.subjects import Subject, make_replicas
from pesfit.simulate.tasks import GFN2, STAGE, Participant, make_tasks, pickled, prepare, run_pickled
from pesfit.simulate.trajectories import energies, frames, source_of

_DIGITS = 10


def run_rollouts(
    models: Mapping[str, Model], subjects: Sequence[Subject], params: Rollout, output: Path, timing: Path | None = None
) -> dict[str, Any]:
    """Simulate every molecule with every potential, NVE and NVT, and measure what comes out.

    Every potential gets the same starting conformers, velocities and noise. Work is cut into tasks of one potential, NVE or NVT, and
    one of `shards` groups of molecules, which worker processes share; results do not depend on their number.

    Writes to `output`:

    - `trajectories/<potential>/`: a data set of frames with the potential's own energies and forces, `source` `rollout/<potential>`;
      `python -m pesfit label` makes training data of it;
    - `energies.arrow`: all observations, and standard deviations where there is a posterior (`data.rollouts.ENERGIES_SCHEMA`);
    - `probes/`: conformers on purpose outside of the training domain (`probes.write_probes`);
    - `measures.json`: what is measured for each potential, kind of dynamics and molecule;
    - `failures.csv`: molecules that a potential cannot be asked about, with ids `<potential>/<molecule>`.

    Args:
        models: by name; those that take longest first, so that workers finish together; GFN2-xTB as `GFN2`.
        subjects: as `subjects.find_subjects` finds them.
        params: section `rollout`.
        output: folder.
        timing: where steps a second and ns a day are written as JSON: a file that nothing declares, since they differ from run to run.

    Returns:
        Metrics: for each potential and kind of dynamics what `measures.summarize` says of all molecules.

    Raises:
        DataError: if there is no subject, or none of them can be simulated.
        TooManyFailuresError: where more than `max_failed_fraction` of the simulations (potential, molecule) fail.
    """
    if not subjects:
        raise DataError(f"no molecule of {', '.join(params.sources)} has test conformers to start from; see rollout.sources")
    torch.set_num_threads(1)  # a sum must not depend on how a machine's threads divide it
    participants, failures = _participants(models, subjects, params)
    check_failed_fraction(failures, len(models) * len(subjects), params.max_failed_fraction)
    tasks = list(make_tasks(models, participants, params))
    results = ordered_map(run_pickled, (pickled(task) for task in tasks), label=STAGE, n_items=len(tasks), unit="simulation")
    measured: dict[tuple[str, str], dict[str, Measures]] = {(name, kind): {} for name in models for kind in DYNAMICS}
    speeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    batches = []
    by_name = {subject.name: subject for subject in subjects}
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(DatasetWriter(output / TRAJECTORIES / name, {source_of(name): _level_of_theory(name)}))
            for name in models
        }
        for task, result in zip(tasks, results, strict=True):
            speeds.setdefault((task.name, task.dynamics), []).append((result.n_replica_steps, result.seconds))
            for run, carried, measures in result.found:
                measured[task.name, task.dynamics][run.name] = measures
                batches.append(energies(run, carried, task.name, task.dynamics, task.protocol.timestep_fs))
                for record in frames(run, task.name, task.dynamics, by_name[run.name].first):
                    writers[task.name].write(record)
    write_energies(output / ENERGIES_FILE, batches)
    write_failures(output / FAILURES_FILE, failures)
    probe_failures = write_probes(subjects, params.probes, output / PROBES)
    write_json(output / MEASURES_FILE, _by_molecule(measured, subjects), digits=_DIGITS, indent=1)
    if timing is not None:
        write_json(timing, _timing(speeds, params.timestep_fs), digits=_DIGITS, indent=1)
    return {
        "n_molecules": len(subjects),
        "n_failures": len(failures),
        "n_probe_failures": len(probe_failures),
        "potentials": {
            name: {dynamics: summarize(list(measured[name, dynamics].values())) for dynamics in DYNAMICS} for name in models
        },
    }


def _participants(
    models: Mapping[str, Model], subjects: Sequence[Subject], params: Rollout
) -> tuple[dict[str, list[Participant]], list[Failure]]:
    """Prepare all molecules for all models; a molecule that cannot be simulated at all fails with each of them."""
    made = list(zip(subjects, make_replicas(subjects, params.replicas), strict=True))
    participants: dict[str, list[Participant]] = {name: [] for name in models}
    failures: list[Failure] = []
    for name, model in models.items():
        for subject, molecule in made:
            if isinstance(molecule, Failure):
                failures.append(replace(molecule, id=f"{name}/{molecule.id}"))
                continue
            found = prepare(model, name, subject, molecule, params)
            if isinstance(found, Failure):
                failures.append(found)
            else:
                participants[name].append(found)
    return participants, failures


def _level_of_theory(name: str) -> str:
    return LEVEL_OF_THEORY if name == GFN2 else f"pesfit {name}"


def _by_molecule(
    measured: Mapping[tuple[str, str], Mapping[str, Measures]], subjects: Sequence[Subject]
) -> list[dict[str, Any]]:
    of = {subject.name: subject.first for subject in subjects}
    return [
        {
            "potential": potential,
            "dynamics": dynamics,
            "molecule": molecule,
            "smiles": of[molecule].smiles,
            "source": of[molecule].source,
            "n_atoms": of[molecule].n_atoms,
            **summarize([measures]),
            "force_mae_over_time_ps": force_error_over_time(measures),
        }
        for (potential, dynamics), found in measured.items()
        for molecule, measures in found.items()
    ]


def _timing(speeds: Mapping[tuple[str, str], Sequence[tuple[int, float]]], timestep_fs: float) -> dict[str, Any]:
    """Return steps a second and ns a day, summed over replicas that one process advances together."""
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
