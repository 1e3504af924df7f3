"""Minima and torsion drives among labeled conformers: butane with energies, dihedrals and forces made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from pesfit.chemistry.smiles import mapped_molecule, mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.minima import Landscapes
from pesfit.params.preparation import Minima
from pesfit.potentials.internal_coordinates import dihedrals
from pesfit.sources.labeled_minima import labeled_drives, labeled_minima, together
from pesfit.sources.minima import build_minima
from tests.sources.test_minima import record as embedded

CENTRAL, METHYL = (0, 1, 2, 3), (4, 0, 1, 2)
ANGLES = np.arange(-180.0, 180.0, 15.0)
BARRIER = 3.0


def butane(central: FloatArray, methyl: float = 180.0) -> Record:
    """Conformers with E = BARRIER/2 (1 + cos 3φ) + 1 + cos φ, and forces that are those of the torsion alone."""
    one = embedded("CCCC", "butane", "published/drives")
    mol = mapped_molecule(str(one.smiles))
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
    coords = []
    for angle in central:
        mol.GetConformer().SetPositions(one.coords[0].copy())
        rdMolTransforms.SetDihedralDeg(mol.GetConformer(), *METHYL, methyl)
        rdMolTransforms.SetDihedralDeg(mol.GetConformer(), *CENTRAL, float(angle))
        coords.append(mol.GetConformer().GetPositions())
    places, phi = np.array(coords), np.deg2rad(central)
    rows = dihedrals(torch.from_numpy(places), torch.tensor([CENTRAL])).rows[:, 0].numpy()
    slope = -1.5 * BARRIER * np.sin(3.0 * phi) - np.sin(phi)
    forces = np.zeros_like(places)
    forces[:, CENTRAL] = -slope[:, None, None] * rows
    energy = 0.5 * BARRIER * (1.0 + np.cos(3.0 * phi)) + 1.0 + np.cos(phi)
    return replace(one, coords=places, energy=energy, forces=forces, frame=np.arange(len(central)))


def joined(*records: Record) -> Record:
    return together(records)


def moving(n: int) -> Record:
    """Frames of molecular dynamics: any dihedral, large forces."""
    rng = np.random.default_rng(0)
    frames = butane(rng.uniform(-180.0, 180.0, n))
    return replace(frames, coords=frames.coords + rng.normal(0.0, 0.05, frames.coords.shape),
                   forces=rng.normal(0.0, 20.0, frames.coords.shape))  # fmt: skip


def test_a_drive_is_found_among_other_conformers() -> None:
    drive = butane(ANGLES)
    assert drive.forces is not None
    assert np.linalg.norm(drive.forces, axis=-1).max() > 1.0
    higher = replace(butane(ANGLES[:3]), energy=butane(ANGLES[:3]).energy + 1.0)
    (found,) = labeled_drives(mapped_molecule(str(drive.smiles)), joined(moving(50), higher, drive), 0.5)
    assert found.driven.tolist() == [list(CENTRAL)]
    np.testing.assert_allclose(np.rad2deg(found.angles[:, found.atoms.tolist().index(list(CENTRAL))]), ANGLES)
    np.testing.assert_allclose([point.energy for point in found.points], drive.energy)


def test_points_that_are_not_relaxed_are_left_out_and_dihedrals_that_are_frozen_are_held() -> None:
    drive = butane(ANGLES)
    assert drive.forces is not None
    mol = mapped_molecule(str(drive.smiles))
    rows = dihedrals(torch.from_numpy(drive.coords), torch.tensor([METHYL])).rows[:, 0].numpy()
    frozen = drive.forces.copy()
    frozen[:, METHYL] += 5.0 * rows
    frozen[4, 7] += 2.0
    (found,) = labeled_drives(mol, replace(drive, forces=frozen), 0.5)
    assert len(found.points) == len(ANGLES) - 1
    assert found.atoms.tolist()[0] == list(CENTRAL)
    assert list(METHYL) in found.atoms.tolist()
    frozen[:, 7] += 2.0
    assert labeled_drives(mol, replace(drive, forces=frozen), 0.5) == []


def test_two_dihedrals_that_are_driven_are_one_drive() -> None:
    turned = [butane(ANGLES[::2], methyl) for methyl in (150.0, 165.0, 180.0)]
    (found,) = labeled_drives(mapped_molecule(str(turned[0].smiles)), joined(*turned), 0.5)
    assert found.driven.tolist() == [list(CENTRAL), list(METHYL)]
    assert len(found.points) == 3 * len(ANGLES[::2])


def test_minima_are_low_and_barriers_and_last_steps_are_not() -> None:
    angles = np.arange(-180.0, 180.0, 10.0)
    record = butane(angles)
    mol = mapped_molecule(str(record.smiles))
    found = labeled_minima(mol, record, 1.2)
    assert [round(float(frame.energy), 2) for frame in found] == [0.0, 1.5]  # anti and gauche, whose mirror image is the same
    assert labeled_minima(mol, replace(record, forces=None), 1.2) == []
    assert labeled_minima(mol, moving(50), 0.8) == labeled_drives(mol, moving(50), 0.8) == []


def test_rows_in_another_order_of_atoms_are_brought_into_that_of_the_first() -> None:
    record = butane(ANGLES)
    order = np.random.default_rng(1).permutation(record.n_atoms)
    mol = Chem.RenumberAtoms(mapped_molecule(str(record.smiles)), order.tolist())
    assert record.forces is not None
    other = replace(
        record, id="other", smiles=mapped_smiles(mol), coords=record.coords[:, order], forces=record.forces[:, order],
        atomic_numbers=record.atomic_numbers[order],
    )  # fmt: skip
    both = joined(record, other)
    assert both.n_conformers == 2 * record.n_conformers
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mapped_molecule(str(both.smiles)).GetBonds()])
    lengths = np.linalg.norm(both.coords[:, bonds[:, 0]] - both.coords[:, bonds[:, 1]], axis=-1)
    assert lengths.max() < 1.7
    with pytest.raises(MoleculeError, match="different atoms"):
        joined(record, embedded("CCC", "propane"))


def test_the_stage_takes_them_from_data_of_another_method(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", {"published/drives": "B3LYP"}) as writer:
        writer.write(butane(ANGLES))
    params = Minima(sources=("published",))
    metrics = build_minima({"published": ConformerDataset(tmp_path / "data")}, params, tmp_path)
    assert (metrics["molecules"], metrics["minima"], metrics["scans"], metrics["scan_points"]) == (1, 2, 1, 24)
    found = Landscapes.open(tmp_path)
    assert dict(found.level_of_theory) == {"published/drives/minima": "B3LYP", "published/drives/scans": "B3LYP"}
    assert found.minima[0].hessians is None
    assert found.scans[0].record.id.startswith("butane/0-1-2-3")
    alone = replace(found, minima=())
    ((none, scans),) = alone.by_molecule()
    assert (none.record.id, none.record.n_conformers, none.hessians, len(scans)) == ("butane", 0, None, 1)
