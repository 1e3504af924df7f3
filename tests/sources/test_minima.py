"""Minima, Hessians and torsion scans by GFN2-xTB, and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pesfit.chemistry.smiles import group_of, mapped_smiles
from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record, read_failures
from pesfit.data.minima import Landscapes
from pesfit.params.preparation import Minima
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.internal_coordinates import dihedrals
from pesfit.sources.minima import build_minima, rotatable_dihedrals

PARAMS = Minima(n_conformers=3, n_minima=2, scans_per_molecule=1, scan_points=8, max_failed_fraction=0.5)


def record(smiles: str, name: str, source: str = "xtb/conformers") -> Record:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
    coords = mol.GetConformer().GetPositions()[None]
    return Record(
        id=name,
        smiles=mapped_smiles(mol),
        atomic_numbers=numbers,
        coords=coords,
        energy=np.zeros(1),
        forces=np.zeros_like(coords),
        charges=None,
        total_charge=Chem.GetFormalCharge(mol),
        group=group_of(mol),
        source=source,
        frame=np.zeros(1, dtype=np.int64),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("minima")
    levels = {"xtb/conformers": LEVEL_OF_THEORY, "other": "B3LYP"}
    ethanol, distorted = record("CCO", "ethanol"), record("CCF", "fluoroethane", "other")
    with DatasetWriter(folder / "data", levels) as writer:
        for each in (
            ethanol,
            replace(ethanol, id="ethanol again"),
            record("C", "methane"),
            replace(distorted, forces=np.full_like(distorted.coords, 9.0)),
            replace(record("CO", "without bonds"), smiles=None),
        ):
            writer.write(each)
    output = folder / "minima"
    output.mkdir()
    return output, build_minima(
        {"xtb": ConformerDataset(folder / "data")}, PARAMS.model_copy(update={"sources": ("xtb", "other")}), output
    )


def test_minima_are_minima_with_hessians_and_scans_go_round(built: tuple[Path, dict[str, object]]) -> None:
    folder, metrics = built
    found = Landscapes.open(folder)
    assert [each.record.id for each in found.minima] == ["ethanol", "methane"]
    assert (metrics["molecules"], metrics["minima"], metrics["scans"]) == (2, 3, 1)
    assert (metrics["left_out_without_bonds"], metrics["left_out_without_minima_and_scans"]) == (1, 1)
    assert read_failures(folder / "failures.csv") == []
    ethanol = found.minima[0]
    assert ethanol.dataset == "xtb"
    assert ethanol.record.n_conformers == 2  # anti and gauche
    assert 0.0 < float(np.diff(ethanol.record.energy)[0]) < 2.0
    assert ethanol.record.forces is not None
    assert np.linalg.norm(ethanol.record.forces, axis=-1).max() <= PARAMS.max_force
    assert ethanol.hessians is not None
    assert ethanol.hessians.shape == (2, 27, 27)
    assert (np.linalg.eigvalsh(ethanol.hessians)[:, 6:] > 0.0).all()
    (scan,) = found.scans
    assert (scan.dataset, scan.molecule) == ("xtb", "ethanol")
    values = dihedrals(torch.from_numpy(scan.record.coords.copy()), torch.from_numpy(scan.atoms)).values.numpy()
    assert np.abs(np.angle(np.exp(1j * (values - scan.angles)))).max() < np.deg2rad(1.0)
    assert 0.5 < scan.record.energy.max() - scan.record.energy.min() < 5.0


def test_the_same_content_gives_the_same_bytes_and_comes_back(built: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    folder, _ = built
    Landscapes.open(folder).write(tmp_path)
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path


def test_damaged_files_are_refused_by_name(built: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    folder, _ = built
    Landscapes.open(folder).write(tmp_path)
    (tmp_path / "hessians.arrow").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"hessians\.arrow cannot be read"):
        Landscapes.open(tmp_path)
    table = pa.ipc.open_stream(str(folder / "dihedrals.arrow")).read_all()
    with pa.ipc.new_stream(tmp_path / "dihedrals.arrow", table.schema):
        pass
    (tmp_path / "hessians.arrow").write_bytes((folder / "hessians.arrow").read_bytes())
    with pytest.raises(DataError, match=r"dihedrals\.arrow does not have the rows of"):
        Landscapes.open(tmp_path)


def test_bonds_that_turn() -> None:
    def found(smiles: str) -> list[tuple[int, ...]]:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(mol, randomSeed=1)
        return [tuple(atoms.tolist()) for atoms in rotatable_dihedrals(mol, mol.GetConformer().GetPositions())]

    assert found("CCCC")[0] == (0, 1, 2, 3)  # the middle bond first, then one of the two methyl groups
    assert len(found("CCCC")) == 2
    assert found("C1CCCCC1") == []  # a ring
    assert found("CC#CC") == []  # straight
    assert found("C=C") == []
    assert len(found("CCO")) == 2
