"""Minima, Hessians and relaxed torsion scans of molecules, by the method that labeled their data.

Molecules labeled with GFN2-xTB get theirs made on this machine. For each, conformers are embedded (ETKDG, MMFF), relaxed, and told
apart by energy and moments of inertia; each minimum gets a Hessian by central differences. Each rotatable bond, up to a number, gets a
scan: the fragment is turned rigidly from the lowest minimum to each grid angle, and all else relaxes while the dihedral is held
(`potentials.minimize`). Points do not depend on each other, so none inherits its neighbor's basin: where a rigid turn ends in another
basin, the scan has a jump, as a scan of one direction would have.

Molecules labeled by another method get those that are among their conformers (`sources.labeled_minima`), without Hessians.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import Failure, MoleculeError, PesfitError, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map, use_one_thread
from pesfit.data.dataset import ConformerDataset, Record, write_failures
from pesfit.data.minima import Landscapes, MoleculeMinima, TorsionScan
from pesfit.data.sources import covers
from pesfit.params.preparation import Minima
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Conformers, Potential
from pesfit.potentials.internal_coordinates import STRAIGHT, angles
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.vibrations import hessians
from pesfit.sources.labeled_minima import MAX_SCAN_ENERGY, labeled_drives, labeled_minima, together
from pesfit.sources.xtb_dynamics import LabeledFrame, find_minima

STAGE = "minima"
_MAX_STEPS = 1000
_Found = tuple[MoleculeMinima | None, list[TorsionScan]]


@dataclass(frozen=True)
class _Task:
    """A molecule of a data set: all its rows, or one conformer where minima are made, with the level of theory."""

    dataset: str
    rows: tuple[Record, ...]
    level_of_theory: str


def build_minima(datasets: Mapping[str, ConformerDataset], params: Minima, output: Path) -> dict[str, Any]:
    """Find minima and scans of the molecules of data sets, in worker processes: the whole of the stage `minima`.

    Rows of the same molecule (`group`) are one molecule; so are rows of other sources that `params.sources` names. Molecules without
    bonds, and those labeled by another method among whose conformers is neither a minimum nor a torsion drive, are left out and counted.

    Args:
        datasets: by name.
        params: section `minima`.
        output: folder to write.

    Returns:
        Metrics.

    Raises:
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    plan, n_without_bonds = _plan(datasets, params)
    molecules: list[MoleculeMinima] = []
    scans: list[TorsionScan] = []
    failures: list[Failure] = []
    levels: dict[str, str] = {}
    n_without = 0
    tasks, again = itertools.tee(_task(datasets, *entry) for entry in plan)
    for task, found in zip(again, ordered_map(partial(_run, params), tasks, label=STAGE, n_items=len(plan)), strict=True):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        minima, scanned = found
        molecules += [] if minima is None else [minima]
        scans += scanned
        records = [*([] if minima is None else [minima.record]), *(scan.record for scan in scanned)]
        levels |= {record.source: task.level_of_theory for record in records}
        n_without += not records
    check_failed_fraction(failures, len(plan), params.max_failed_fraction)
    Landscapes(tuple(molecules), tuple(scans), levels).write(output)
    write_failures(output / FAILURES_FILE, failures)
    return {
        "molecules": len(plan) - len(failures) - n_without,
        "minima": sum(each.record.n_conformers for each in molecules),
        "scans": len(scans),
        "scan_points": sum(scan.record.n_conformers for scan in scans),
        "failures": len(failures),
        "left_out_without_bonds": n_without_bonds,
        "left_out_without_minima_and_scans": n_without,
    }


def _plan(datasets: Mapping[str, ConformerDataset], params: Minima) -> tuple[list[tuple[str, list[int]]], int]:
    """Return data set and rows of each molecule, those of the data set and level of theory that it is first met in."""
    plan: dict[str, tuple[str, str, list[int]]] = {}
    without_bonds: set[str] = set()
    for name, dataset in datasets.items():
        columns = (dataset.table.column(c).to_pylist() for c in ("source", "group", "smiles"))
        for i, (source, group, smiles) in enumerate(zip(*columns, strict=True)):
            if not any(covers(wanted, source) for wanted in params.sources):
                continue
            if smiles is None:
                without_bonds.add(group)
                continue
            level = dataset.level_of_theory[source]
            first_name, first_level, rows = plan.setdefault(group, (name, level, []))
            if (first_name, first_level) == (name, level) and (not rows or level != LEVEL_OF_THEORY):
                rows.append(i)
    return [(name, rows) for name, _, rows in plan.values()], len(without_bonds - plan.keys())


def _task(datasets: Mapping[str, ConformerDataset], name: str, rows: Sequence[int]) -> _Task:
    dataset = datasets[name]
    records = [dataset[i] for i in rows]
    level = dataset.level_of_theory[records[0].source]
    if level == LEVEL_OF_THEORY:
        records = [record.select([0]) for record in records]
    return _Task(name, tuple(records), level)


def _run(params: Minima, task: _Task) -> _Found | Failure:
    use_one_thread()
    try:
        if task.level_of_theory == LEVEL_OF_THEORY:
            return _Molecule(task.dataset, task.rows[0], params).landscape()
        return _among_conformers(task.dataset, together(task.rows), params)
    except MoleculeError as error:
        return Failure.from_exception(f"{task.dataset}/{task.rows[0].id}", STAGE, error)
    except PesfitError:
        raise
    except Exception as error:  # noqa: BLE001  one molecule never stops the others
        return Failure.from_exception(f"{task.dataset}/{task.rows[0].id}", STAGE, error)


def _among_conformers(dataset: str, record: Record, params: Minima) -> _Found:
    mol = mapped_molecule(str(record.smiles))
    found = labeled_minima(mol, record, params.labeled_max_force)[: params.n_minima]
    minima = None
    if found:
        minima = MoleculeMinima(_record(record, record.id, f"{record.source}/minima", found), dataset, None)
    scans = []
    for drive in labeled_drives(mol, record, params.labeled_max_force)[: params.scans_per_molecule]:
        name = "_".join("-".join(map(str, atoms.tolist())) for atoms in drive.driven)
        points = _record(record, f"{record.id}/{name}", f"{record.source}/scans", drive.points)
        scans.append(TorsionScan(points, dataset, record.id, drive.atoms, drive.angles))
    return minima, scans


class _Molecule:
    """One molecule with the potential that labels it."""

    def __init__(self, dataset: str, record: Record, params: Minima) -> None:
        self.dataset, self.record, self.params = dataset, record, params
        self.mol = mapped_molecule(str(record.smiles))
        self.connectivity = Connectivity(self.mol)
        self.potential: Potential = Gfn2Potential()
        self.source = record.source.partition("/")[0]

    def landscape(self) -> _Found:
        found = find_minima(self.mol, self.params.n_conformers, self.params.seed & 0x7FFFFFFF, self.params.max_force)
        kept = found[: self.params.n_minima]
        coords = np.stack([frame.coords for frame in kept])
        record = _record(self.record, self.record.id, f"{self.source}/minima", kept)
        curvatures = hessians(self.potential, self._conformers(coords)) if self.params.hessians else None
        minima = MoleculeMinima(record, self.dataset, curvatures)
        bonds = rotatable_dihedrals(self.mol, coords[0])[: self.params.scans_per_molecule]
        return minima, [scan for atoms in bonds if (scan := self._scan(coords[0], atoms)) is not None]

    def _scan(self, start: FloatArray, atoms: LongArray) -> TorsionScan | None:
        ends = cast("tuple[int, int, int, int]", tuple(atoms.tolist()))
        angles = np.asarray(
            -np.pi + 2.0 * np.pi * np.arange(self.params.scan_points) / self.params.scan_points, dtype=np.float64
        )
        mol = Chem.Mol(self.mol)
        mol.RemoveAllConformers()
        mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
        turned = []
        for angle in angles:
            mol.GetConformer().SetPositions(start.copy())
            rdMolTransforms.SetDihedralRad(mol.GetConformer(), *ends, float(angle))
            turned.append(np.array(mol.GetConformer().GetPositions()))
        (relaxed,) = minimize(
            self.potential,
            [self._conformers(np.stack(turned))],
            max_force=self.params.scan_max_force,
            max_steps=_MAX_STEPS,
            restraints=[Restraint(atoms[None], angles[:, None])],
        )
        fine = relaxed.converged & self.connectivity.holds(relaxed.coords)
        fine[fine] &= relaxed.energy[fine] - relaxed.energy[fine].min(initial=np.inf) < MAX_SCAN_ENERGY
        if fine.sum() < self.params.scan_points // 2:
            return None
        name = "-".join(str(int(atom)) for atom in atoms)
        points = [LabeledFrame(relaxed.coords[i], float(relaxed.energy[i]), relaxed.forces[i]) for i in np.flatnonzero(fine)]
        record = _record(self.record, f"{self.record.id}/{name}", f"{self.source}/scans", points)
        return TorsionScan(record, self.dataset, self.record.id, atoms[None], angles[fine, None])

    def _conformers(self, coords: FloatArray) -> Conformers:
        numbers = torch.from_numpy(self.record.atomic_numbers.astype(np.int64))
        return Conformers(numbers, torch.from_numpy(coords), total_charge=self.record.total_charge)


def _record(molecule: Record, name: str, source: str, frames: Sequence[LabeledFrame]) -> Record:
    return replace(
        molecule,
        id=name,
        source=source,
        coords=np.stack([frame.coords for frame in frames]),
        energy=np.array([frame.energy for frame in frames]),
        forces=np.stack([frame.forces for frame in frames]),
        frame=np.arange(len(frames), dtype=np.int64),
    )


def rotatable_dihedrals(mol: Chem.Mol, coords: FloatArray) -> list[LongArray]:
    """List one dihedral for each distinct bond about which a molecule turns, those between larger fragments first.

    A bond turns if it is single, in no ring, and both of its atoms have another neighbor, at an angle that is not straight. Of bonds
    that symmetry makes equal, the first is taken. The dihedral's ends are the heaviest neighbors, those with the lowest index among equals.

    Args:
        mol: with all atoms.
        coords: [Å] of a minimum, shape (n_atoms, 3).
    """
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    found: dict[tuple[int, ...], tuple[tuple[int, int], LongArray]] = {}
    for bond in mol.GetBonds():
        left, right = bond.GetBeginAtom(), bond.GetEndAtom()
        if bond.IsInRing() or bond.GetBondType() != Chem.BondType.SINGLE or min(left.GetDegree(), right.GetDegree()) < 2:
            continue
        ends = [_end(a, b) for a, b in ((left, right), (right, left))]
        atoms = np.array([ends[0].GetIdx(), left.GetIdx(), right.GetIdx(), ends[1].GetIdx()], dtype=np.int64)
        bends = angles(torch.from_numpy(np.array(coords)), torch.from_numpy(np.stack([atoms[:3], atoms[1:]]))).values
        if bool((bends > STRAIGHT).any()):
            continue
        key = tuple(sorted((ranks[left.GetIdx()], ranks[right.GetIdx()])))
        heavy = sum(end.GetAtomicNum() > 1 for end in ends)
        size = min(sum(n.GetAtomicNum() > 1 for n in atom.GetNeighbors()) for atom in (left, right))
        found.setdefault(key, ((-heavy, -size), atoms))
    return [atoms for _, atoms in sorted(found.values(), key=lambda item: item[0])]


def _end(atom: Chem.Atom, other: Chem.Atom) -> Chem.Atom:
    neighbors: Iterable[Chem.Atom] = (n for n in atom.GetNeighbors() if n.GetIdx() != other.GetIdx())
    return min(neighbors, key=lambda n: (-n.GetAtomicNum(), n.GetIdx()))
