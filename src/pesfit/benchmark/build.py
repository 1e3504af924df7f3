"""All potentials on all molecules with minima, in worker processes, into tables and a summary: the whole of the stage `benchmark`.

| file | a row for |
| --- | --- |
| `minima.csv` | each minimum of each molecule, with each potential: whether its minimization ended, and where |
| `frequencies.csv` | each normal mode of each minimum |
| `scans.csv` | each point of each torsion scan, with its first dihedral's angle; without a prediction where it did not relax |
| `molecules.csv` | each molecule: its measures (`summary`) |
| `failures.csv` | each molecule that a potential cannot be asked about, `<potential>/<data set>/<id>` |
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.benchmark.comparison import Comparison, Subject, compare
from pesfit.benchmark.summary import (
    ALL_MOLECULES,
    BETTER,
    COMPARED,
    HELD_OUT,
    START,
    TRAINED,
    MoleculeMeasures,
    better_than_start,
    measure,
    summarize_molecules,
)
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE, rounded
from pesfit.core.parallel import ordered_map, use_one_thread
from pesfit.data.dataset import write_failures
from pesfit.data.minima import Landscapes, MoleculeMinima, TorsionScan
from pesfit.data.topology import ParameterizedSet
from pesfit.params.evaluation import Benchmark
from pesfit.potentials.model import Model

STAGE = "benchmark"
MINIMA_FILE, FREQUENCIES_FILE, SCANS_FILE, MOLECULES_FILE = "minima.csv", "frequencies.csv", "scans.csv", "molecules.csv"
_REFERENCE, _NETWORKS = "gfn2", ("conservative", "direct")
_DIGITS = 7


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """One molecule for one potential.

    Attributes:
        potential: its name.
        model: pickled: torch would otherwise send tensors through shared memory, of which containers have little.
        minima, scans: of the molecule, as far as this potential is asked about them.
        charges: [e] of stage 03; None where it could not parameterize the molecule.
        max_steps: of a relaxation.
    """

    potential: str
    model: bytes
    minima: MoleculeMinima
    scans: tuple[TorsionScan, ...]
    charges: FloatArray | None
    max_steps: int


@dataclass(frozen=True, eq=False)
class ComparedMolecule:
    """What came of a task.

    Attributes:
        potential, molecule: names; the molecule's is `<data set>/<id>`.
        subset: `summary.TRAINED` or `summary.HELD_OUT`.
        comparison: all that was measured.
        measures: what the molecule contributes to the summary.
    """

    potential: str
    molecule: str
    subset: str
    comparison: Comparison
    measures: MoleculeMeasures


@dataclass(frozen=True, eq=False)
class BenchmarkData:
    """What potentials are compared on.

    Attributes:
        landscapes: minima and scans.
        parameterized: where the partial charges of molecules are.
        trained: groups of molecules with training conformers.
    """

    landscapes: Landscapes
    parameterized: ParameterizedSet
    trained: Collection[str]


def run_benchmark(models: Mapping[str, Model], data: BenchmarkData, params: Benchmark, output: Path) -> dict[str, Any]:
    """Compare potentials with the labels' minima, frequencies and scans, and write tables.

    GFN2-xTB is asked for minima alone, most of which it made.

    Args:
        models: by name.
        data: molecules.
        params: section `benchmark`.
        output: folder.

    Returns:
        Metrics: counts, and under `summary` for each potential and subset of molecules the measures of `summary.summarize_molecules`.

    Raises:
        TooManyFailuresError: where more than `max_failed_fraction` of the pairs of a potential and a molecule fail.
    """
    landscapes = data.landscapes
    tasks = list(_tasks(models, data, params))
    found: list[ComparedMolecule] = []
    failures: list[Failure] = []
    for task, result in zip(tasks, ordered_map(_run, tasks, label=STAGE, n_items=len(tasks)), strict=True):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            subset = TRAINED if task.minima.record.group in data.trained else HELD_OUT
            found.append(ComparedMolecule(task.potential, _name(task.minima), subset, result, measure(result)))
    check_failed_fraction(failures, len(tasks), params.max_failed_fraction)
    for file, rows in (
        (MINIMA_FILE, _minima_rows(found)),
        (FREQUENCIES_FILE, _frequency_rows(found)),
        (SCANS_FILE, _scan_rows(found)),
        (MOLECULES_FILE, _molecule_rows(found)),
    ):
        _write(output / file, list(rows))
    write_failures(output / FAILURES_FILE, failures)
    return {
        "molecules": sum(1 for _ in landscapes.by_molecule()),
        "minima": sum(each.record.n_conformers for each in landscapes.minima),
        "scans": len(landscapes.scans),
        "failures": len(failures),
        "summary": summarize_potentials(found, list(models)),
    }


def summarize_potentials(found: Sequence[ComparedMolecule], potentials: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarize over molecules: `{potential: {subset: {measure: value}}}`, subsets without a molecule left out."""
    start = {
        (each.molecule, profile.scan): profile
        for each in found
        if each.potential == START
        for profile in each.comparison.profiles
    }
    summaries: dict[str, dict[str, dict[str, Any]]] = {}
    for potential in potentials:
        summaries[potential] = {}
        for subset in (TRAINED, HELD_OUT, ALL_MOLECULES):
            chosen = [each for each in found if each.potential == potential and subset in (ALL_MOLECULES, each.subset)]
            if not chosen:
                continue
            pairs = [
                (profile, start[each.molecule, profile.scan])
                for each in chosen
                for profile in each.comparison.profiles
                if (each.molecule, profile.scan) in start
            ]
            better, compared = better_than_start(pairs)
            summaries[potential][subset] = summarize_molecules([each.measures for each in chosen])
            if potential != START and compared:
                summaries[potential][subset] |= {BETTER: better, COMPARED: compared}
    return summaries


def _tasks(models: Mapping[str, Model], data: BenchmarkData, params: Benchmark) -> Iterator[BenchmarkTask]:
    for name, model in models.items():
        pickled = pickle.dumps(model)
        for minima, scans in data.landscapes.by_molecule():
            record = minima.record
            topology = data.parameterized.topology(minima.dataset, record.id)
            charges = None if topology is None else topology.charges
            if name == _REFERENCE:
                if record.n_conformers:
                    yield BenchmarkTask(name, pickled, replace(minima, hessians=None), (), charges, params.max_steps)
            elif name in _NETWORKS:
                thinned = tuple(_every(scan, params.network_scan_step) for scan in scans)
                yield BenchmarkTask(name, pickled, minima, thinned, charges, params.max_steps)
            else:
                yield BenchmarkTask(name, pickled, minima, scans, charges, params.max_steps)


def _every(scan: TorsionScan, step: int) -> TorsionScan:
    chosen = np.arange(0, scan.record.n_conformers, step)
    return replace(scan, record=scan.record.select(chosen), angles=scan.angles[chosen])


def _name(minima: MoleculeMinima) -> str:
    return f"{minima.dataset}/{minima.record.id}"


def _run(task: BenchmarkTask) -> Comparison | Failure:
    use_one_thread()
    model: Model = pickle.loads(task.model)  # noqa: S301 - what `_tasks` made a moment ago
    record, name = task.minima.record, _name(task.minima)
    if model.needs_bonds and task.charges is None:
        return Failure(
            f"{task.potential}/{name}", STAGE, "NoTopology", "stage 03 could not parameterize it; see its own failures"
        )
    try:
        prepared = model.prepare(record.atomic_numbers, record.smiles, name, charges=task.charges)
        subject = Subject(task.minima, task.scans)
        return compare(subject, model.potential, prepared.conformers(record.coords), max_steps=task.max_steps)
    except Exception as error:  # noqa: BLE001  one molecule never stops the others
        return Failure.from_exception(f"{task.potential}/{name}", STAGE, error)


def _about(each: ComparedMolecule) -> dict[str, Any]:
    return {"potential": each.potential, "molecule": each.molecule, "subset": each.subset}


def _minima_rows(found: Iterable[ComparedMolecule]) -> Iterator[dict[str, Any]]:
    for each in found:
        geometry = each.comparison.geometry
        for i in range(len(geometry.converged)):
            yield _about(each) | {
                "minimum": i,
                "converged": int(geometry.converged[i]),
                "intact": int(geometry.intact[i]),
                "kept": int(geometry.kept[i]),
                "bond_rms_angstrom": float(geometry.bond[i]),
                "angle_rms_degree": float(geometry.angle[i]),
                "dihedral_rms_degree": float(geometry.dihedral[i]),
                "rmsd_angstrom": float(geometry.rmsd[i]),
                "tfd": float(geometry.tfd[i]),
                "relative_energy_kcal_per_mol": float(geometry.energy[i]),
                "label_kcal_per_mol": float(geometry.label[i]),
            }


def _frequency_rows(found: Iterable[ComparedMolecule]) -> Iterator[dict[str, Any]]:
    for each in found:
        for modes in each.comparison.frequencies:
            for i, (label, predicted) in enumerate(zip(modes.label.tolist(), modes.predicted.tolist(), strict=True)):
                yield _about(each) | {"minimum": modes.minimum, "mode": i, "label_per_cm": label, "predicted_per_cm": predicted}


def _scan_rows(found: Iterable[ComparedMolecule]) -> Iterator[dict[str, Any]]:
    for each in found:
        for profile in each.comparison.profiles:
            for angle, label, predicted in zip(profile.angles[:, 0], profile.label, profile.predicted, strict=True):
                yield _about(each) | {
                    "scan": profile.scan,
                    "angle_degree": float(np.rad2deg(angle)),
                    "label_kcal_per_mol": float(label),
                    "predicted_kcal_per_mol": float(predicted),
                }


def _molecule_rows(found: Sequence[ComparedMolecule]) -> Iterator[dict[str, Any]]:
    keys = dict.fromkeys(key for each in found for key in each.measures.sums)
    for each in found:
        values = each.measures.values()
        yield _about(each) | dict(each.measures.counts) | {key: values.get(key, float("nan")) for key in keys}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table; what is not finite is empty."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["potential", "molecule", "subset"], lineterminator="\n")
        writer.writeheader()
        for row in rounded(rows, _DIGITS):
            writer.writerow(
                {key: "" if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
            )
