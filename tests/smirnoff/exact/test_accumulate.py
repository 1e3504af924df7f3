"""Molecules, shards, weights and the files in between."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DataError, Failure
from pesfit.data.dataset import Record
from pesfit.data.splits import SPLITS
from pesfit.params.fit_smirnoff import ConformerWeight, Objective, Train
from pesfit.smirnoff.exact.accumulate import assemble, molecule_entries
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics, ShardStatistics, load_shard, save_shard
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.fit_data import MoleculeRows, conformer_weights, cut
from pesfit.smirnoff.parameters import Layout
from tests.smirnoff.samples import Sample, evaluate, sample

UNIFORM = ConformerWeight()


@pytest.fixture(scope="module")
def ethanol() -> Sample:
    return sample(("CCO",), n_conformers=30)


def record(ethanol: Sample, part: slice, id_: str = "a") -> Record:
    energy, forces = evaluate(ethanol.force_field, ethanol.topologies[0], ethanol.coords[0])
    return Record(id_, "x", np.ones(9, dtype=np.int32), ethanol.coords[0][part], energy[part], forces[part], None, 0, "x", "s",
                  np.arange(30)[part])  # fmt: skip


def equal(one: MoleculeStatistics, other: MoleculeStatistics, rtol: float = 0.0) -> None:
    for field in fields(MoleculeStatistics):
        np.testing.assert_allclose(getattr(one, field.name), getattr(other, field.name), rtol=rtol, atol=1e-9 * (rtol > 0))


@given(costs=st.lists(st.integers(1, 1000), max_size=40), n_shards=st.integers(1, 50))
@settings(deadline=None)
def test_shards_are_the_molecules_in_order(costs: list[int], n_shards: int) -> None:
    molecules = [MoleculeRows("d", (i,), (f"m{i}",), "s", f"m{i}", i, cost) for i, cost in enumerate(costs)]
    shards = cut(molecules, n_shards)
    assert [molecule for shard in shards for molecule in shard] == molecules
    assert len(shards) <= n_shards
    assert all(shards)
    if costs:
        assert max(sum(m.cost for m in shard) for shard in shards) <= sum(costs) / n_shards + max(costs)


def test_rows_of_one_molecule_share_their_energy_zero(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    splits = np.repeat(np.array([0, 1, 2, 255], dtype=np.uint8), [12, 8, 6, 4])
    np.random.default_rng(0).shuffle(splits)
    whole = MoleculeRows("d", (0,), ("a",), "s", "a", 0, 1)
    cut_up = MoleculeRows("d", (0, 1, 2), ("a", "b", "c"), "s", "a", 0, 1)
    parts = [slice(0, 10), slice(10, 20), slice(20, 30)]
    one = list(molecule_entries(whole, [record(ethanol, slice(None))], [splits], features, UNIFORM))
    three = list(molecule_entries(cut_up, [record(ethanol, p) for p in parts], [splits[p] for p in parts], features, UNIFORM))
    assert [entry.split for entry in one] == ["train", "validation", "test"]
    assert [entry.plain.n_conformers for entry in one] == [12, 8, 6]
    for a, b in zip(one, three, strict=True):
        equal(a.plain, b.plain, rtol=1e-9)


def test_window_leaves_high_conformers_out_of_the_objective_alone(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    data = record(ethanol, slice(None))
    above = data.energy - data.energy.min()
    window = float(np.median(above))
    rows = MoleculeRows("d", (0,), ("a",), "s", "a", 0, 1)
    weight = ConformerWeight(kind="window", window=window)
    (entry,) = molecule_entries(rows, [data], [np.zeros(30, dtype=np.uint8)], features, weight)
    assert entry.plain.n_conformers == 30
    assert entry.weighted.n_conformers == int((above <= window).sum()) == 15
    inside = data.select(np.flatnonzero(above <= window))
    equal(entry.weighted, MoleculeStatistics.of(features, inside.coords, inside.energy, inside.forces), rtol=1e-12)


def test_split_with_all_weights_zero_counts_nothing_in_the_objective(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    data = record(ethanol, slice(None))
    splits = np.where(data.energy == data.energy.min(), 0, 1).astype(np.uint8)
    weight = ConformerWeight(kind="window", window=1e-6)
    rows = MoleculeRows("d", (0,), ("a",), "s", "a", 0, 1)
    entries = {e.split: e for e in molecule_entries(rows, [data], [splits], features, weight)}
    assert entries["validation"].weighted is None
    assert entries["validation"].plain.n_conformers == (splits == 1).sum()
    equations = assemble(
        [ShardStatistics(tuple(entries.values()), ())], layout, Objective(conformer_weight=weight), SPLITS
    ).equations
    assert equations["train"].n_rows > 0
    assert equations["validation"].n_rows == 0


def test_weights_by_energy() -> None:
    above = np.array([0.0, 1.0, 50.0, 500.0])
    assert conformer_weights(above, UNIFORM).tolist() == [1, 1, 1, 1]
    assert conformer_weights(above, ConformerWeight(kind="window", window=10.0)).tolist() == [1, 1, 0, 0]
    boltzmann = conformer_weights(above, ConformerWeight(kind="boltzmann", temperature_kelvin=503.2195))
    np.testing.assert_allclose(boltzmann, [1.0, np.exp(-1.0), 0.0, 0.0], rtol=1e-5)


def test_saved_shard_comes_back_exactly(ethanol: Sample, tmp_path: Path) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    rows = MoleculeRows("d", (0,), ("a",), "s", "a", 0, 1)
    splits = [np.repeat(np.array([0, 2], dtype=np.uint8), 15)]
    data = [record(ethanol, slice(None))]
    entries = [
        *molecule_entries(rows, data, splits, features, UNIFORM),
        *molecule_entries(rows, data, splits, features, ConformerWeight(kind="boltzmann")),
    ]
    shard = ShardStatistics(tuple(entries), (Failure("d/b", "fit_smirnoff", "MoleculeError", "no, “it” cannot"),))
    save_shard(tmp_path / "a.pickle", shard)
    save_shard(tmp_path / "b.pickle", shard)
    assert (tmp_path / "a.pickle").read_bytes() == (tmp_path / "b.pickle").read_bytes()
    back = load_shard(tmp_path / "a.pickle")
    assert back.failures == shard.failures
    for found, expected in zip(back.entries, entries, strict=True):
        assert (found.molecule, found.source, found.split) == (expected.molecule, expected.source, expected.split)
        assert (found.weighted is found.plain) == (expected.weighted is expected.plain)
        equal(found.plain, expected.plain, rtol=1e-15)
        equal(found.weighted, expected.weighted, rtol=1e-15)
    save_shard(tmp_path / "empty.pickle", ShardStatistics((), ()))
    assert load_shard(tmp_path / "empty.pickle") == ShardStatistics((), ())


def test_labels_that_are_not_finite_name_the_conformer(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    data = record(ethanol, slice(None))
    data.energy[17] = np.nan
    rows = MoleculeRows("d", (0,), ("a",), "s", "a", 0, 1)
    with pytest.raises(DataError, match="a: energy of conformer 17"):
        list(molecule_entries(rows, [data], [np.zeros(30, dtype=np.uint8)], features, UNIFORM))
    with pytest.raises(DataError, match="30 conformers, but the splits have 7"):
        list(molecule_entries(rows, [record(ethanol, slice(None))], [np.zeros(7, dtype=np.uint8)], features, UNIFORM))
