"""Flat training data against the records they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from pesfit.core.exceptions import DataError
from pesfit.painn.train.datasets import TrainingData, load_training_data
from tests.painn.train.samples import record, small_data

CUTOFF = 2.0


@pytest.fixture
def train(tmp_path: Path) -> TrainingData:
    return load_training_data(*small_data(tmp_path, extra=(record("e/0", "toy/one", [8], 10, seed=8),)), "train", CUTOFF)


def test_gathered_conformers_are_those_of_the_records(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    data = load_training_data(datasets, splits, "train", CUTOFF).relative_to(
        lambda numbers: torch.searchsorted(torch.tensor([1, 6, 8]), numbers),
        torch.tensor([1.0, 20.0, 300.0], dtype=torch.float64),
    )
    records = {one.id: one for one in datasets["toy"]}
    conformers = np.array([30, 0, 12, 29, 7])
    graph = data.gather(conformers)
    assert len(graph.energy) == len(conformers) + 1
    start = 0
    for k, conformer in enumerate(conformers):
        row = data.rows[data.row[conformer]]
        one, i = records[row.id], data.position[conformer]
        atoms = slice(start, start + one.n_atoms)
        start += one.n_atoms
        assert (row.dataset, row.group, row.source) == ("toy", one.group, one.source)
        assert torch.tensor([1, 6, 8])[graph.element[atoms]].tolist() == one.atomic_numbers.tolist()
        assert graph.conformer[atoms].tolist() == [k] * one.n_atoms
        atomrefs = sum({1: 1.0, 6: 20.0, 8: 300.0}[z] for z in one.atomic_numbers.tolist())
        assert float(graph.energy[k]) == pytest.approx(one.energy[i] - atomrefs, abs=1e-10)
        assert float(graph.n_atoms_of[k]) == one.n_atoms
        expected = np.zeros((one.n_atoms, 3)) if one.forces is None else one.forces[i]
        np.testing.assert_array_equal(graph.forces[atoms].numpy(), expected)
        assert set(graph.force_weight[atoms].flatten().tolist()) == {0.0 if one.forces is None else 1.0}
        mine = (graph.first >= atoms.start) & (graph.first < atoms.stop)
        assert bool(((graph.second[mine] > graph.first[mine]) & (graph.second[mine] < atoms.stop)).all())
        distances = pdist(one.coords[i])
        np.testing.assert_allclose(
            np.sort(graph.r[mine].norm(dim=1).numpy()), np.sort(distances[distances <= CUTOFF]), rtol=0.0, atol=1e-12
        )
        assert int(data.n_pairs[conformer]) == int(mine.sum())
        between = (
            one.coords[i][graph.second[mine].numpy() - atoms.start] - one.coords[i][graph.first[mine].numpy() - atoms.start]
        )
        np.testing.assert_array_equal(graph.r[mine].numpy(), between)


def test_the_graph_ends_with_an_empty_conformer_and_holds_no_views(train: TrainingData) -> None:
    graph = train.gather(np.array([3]))
    assert graph.energy[-1] == graph.weight[-1] == 0.0
    assert graph.n_atoms_of[-1] == 1.0
    for name, value in vars(graph).items():
        assert value._base is None, name


def test_a_molecule_of_one_atom_has_no_pairs(train: TrainingData) -> None:
    (conformer, *_) = np.flatnonzero(train.n_atoms == 1)
    graph = train.gather(np.array([conformer]))
    assert len(graph.element) == 1
    assert graph.r.shape == (0, 3)


def test_only_the_split_and_the_chosen_sources_are_loaded(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    validation = load_training_data(datasets, splits, "validation", CUTOFF, uses=lambda one: one.source == "toy/two")
    assert [row.id for row in validation.rows] == ["c/0", "d/0"]
    assert validation.position.tolist() == [7, 7]
    assert validation.name_of(1) == "toy: d/0, conformer 7"
    assert validation.has_forces.tolist() == [1, 0]
    assert validation.elements == (1, 6, 8)


def test_subsets_depend_on_the_seed_alone_and_are_in_order(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    whole = load_training_data(datasets, splits, "train", CUTOFF)
    one, again, other = (load_training_data(datasets, splits, "train", CUTOFF, subset_size=9, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 9
    assert torch.equal(one.energy, again.energy)
    assert not torch.equal(one.energy, other.energy)
    assert set(one.energy.tolist()) <= set(whole.energy.tolist())
    keys = [(one.rows[row].id, position) for row, position in zip(one.row, one.position, strict=True)]
    assert keys == sorted(keys)


def test_too_few_conformers_are_refused(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    with pytest.raises(DataError, match=r"train split holds 35 conformers of the chosen sources; subset_size = 36 needed"):
        load_training_data(datasets, splits, "train", CUTOFF, subset_size=36)
    with pytest.raises(DataError, match="holds 0 conformers"):
        load_training_data(datasets, splits, "train", CUTOFF, uses=lambda _: False)


def test_memory_is_what_the_module_says(train: TrainingData) -> None:
    atoms, pairs = int(train.n_atoms.sum()), int(train.n_pairs.sum())
    tensors = [value for value in vars(train).values() if isinstance(value, torch.Tensor)]
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert n_bytes <= 48 * atoms + 4 * pairs + 40 * len(train) + 16 * len(train.atomic_numbers)
