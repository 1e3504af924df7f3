"""Atomrefs against numbers that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.painn.train.atomrefs import fit_atomrefs
from pesfit.painn.train.graphs import TrainingData, load_training_data

TRUE = {1: -313.5, 6: -23875.25, 7: -34250.125, 8: -47130.0625}


def load(folder: Path, molecules: list[tuple[list[int], list[float]]], forces: float | None = None) -> TrainingData:
    """Molecules by their atoms and what their conformers' energies deviate from the sum of the atoms'."""
    records = []
    for i, (numbers, deviations) in enumerate(molecules):
        coords = np.random.default_rng(i).normal(size=(len(deviations), len(numbers), 3))
        records.append(
            Record(
                id=f"m/{i}",
                smiles=None,
                atomic_numbers=np.array(numbers, dtype=np.int32),
                coords=coords,
                energy=np.array(deviations) + sum(TRUE[z] for z in numbers),
                forces=None if forces is None else np.full_like(coords, forces) * np.where(np.arange(3) == 1, -1.0, 1.0),
                charges=None,
                total_charge=0,
                group=f"m/{i}",
                source="toy",
                frame=np.arange(len(deviations)),
            )
        )
    with DatasetWriter(folder / "toy", {"toy": "none"}) as writer:
        for record in records:
            writer.write(record)
    splits = Splits([SplitRow("toy", r.id, r.group, np.zeros(r.n_conformers, dtype=np.uint8)) for r in records])
    return load_training_data({"toy": ConformerDataset(folder / "toy")}, splits, "train", 5.0)


def test_energies_that_are_sums_of_atoms_give_those_back(tmp_path: Path) -> None:
    molecules = [([6, 1, 1, 1, 1], [0.0] * 3), ([8, 1, 1], [0.0]), ([7, 1, 1, 1], [0.0] * 2), ([6, 8], [0.0]), ([7, 7], [0.0])]
    atomrefs = fit_atomrefs(load(tmp_path, molecules, forces=2.5))
    assert atomrefs.elements == (1, 6, 7, 8)
    np.testing.assert_allclose(atomrefs.values, list(TRUE.values()), rtol=0.0, atol=1e-8)
    assert atomrefs.scale == pytest.approx(2.5, rel=1e-12)


def test_they_are_the_least_squares_over_conformers_not_rows(tmp_path: Path) -> None:
    molecules = [([8, 1, 1], [1.0, 3.0, -2.0, 0.5]), ([8, 8], [4.0]), ([1, 1], [-7.0, 1.0]), ([8, 1], [0.25])]
    atomrefs = fit_atomrefs(load(tmp_path, molecules))
    design = np.array([[2, 1]] * 4 + [[0, 2]] + [[2, 0]] * 2 + [[1, 1]], dtype=float)
    deviations = np.concatenate([deviation for _, deviation in molecules])
    expected = np.linalg.solve(design.T @ design, design.T @ deviations)
    np.testing.assert_allclose(atomrefs.values - [TRUE[1], TRUE[8]], expected, rtol=0.0, atol=1e-8)
    assert atomrefs.scale == pytest.approx(np.sqrt(np.mean((deviations - design @ expected) ** 2)), rel=1e-8)


def test_one_molecule_alone_has_its_mean_and_the_smallest_atomrefs(tmp_path: Path) -> None:
    atomrefs = fit_atomrefs(load(tmp_path, [([6, 1, 1, 8], [2.0, 4.0])]))
    energy = 2 * TRUE[1] + TRUE[6] + TRUE[8] + 3.0
    counts = np.array([2.0, 1.0, 1.0])
    np.testing.assert_allclose(atomrefs.values, energy * counts / (counts @ counts), rtol=1e-12)
    assert atomrefs.scale == pytest.approx(1.0, rel=1e-6)


def test_a_single_frame_without_forces_has_scale_one(tmp_path: Path) -> None:
    assert fit_atomrefs(load(tmp_path, [([1], [0.0])])).scale == 1.0
