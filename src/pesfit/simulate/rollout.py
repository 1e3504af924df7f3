"""Short simulations of the same molecules with each potential: stage 08."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from pesfit.core.exceptions import DataError, Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE, write_json
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import MAX_FRAMES_PER_ROW, DatasetWriter, Record, write_failures
from pesfit.data.rollouts import DYNAMICS, ENERGIES_FILE, ENERGIES_SCHEMA, MEASURES_FILE, PROBES, TRAJECTORIES, write_energies
from pesfit.params.evaluation import Rollout
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.model import Model
from pesfit.simulate.loop import Trajectories
from pesfit.simulate.measures import Measures, UncertaintyAlong, force_error_over_time, summarize
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.probes import write_probes
from pesfit.simulate.tasks import GFN2, STAGE, Participant, make_tasks, pickled, prepare, run_pickled

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
    results = ordered_map(run_pickled, (pickled(task) for task in tasks), label=STAGE, n_items=len(tasks), unit="simulation")
    measured: dict[tuple[str, str], dict[str, Measures]] = {(name, kind): {} for name in models for kind in DYNAMICS}
    speeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    batches = []
    by_name = {molecule.name: molecule for molecule in molecules}
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(DatasetWriter(output / TRAJECTORIES / name, {source_of(name): _level_of_theory(name)}))
            for name in models
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


def _level_of_theory(name: str) -> str:
    return LEVEL_OF_THEORY if name == GFN2 else f"pesfit {name}"


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
    """Yield the frames of each replica until it was stopped, in rows of at most `MAX_FRAMES_PER_ROW`.

    Energies and forces are the potential's own. `frame` is the number of steps from the start.

    Args:
        run: of one molecule.
        potential: its name.
        dynamics: `nve` or `nvt`.
        like: a row of the molecule, for SMILES, elements, charge and group.
    """
    energies = run.potential_energy[:, (run.step[:, None] == run.frame_step).argmax(axis=0)]
    for replica in range(len(run.coords)):
        n_frames = run.n_frames(replica)
        for row, start in enumerate(range(0, n_frames, MAX_FRAMES_PER_ROW)):
            part = slice(start, min(start + MAX_FRAMES_PER_ROW, n_frames))
            yield Record(
                id=f"{dynamics}/{run.name}/{replica:04d}/{row:05d}",
                smiles=like.smiles,
                atomic_numbers=like.atomic_numbers,
                coords=run.coords[replica, part],
                energy=energies[replica, part],
                forces=run.forces[replica, part],
                charges=None,
                total_charge=like.total_charge,
                group=like.group,
                source=source_of(potential),
                frame=run.frame_step[part].astype("int64"),
            )


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
