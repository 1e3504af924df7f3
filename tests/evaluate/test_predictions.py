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
from pesfit.evaluate.predictions import (
    Predictions,
    centered,
    energy_pairs,
    errors_of,
    force_pairs,
    predict_rows,
    predict_test,
    relative_energy_pairs,
    summaries,
)
from pesfit.models.open import open_model
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.potentials.model import Model
from tests import openff_oracle
from tests.report.samples import ETHANOL, ETHANOL_SMILES, predicted, predictions, row, unsure
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
    (said,) = predict_rows({"model": model}, [moved]).predicted["model"]
    assert said is not None
    up, down = np.split(said.energy, 2)
    return -((up - down) / (2 * step)).reshape(coords.shape)


def test_deviations_are_there_where_a_posterior_is(found: Predictions) -> None:
    assert all(one is None or one.std is None for one in found.predicted["conservative"])
    for of_row, said in found.of("smirnoff"):
        assert said.std is not None
        assert said.std.forces.shape == of_row.coords.shape
        assert said.std.relative_energy[0] == pytest.approx(0.0, abs=1e-12)
        assert (said.std.relative_energy[1:] > 0.0).all()
    assert all(len(errors) == 0 for errors, _ in (force_pairs(*one) for one in found.of("conservative")))


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
    monkeypatch.setenv("PESFIT_WORKERS", "1")
    cut = predict_rows(models, found.rows, atoms_a_piece=10)  # a conformer a piece
    for (_, one), (_, other) in zip(found.of("smirnoff"), cut.of("smirnoff"), strict=True):
        assert one.forces == pytest.approx(other.forces, abs=1e-10)
        assert one.std is not None
        assert other.std is not None
        assert one.std.relative_energy == pytest.approx(other.std.relative_energy, abs=1e-10)


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


def test_errors_and_standard_deviations_are_of_the_same_labels_in_the_same_order() -> None:
    bare, alone = row("c/0", source="other", with_forces=False), row("b/0", n_conformers=1)
    one = row("a/0")
    errors, std = force_pairs(one, unsure(one, 0.5))
    assert errors == pytest.approx(np.zeros(36))
    assert std == pytest.approx(np.full(36, 0.5))
    assert relative_energy_pairs(one, unsure(one, 0.5))[1] == pytest.approx([1.0] * 3)
    assert [len(values) for values in relative_energy_pairs(alone, unsure(alone, 1.5))] == [0, 0]
    assert [len(values) for values in force_pairs(bare, unsure(bare, 2.5))] == [0, 0]
    exact = unsure(one, 0.5)
    shifted = replace(exact, energy=exact.energy + 3.0 + np.arange(4))
    assert relative_energy_pairs(one, shifted)[0] == pytest.approx([1.0, 2.0, 3.0])
    assert energy_pairs(one, shifted)[0] == pytest.approx([3.0, 4.0, 5.0, 6.0])
    assert [len(values) for values in energy_pairs(one, predicted(one))] == [0, 0]
    assert made([one, alone], {"direct": [None, None]}).only([False, True]).rows == (alone,)


FORCE, ENERGY = "kcal_per_mol_per_angstrom", "kcal_per_mol"


def test_a_constant_shift_is_an_error_of_total_energies_alone() -> None:
    rows = [row("a/0"), row("b/0", ETHANOL, smiles=ETHANOL_SMILES)]
    said = [predicted(rows[0], 7.0, -2.0), predicted(rows[1], -3.0, 2.0)]
    found = summaries(predictions(rows, {"conservative": said, "smirnoff": said}))
    for source in ("all", "toy"):
        values = found["conservative"][source]
        for kind in ("mae", "rmse", "mean_molecule_rmse"):
            assert values[f"energy_{kind}_{ENERGY}"] == pytest.approx(0.0, abs=1e-12)
            assert values[f"force_{kind}_{FORCE}"] == pytest.approx(2.0)
        assert values[f"total_energy_mae_{ENERGY}"] == pytest.approx(5.0)
        assert values[f"total_energy_rmse_{ENERGY}"] == pytest.approx(np.sqrt((49 + 9) / 2))
        assert (values["molecules"], values["conformers"], values["energies"]) == (2, 8, 8)
        assert values["force_components"] == 4 * 9 + 4 * 27
    assert not [key for key in found["smirnoff"]["all"] if key.startswith("total")]


def test_the_mean_over_molecules_counts_molecules_alike() -> None:
    rows = [row("a/0", n_conformers=10), row("b/0", n_conformers=2)]
    said = [predicted(rows[0], np.tile([1.0, -1.0], 5), 1.0), predicted(rows[1], np.array([4.0, -4.0]), 5.0)]
    values = summaries(predictions(rows, {"direct": said}))["direct"]["all"]
    assert values[f"force_rmse_{FORCE}"] == pytest.approx(np.sqrt((10 * 1.0 + 2 * 25.0) / 12))
    assert values[f"force_mean_molecule_rmse_{FORCE}"] == pytest.approx((1.0 + 5.0) / 2)
    assert values[f"energy_rmse_{ENERGY}"] == pytest.approx(np.sqrt((10 * 1.0 + 2 * 16.0) / 12))
    assert values[f"energy_mean_molecule_rmse_{ENERGY}"] == pytest.approx((1.0 + 4.0) / 2)
    assert values[f"force_mean_molecule_rmse_{FORCE}_interval_95"] is None


def test_rows_of_one_molecule_share_an_energy_zero_unless_their_sources_differ() -> None:
    rows = [row("a/0", n_conformers=3), row("a/1", n_conformers=1), row("a/2", n_conformers=2, source="other")]
    said = [predicted(rows[0], 2.0), predicted(rows[1], -2.0), predicted(rows[2], 100.0)]
    found = summaries(predictions(rows, {"smirnoff": said}))["smirnoff"]
    # ΔE = 2, 2, 2, -2 with mean 1.
    assert found["toy"][f"energy_mae_{ENERGY}"] == pytest.approx((3 * 1.0 + 3.0) / 4)
    assert found["other"][f"energy_mae_{ENERGY}"] == pytest.approx(0.0, abs=1e-12)
    assert found["all"]["molecules"] == 1


def test_a_molecule_with_one_conformer_counts_in_forces_only() -> None:
    rows = [row("a/0", n_conformers=1), row("b/0", n_conformers=2)]
    said = [predicted(rows[0], 50.0, 3.0), predicted(rows[1], np.array([2.0, 0.0]), 0.0)]
    values = summaries(predictions(rows, {"smirnoff": said}))["smirnoff"]["all"]
    assert (values["conformers"], values["energies"]) == (3, 2)
    assert values[f"energy_mae_{ENERGY}"] == pytest.approx(1.0)
    assert values[f"energy_mean_molecule_rmse_{ENERGY}"] == pytest.approx(1.0)
    assert values[f"force_mae_{FORCE}"] == pytest.approx(1.0)
    alone = predictions(rows[:1], {"smirnoff": said[:1]})
    assert not [key for key in summaries(alone)["smirnoff"]["all"] if key.startswith("energy_")]
    assert np.isnan(centered(rows[:1], [rows[0].energy])[0]).all()


def test_without_forces_there_are_energies_alone() -> None:
    rows = [row("a/0", with_forces=False)]
    values = summaries(predictions(rows, {"direct": [predicted(rows[0], 1.0)]}))["direct"]["all"]
    assert values["force_components"] == 0
    assert not [key for key in values if key.startswith(("force_m", "force_r"))]
    assert values[f"total_energy_mae_{ENERGY}"] == pytest.approx(1.0)


def test_a_potential_that_can_do_nothing_has_no_errors() -> None:
    rows = [row("a/0"), row("b/0")]
    made = predictions(rows, {"smirnoff": [None, None], "direct": [None, predicted(rows[1], 0.0, 1.0)]})
    found = summaries(made)
    assert found["smirnoff"] == {}
    assert found["direct"]["all"]["molecules"] == 1
    assert len(errors_of(made, "smirnoff").energy) == 0
    assert not made.is_complete
    assert made.common().rows == ()
