"""A fitted force field opened to be used: molecules that are stored are not parameterized again, and get the same terms."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from pesfit.params.fit_smirnoff import FitSmirnoff, Train, TrainProperTorsions
from pesfit.potentials.model import PreparedMolecule
from pesfit.potentials.terms import Terms
from pesfit.smirnoff import model as model_module
from pesfit.smirnoff.model import FORCE_FIELD_FILE, SmirnoffModel, open_smirnoff
from tests.smirnoff.test_fit import Data, fit, make


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make(tmp_path_factory.mktemp("data"))


def prepared(model: SmirnoffModel, data: Data, index: int, charge: float = 0.0) -> PreparedMolecule:
    record = data.datasets["made"][index]
    topology = data.parameterized.topology("made", record.id)
    assert topology is not None
    charges = topology.charges.copy()
    charges[:2] += charge, -charge
    return model.prepare(record.atomic_numbers, record.smiles, record.id, charges)


def assert_same(one: PreparedMolecule, other: PreparedMolecule) -> None:
    assert one.terms is not None
    assert other.terms is not None
    for field in fields(Terms):
        mine, theirs = getattr(one.terms, field.name), getattr(other.terms, field.name)
        assert mine == theirs if field.name == "n_atoms" else torch.equal(mine, theirs), field.name


@pytest.mark.parametrize("added", [(), (1, 2, 3, 4)])
@pytest.mark.slow
def test_stored_molecules_are_not_parameterized_again(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: tuple[int, ...]
) -> None:
    train = Train(proper_torsions=TrainProperTorsions(add_periodicities=added))
    fit(data, tmp_path, FitSmirnoff(train=train, prior_strength=0.01))
    path = tmp_path / "out" / FORCE_FIELD_FILE
    anew, stored = open_smirnoff("fit", path), open_smirnoff("fit", path, stored=data.parameterized)
    expected = [prepared(anew, data, index) for index in range(len(data.datasets["made"]))]
    with monkeypatch.context() as patch:
        patch.delattr(model_module, "parameterize")
        for model in (stored, pickle.loads(pickle.dumps(stored))):  # as it is sent to workers
            for index, other in enumerate(expected):
                assert_same(prepared(model, data, index), other)
    assert_same(prepared(stored, data, 0, charge=0.1), prepared(anew, data, 0, charge=0.1))  # other charges: not stored


def test_topologies_of_another_force_field_are_not_used(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "other.offxml"
    path.write_text(data.parameterized.force_field.offxml.replace('[#6X4:1]-[#6X4:2]"', '[#6X4+0:1]-[#6X4:2]"', 1))
    model = open_smirnoff("other", path, stored=data.parameterized)
    assert_same(prepared(model, data, 0), prepared(open_smirnoff("other", path), data, 0))
    assert model_module.StoredTopologies.of(data.parameterized, model_module.read_force_field(str(path))[0]) is None
