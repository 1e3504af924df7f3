"""Molecules to simulate, their starting conformers and reference data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DataError, MoleculeError, ParamsError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.params.evaluation import Rollout
from pesfit.simulate.molecules import SimulatedMolecule, find_molecules

WATER = "[O:1]([H:2])[H:3]"


def water(row_id: str, n_conformers: int, source: str = "xtb/conformers", smiles: str | None = WATER) -> Record:
    coords = np.random.default_rng(len(row_id)).normal(size=(n_conformers, 3, 3))
    return Record(
        id=row_id,
        smiles=smiles,
        atomic_numbers=np.array([8, 1, 1], dtype=np.int32),
        coords=coords,
        energy=np.zeros(n_conformers),
        forces=None,
        charges=None,
        total_charge=0,
        group=row_id.split("/")[1],
        source=source,
        frame=np.arange(n_conformers),
    )


@pytest.fixture
def data(tmp_path: Path) -> tuple[dict[str, ConformerDataset], Splits]:
    rows = [
        (water("conformers/a", 3), [0, 0, 0]),
        (water("conformers/b", 2), [2, 2]),
        (water("conformers/c", 4), [0, 2, 1, 2]),
        (water("conformers/d", 1), [2]),
        (water("trajectory/e/00000", 5, "xtb/trajectory"), [0, 0, 0, 2, 255]),
        (water("trajectory/e/00001", 4, "xtb/trajectory"), [2, 2, 2, 0]),
    ]
    with DatasetWriter(tmp_path / "xtb", {"xtb/conformers": "GFN2-xTB", "xtb/trajectory": "other"}) as writer:
        for record, _ in rows:
            writer.write(record)
    splits = Splits(SplitRow("xtb", record.id, record.group, np.array(split, dtype=np.uint8)) for record, split in rows)
    return {"xtb": ConformerDataset(tmp_path / "xtb")}, splits


def test_the_first_molecules_of_each_source_with_test_conformers_are_taken(data) -> None:
    datasets, splits = data
    molecules = find_molecules(datasets, splits, None, Rollout(molecules_per_source=2))
    assert [molecule.name for molecule in molecules] == ["xtb/conformers/b", "xtb/conformers/c", "xtb/trajectory/e"]
    assert [molecule.level_of_theory for molecule in molecules] == ["GFN2-xTB", "GFN2-xTB", "other"]
    assert [len(molecule.starts) for molecule in molecules] == [2, 2, 4]
    assert [molecule.n_conformers for molecule in molecules] == [2, 4, 9]
    np.testing.assert_array_equal(molecules[1].starts, datasets["xtb"][2].coords[[1, 3]])
    assert len(find_molecules(datasets, splits, None, Rollout(sources=("xtb/trajectory",)))) == 1
    assert find_molecules(datasets, splits, None, Rollout(sources=("espaloma",))) == []


def test_a_source_that_does_not_exist_is_refused(data) -> None:
    with pytest.raises(ParamsError, match=r"rollout.sources: 'xbt' is no source; .* did you mean 'xtb'"):
        find_molecules(*data, None, Rollout(sources=("xbt",)))


def test_splits_of_other_data_are_refused(data) -> None:
    with pytest.raises(DataError, match="hold no row"):
        find_molecules(data[0], Splits([]), None, Rollout())


def test_replicas_start_from_test_conformers_spread_over_all_or_in_turn(data) -> None:
    trajectory = find_molecules(*data, None, Rollout(sources=("xtb/trajectory",)))[0]
    two, six = trajectory.replicas(2), trajectory.replicas(6)
    np.testing.assert_array_equal(two.coords, trajectory.starts[[0, 2]])
    np.testing.assert_array_equal(six.coords, trajectory.starts[[0, 1, 2, 3, 0, 1]])
    np.testing.assert_allclose(two.masses, [15.999, 1.008, 1.008], atol=1e-3)


def test_bond_lengths_are_means_over_all_reference_conformers(data) -> None:
    trajectory = find_molecules(*data, None, Rollout(sources=("xtb/trajectory",)))[0]
    molecule = trajectory.replicas(1)
    coords = np.concatenate([row.coords for row in trajectory.rows])
    np.testing.assert_array_equal(molecule.bonds, [[0, 1], [0, 2]])
    expected = np.linalg.norm(coords[:, 1:] - coords[:, :1], axis=2).mean(axis=0)
    np.testing.assert_allclose(molecule.bond_lengths, expected)


def test_a_molecule_without_known_bonds_has_no_replicas(data) -> None:
    molecule = find_molecules(*data, None, Rollout())[0]
    unknown = replace(molecule, rows=tuple(replace(row, smiles=None) for row in molecule.rows))
    with pytest.raises(MoleculeError, match="neither a SMILES nor a topology names the bonds"):
        unknown.replicas(2)


@pytest.mark.parametrize("smiles", ["[O:1]([H:2])[H:4]", "[O:1]([H:2])", "not a molecule"])
def test_a_smiles_that_does_not_fit_is_refused(smiles: str) -> None:
    row = water("conformers/a", 1, smiles=smiles)
    with pytest.raises(MoleculeError, match="SMILES"):
        SimulatedMolecule("a", (row,), row.coords, None, "").bonds()
