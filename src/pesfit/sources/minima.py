"""Minima, Hessians and relaxed torsion scans of molecules, made on this machine by the method that labeled their data.

For each molecule conformers are embedded (ETKDG, MMFF), relaxed, and told apart by energy and moments of inertia; each minimum gets a
Hessian by central differences. Each rotatable bond, up to a number, gets a scan: the fragment is turned rigidly from the lowest
minimum to each grid angle, and all else relaxes while the dihedral is held (`potentials.minimize`). Points do not depend on
each other, so none inherits its neighbor's basin: where a rigid turn ends in another basin, the scan has a jump, as a scan
of one direction would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from pesfit.core.exceptions import DataError, Failure, MoleculeError, PesfitError, check_failed_fraction
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
from pesfit.sources.xtb_dynamics import find_minima

STAGE = "minima"
_MAX_STEPS = 1000
_MAX_SCAN_ENERGY = 30.0
"""kcal/mol above the lowest point: what is higher, atoms that collided in the turn, is left out of a scan."""


@dataclass(frozen=True)
class _Task:
    """A molecule of a data set."""

    dataset: str
    record: Record


def build_minima(datasets: Mapping[str, ConformerDataset], params: Minima, output: Path) -> dict[str, Any]:
    """Find minima and scans of the molecules of data sets, in worker processes: the whole of the stage `minima`.

    Rows of the same molecule (`group`) are one molecule; so are rows of other sources that `params.sources` names. Molecules whose
    labels are of another level of theory than GFN2-xTB, or without bonds, are left out and counted.

    Args:
        datasets: by name.
        params: section `minima`.
        output: folder to write.

    Returns:
        Metrics.

    Raises:
        TooManyFailuresError: where more than `max_failed_fraction` fail.
    """
    tasks, n_left_out = _tasks(datasets, params)
    molecules: list[MoleculeMinima] = []
    scans: list[TorsionScan] = []
    failures: list[Failure] = []
    for found in ordered_map(partial(_run, params), tasks, label=STAGE, n_items=len(tasks)):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            molecules.append(found[0])
            scans += found[1]
    check_failed_fraction(failures, len(tasks), params.max_failed_fraction)
    sources = {record.source for record in (*(m.record for m in molecules), *(s.record for s in scans))}
    Landscapes(tuple(molecules), tuple(scans), dict.fromkeys(sources, LEVEL_OF_THEORY)).write(output)
    write_failures(output / FAILURES_FILE, failures)
    return {
        "molecules": len(molecules),
        "minima": sum(each.record.n_conformers for each in molecules),
        "scans": len(scans),
        "scan_points": sum(scan.record.n_conformers for scan in scans),
        "failures": len(failures),
        "left_out_other_level_of_theory": n_left_out,
    }


def _tasks(datasets: Mapping[str, ConformerDataset], params: Minima) -> tuple[list[_Task], int]:
    tasks: list[_Task] = []
    seen: set[str] = set()
    n_left_out = 0
    for name, dataset in datasets.items():
        for i, (source, group) in enumerate(
            zip(*(dataset.table.column(c).to_pylist() for c in ("source", "group")), strict=True)
        ):
            if group in seen or not any(covers(wanted, source) for wanted in params.sources):
                continue
            seen.add(group)
            record = dataset[i]
            if record.smiles is None or dataset.level_of_theory[source] != LEVEL_OF_THEORY:
                n_left_out += 1
            else:
                tasks.append(_Task(name, record.select([0])))
    return tasks, n_left_out


def _run(params: Minima, task: _Task) -> tuple[MoleculeMinima, list[TorsionScan]] | Failure:
    use_one_thread()
    try:
        return _Molecule(task, params).landscape()
    except MoleculeError as error:
        return Failure.from_exception(f"{task.dataset}/{task.record.id}", STAGE, error)
    except PesfitError:
        raise
    except Exception as error:  # noqa: BLE001  one molecule never stops the others
        return Failure.from_exception(f"{task.dataset}/{task.record.id}", STAGE, error)


class _Molecule:
    """One molecule with the potential that labels it."""

    def __init__(self, task: _Task, params: Minima) -> None:
        self.task, self.params, record = task, params, task.record
        if record.smiles is None:
            raise DataError(f"{record.id} has no SMILES")
        self.mol = mapped_molecule(record.smiles)
        self.connectivity = Connectivity(self.mol)
        self.potential: Potential = Gfn2Potential()

    def landscape(self) -> tuple[MoleculeMinima, list[TorsionScan]]:
        found = find_minima(self.mol, self.params.n_conformers, self.params.seed & 0x7FFFFFFF, self.params.max_force)
        kept = found[: self.params.n_minima]
        coords = np.stack([frame.coords for frame in kept])
        record = self._record(
            self.task.record.id, "minima", coords, np.array([f.energy for f in kept]), np.stack([f.forces for f in kept])
        )
        curvatures = hessians(self.potential, self._conformers(coords)) if self.params.hessians else None
        minima = MoleculeMinima(record, self.task.dataset, curvatures)
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
            restraints=[Restraint(atoms, angles)],
        )
        fine = relaxed.converged & self.connectivity.holds(relaxed.coords)
        fine[fine] &= relaxed.energy[fine] - relaxed.energy[fine].min(initial=np.inf) < _MAX_SCAN_ENERGY
        if fine.sum() < self.params.scan_points // 2:
            return None
        name = "-".join(str(int(atom)) for atom in atoms)
        record = self._record(
            f"{self.task.record.id}/{name}", "scans", relaxed.coords[fine], relaxed.energy[fine], relaxed.forces[fine]
        )
        return TorsionScan(record, self.task.dataset, self.task.record.id, atoms, angles[fine])

    def _conformers(self, coords: FloatArray) -> Conformers:
        numbers = torch.from_numpy(self.task.record.atomic_numbers.astype(np.int64))
        return Conformers(numbers, torch.from_numpy(coords), total_charge=self.task.record.total_charge)

    def _record(self, name: str, kind: str, coords: FloatArray, energy: FloatArray, forces: FloatArray) -> Record:
        record = self.task.record
        return Record(
            id=name,
            smiles=record.smiles,
            atomic_numbers=record.atomic_numbers,
            coords=coords,
            energy=energy,
            forces=forces,
            charges=record.charges,
            total_charge=record.total_charge,
            group=record.group,
            source=f"{record.source.partition('/')[0]}/{kind}",
            frame=np.arange(len(energy), dtype=np.int64),
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
