"""Probes: conformers outside of the training domain, labeled with GFN2-xTB, from hot dynamics and by stretching bonds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import Failure, MoleculeError
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import DatasetWriter, Record, write_failures
from pesfit.params.evaluation import Probes
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.gfn2_model import Gfn2Model, Gfn2Potential
from pesfit.potentials.model import PreparedMolecule
from pesfit.simulate.loop import Protocol, simulate
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.replicas import Replicas

STAGE = "probes"
PROBE = "probe"
"""First part of the `source` of probes."""

Kind = Literal["hot", "stretched"]


def source_of(kind: Kind, size: float) -> str:
    """Return the `source` of probes: `probe/hot-1000K`, `probe/stretched-0.2A`.

    Args:
        kind: of the probes.
        size: temperature [K], or by how much bonds are stretched [Å].
    """
    return f"{PROBE}/{kind}-{size:g}{'K' if kind == 'hot' else 'A'}"


def write_probes(molecules: Sequence[SimulatedMolecule], params: Probes, output: Path) -> list[Failure]:
    """Make the probes of each molecule and write them as a data set, with `failures.csv` beside it.

    - `probe/hot-<T>K`: frames of Langevin dynamics with GFN2-xTB from test conformers. A replica that comes apart is cut before that.
      `frame` is the number of steps from the start.
    - `probe/stretched-<d>A`: test conformers with one bond stretched, the smaller fragment moved rigidly along it. Bonds that are in no
      ring are taken in turn. `frame` counts them.

    Energies and forces are GFN2-xTB's, charges those of the stored topologies. Random numbers depend on the seed, the molecule and the
    temperature: the same bytes from any number of worker processes.

    Args:
        molecules: from `molecules.find_molecules`.
        params: part `probes` of section `rollout`.
        output: folder.

    Returns:
        The failures, with ids `<kind of probe>/<molecule>`.
    """
    sizes: list[tuple[Kind, float]] = [("hot", temperature) for temperature in params.temperatures_kelvin]
    sizes += [("stretched", length) for length in params.stretch_angstrom]
    failures: list[Failure] = []
    with DatasetWriter(output, {source_of(*of): LEVEL_OF_THEORY for of in sizes}) as writer:
        tasks = [_task(molecule, *of, params) for of in sizes for molecule in molecules]
        for found in ordered_map(_make, tasks, label=STAGE, n_items=len(tasks), unit="probe"):
            if isinstance(found, Failure):
                failures.append(found)
                continue
            for record in found:
                writer.write(record)
    write_failures(output / FAILURES_FILE, failures)
    return failures


@dataclass(frozen=True, eq=False)
class _ProbeTask:
    """One kind of probe of one molecule.

    Attributes:
        molecule: with the conformers to start from; its name tells kinds of probes and temperatures apart.
        like: a row with the probes' source and the molecule's SMILES, elements, charges and group.
        n_starts: number of test conformers; later replicas start from them again.
    """

    kind: Kind
    size: float
    molecule: Replicas
    like: Record
    n_starts: int
    params: Probes


def _task(source: SimulatedMolecule, kind: Kind, size: float, params: Probes) -> _ProbeTask | Failure:
    name = f"{source_of(kind, size).removeprefix(f'{PROBE}/')}/{source.name}"
    n_starts = len(source.starts)
    try:
        molecule = source.replicas(params.replicas if kind == "hot" else params.conformers)
    except MoleculeError as error:
        return Failure.from_exception(name, STAGE, error)
    charges = None if source.topology is None else source.topology.charges
    like = replace(source.first.select([0]), charges=charges, source=source_of(kind, size))
    return _ProbeTask(kind, size, replace(molecule, name=name), like, n_starts, params)


def _make(task: _ProbeTask | Failure) -> list[Record] | Failure:
    if isinstance(task, Failure):
        return task
    try:
        found = _hot(task) if task.kind == "hot" else _stretched(task)
    except MoleculeError as error:
        return Failure.from_exception(task.molecule.name, STAGE, error)
    parts = (replace(record, id=f"{task.molecule.name}/{part:04d}") for part, record in enumerate(found))
    records = [row for part in parts for row in part.rows()]
    if not records:
        nothing = MoleculeError("every replica broke at once, or GFN2-xTB has no energy for any conformer")
        return Failure.from_exception(task.molecule.name, STAGE, nothing)
    return records


def _hot(task: _ProbeTask) -> list[Record]:
    """Return the frames of each replica from the end of equilibration on, until it was stopped."""
    params = task.params
    every = round(params.frame_fs / params.timestep_fs)
    left_out = round(params.equilibration_fs / params.timestep_fs)
    protocol = Protocol(
        timestep_fs=params.timestep_fs,
        n_steps=left_out + params.frames * every,
        observe_every=every,  # every observation is a frame
        temperature_kelvin=task.size,
        friction_per_ps=params.friction_per_ps,
        seed=params.seed,
        max_stretch=params.max_stretch_angstrom,
    )
    (run,) = simulate(Gfn2Potential(), [task.molecule], protocol)
    steps = run.frame_step.astype(np.int64)
    found = []
    for replica in range(task.molecule.n_replicas):
        kept = np.flatnonzero(steps[: run.n_frames(replica)] > left_out)
        coords, energy, forces = (values[replica, kept] for values in (run.coords, run.potential_energy, run.forces))
        found.append(replace(task.like, coords=coords, energy=energy, forces=forces, frame=steps[kept]))
    return found


def _stretched(task: _ProbeTask) -> list[Record]:
    """Return test conformers, each with one bond stretched; a conformer that comes again has its next bond stretched.

    Raises:
        MoleculeError: where all bonds are in rings, or GFN2-xTB does not cover the molecule.
    """
    bonds = task.molecule.bonds
    moved = [] if bonds is None else list(_fragments(bonds, task.molecule.n_atoms))
    if not moved:
        raise MoleculeError("it has no bond outside of a ring that could be stretched")
    n_starts = min(task.n_starts, task.molecule.n_replicas)
    coords = task.molecule.coords[: n_starts * len(moved)].copy()
    for i, conformer in enumerate(coords):
        conformer[:] = stretch(conformer, *moved[(i % n_starts + i // n_starts) % len(moved)], task.size)
    prepared = PreparedMolecule(task.molecule.atomic_numbers, None, task.molecule.total_charge)
    energy, forces = Gfn2Model().evaluate(prepared, coords)
    kept = np.flatnonzero(np.isfinite(energy) & np.isfinite(forces).all(axis=(1, 2)))
    return [replace(task.like, coords=coords[kept], energy=energy[kept], forces=forces[kept], frame=kept)]


def stretch(coords: FloatArray, bond: tuple[int, int], fragment: IntArray, length: float) -> FloatArray:
    """Move a fragment along the bond that holds it.

    Args:
        coords: [Å], shape (n_atoms, 3).
        bond: an atom outside of the fragment, and one inside.
        fragment: atoms that move.
        length: [Å], by how much the bond grows.

    Raises:
        MoleculeError: where the two atoms are at the same place.
    """
    direction = coords[bond[1]] - coords[bond[0]]
    distance = float(np.linalg.norm(direction))
    if distance == 0.0:
        raise MoleculeError(f"atoms {bond[0]} and {bond[1]} are at the same place")
    moved = coords.copy()
    moved[fragment] += length / distance * direction
    return moved


def _fragments(bonds: IntArray, n_atoms: int) -> Iterator[tuple[tuple[int, int], IntArray]]:
    """Yield each bond that is in no ring, the atom that stays first, and the atoms of the smaller fragment, which moves."""
    neighbors: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in bonds.tolist():
        neighbors[a].append(b)
        neighbors[b].append(a)
    for a, b in bonds.tolist():
        side = _side(neighbors, a, b)
        if a in side:
            continue
        other = _side(neighbors, b, a)
        stays, moves, fragment = (a, b, side) if len(side) <= len(other) else (b, a, other)
        yield (stays, moves), np.array(sorted(fragment), dtype=np.int32)


def _side(neighbors: Sequence[Sequence[int]], without: int, start: int) -> set[int]:
    """Return the atoms that can be reached from one end of a bond without crossing it."""
    found, waiting = {start}, [start]
    while waiting:
        atom = waiting.pop()
        for other in neighbors[atom]:
            if other not in found and (atom, other) != (start, without):
                found.add(other)
                waiting.append(other)
    return found
