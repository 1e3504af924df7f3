"""Real potentials on a real test set, and what is made of what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate import predictions as module
from pesfit.evaluate.predictions import Predictions, predict_test
from pesfit.models.open import open_model
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.potentials.model import Model
from tests import openff_oracle
from tests.report.samples import predicted, row, unsure
from tests.report.samples import predictions as made

SPLIT = np.array([0, 0, 1, 2, 2, 2], dtype=np.uint8)
MOLECULES = ("CCO", "CO", "CCN")
"""The network of the fixture knows H, C and O."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, ConformerDataset], Splits, ParameterizedSet]:
    folder = tmp_path_factory.mktemp("analyse")
    records = [_record(smiles) for smiles in MOLECULES]
    records.append(replace(records[0], id="bare", smiles=None, group="bare"))
    with DatasetWriter(folder / "data", {"made": "MM"}) as writer:
        for record in records:
            writer.write(record)
    datasets = {"made": ConformerDataset(folder / "data")}
    params = Parameterize(charges=AssignCharges(methods=("gasteiger",)), max_failed_fraction=1.0)
    parameterize_datasets(datasets, params, folder / "parameterized")
    splits = Splits([SplitRow("made", record.id, record.group, SPLIT) for record in records])
    return datasets, splits, ParameterizedSet.open(folder / "parameterized")


def _record(smiles: str) -> Record:
    molecule = openff_oracle.molecule(smiles, len(SPLIT), 0.05)
    rng = np.random.default_rng(len(smiles))
    energy, forces = rng.normal(size=len(SPLIT)), rng.normal(size=molecule.coords.shape)
    numbers = molecule.atomic_numbers.astype(np.int32)
    return Record(
        smiles, molecule.smiles, numbers, molecule.coords, energy, forces, None, 0, smiles, "made", np.arange(len(SPLIT))
    )


@pytest.fixture(scope="module")
def models(smirnoff: Path, network: Path) -> dict[str, Model]:
    return {
        "smirnoff-initial": open_model(openff_oracle.FORCE_FIELD),
        "smirnoff": open_model(smirnoff),
        "conservative": open_model(network),
    }


@pytest.fixture(scope="module")
def found(data: tuple[dict[str, ConformerDataset], Splits, ParameterizedSet], models: dict[str, Model]) -> Predictions:
    return predict_test(models, *data)


def test_what_a_potential_cannot_do_is_a_failure_with_a_name(found: Predictions) -> None:
    assert [one.id for one in found.rows] == [*MOLECULES, "bare"]
    assert {(failure.id, failure.stage, failure.kind) for failure in found.failures} == {
        ("smirnoff-initial/made/bare", "analyse", "NoTopology"),
        ("smirnoff/made/bare", "analyse", "NoTopology"),
        ("conservative/made/CCN", "analyse", "UnknownElementError"),
    }
    assert "not trained on N" in found.failures[-1].message
    assert not found.is_complete
    assert [one.id for one in found.common().rows] == ["CCO", "CO"]
    assert found.common().is_complete


def test_forces_of_each_potential_are_those_of_openmm_and_of_its_energy(found: Predictions, models: dict[str, Model]) -> None:
    methanol = found.rows[1]
    assert methanol.charges is not None
    assert methanol.smiles is not None
    oracle = openff_oracle.mapped_molecule(methanol.smiles, methanol.coords, methanol.charges)
    reference = openff_oracle.openmm_energy_forces(oracle)
    said = found.predicted["smirnoff-initial"][1]
    assert said is not None
    assert said.energy == pytest.approx(reference[0], abs=1e-8)
    assert said.forces == pytest.approx(reference[1], abs=1e-6)
    for name in ("smirnoff", "conservative"):
        said = found.predicted[name][1]
        assert said is not None
        assert said.forces[1] == pytest.approx(_slope(models[name], found, methanol.coords[1]), abs=1e-5)


def _slope(model: Model, found: Predictions, coords: FloatArray) -> FloatArray:
    """Return -dE/dx of methanol by central differences, through the whole of `predict_test`'s work."""
    step = 1e-4
    moves = step * np.eye(coords.size).reshape(-1, *coords.shape)
    moved = replace(found.rows[1], coords=np.concatenate([coords + moves, coords - moves]), energy=np.zeros(2 * coords.size))
    said = module._predict_rows(module._Task("model", model, (moved,)))[0]
    assert isinstance(said, module.Predicted)
    up, down = np.split(said.energy, 2)
    return -((up - down) / (2 * step)).reshape(coords.shape)


def test_deviations_are_there_where_a_posterior_is(found: Predictions) -> None:
    assert all(one is None or one.deviations is None for one in found.predicted["conservative"])
    for of_row, said in found.of("smirnoff"):
        assert said.deviations is not None
        assert said.deviations.forces.shape == of_row.coords.shape
        assert said.deviations.relative_energy[0] == pytest.approx(0.0, abs=1e-12)
        assert (said.deviations.relative_energy[1:] > 0.0).all()
    errors = found.force_errors("smirnoff")
    assert errors.shape == found.force_deviations("smirnoff").shape == (3 * 3 * (9 + 6 + 10),)
    with pytest.raises(DataError, match="conservative has no posterior"):
        found.force_deviations("conservative")


@pytest.mark.usefixtures("worker_pool")
def test_neither_workers_nor_pieces_change_a_byte(
    data: tuple[dict[str, ConformerDataset], Splits, ParameterizedSet],
    models: dict[str, Model],
    found: Predictions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WORTH_WORKERS", 0)
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    again = predict_test(models, *data)
    for name in models:
        for one, other in zip(found.predicted[name], again.predicted[name], strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert one.energy.tobytes() == other.energy.tobytes()
                assert one.forces.tobytes() == other.forces.tobytes()
    assert again.failures == found.failures
    monkeypatch.setattr(module, "_ATOMS_A_PIECE", 10)  # a row a piece
    monkeypatch.setattr("pesfit.potentials.model.ATOMS_AT_ONCE", 10)  # a conformer at a time
    monkeypatch.setenv("PESFIT_WORKERS", "1")
    for (_, one), (_, other) in zip(found.of("smirnoff"), predict_test(models, *data).of("smirnoff"), strict=True):
        assert one.forces == pytest.approx(other.forces, abs=1e-10)
        assert one.deviations is not None
        assert other.deviations is not None
        assert one.deviations.relative_energy == pytest.approx(other.deviations.relative_energy, abs=1e-10)


def test_too_many_failures_and_an_empty_test_set_are_said(
    data: tuple[dict[str, ConformerDataset], Splits, ParameterizedSet], models: dict[str, Model]
) -> None:
    datasets, splits, parameterized = data
    with pytest.raises(
        TooManyFailuresError, match="analyse: 2 of 12 molecules failed"
    ):  # an element that was not trained on is none
        predict_test(models, datasets, splits, parameterized, max_failed_fraction=0.1)
    nothing = Splits([SplitRow(r.dataset, r.id, r.group, np.zeros_like(r.split)) for r in splits])
    with pytest.raises(DataError, match="the test set is empty"):
        predict_test(models, datasets, nothing, parameterized)


def test_without_a_parameterized_set_force_fields_find_charges_themselves(
    data: tuple[dict[str, ConformerDataset], Splits, ParameterizedSet], smirnoff: Path
) -> None:
    again = predict_test({"smirnoff": open_model(smirnoff)}, *data[:2])
    assert [failure.id for failure in again.failures] == ["smirnoff/made/bare"]
    assert "has no bonds" in again.failures[0].message


def test_errors_and_deviations_are_of_the_same_labels_in_the_same_order() -> None:
    rows = [row("a/0"), row("b/0", n_conformers=1), row("c/0", source="other", with_forces=False)]
    exact = made(rows, {"direct": [unsure(one, 0.5 + i) for i, one in enumerate(rows)]})
    assert exact.force_errors("direct") == pytest.approx(0.0)
    assert exact.force_deviations("direct") == pytest.approx(np.repeat([0.5, 1.5], [36, 9]))
    assert exact.relative_energy_deviations("direct") == pytest.approx(np.repeat([1.0, 5.0], 3))
    assert exact.relative_energy_deviations("direct", "other") == pytest.approx([5.0] * 3)
    assert exact.force_errors("direct", "other").shape == (0,)
    shifted = made(rows, {"direct": [predicted(one, 3.0 + np.arange(one.n_conformers)) for one in rows]})
    assert shifted.relative_energy_errors("direct") == pytest.approx([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    assert exact.only([False, True, False]).rows == (rows[1],)
