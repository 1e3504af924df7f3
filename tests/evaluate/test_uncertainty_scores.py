"""What reaches the judgment: which pairs, of which source, corrected and not, and what is resampled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pesfit.application.geometries import embedded
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.out_of_distribution import INSIDE, OTHER_MOLECULES
from pesfit.evaluate.predictions import Predicted, Predictions
from pesfit.evaluate.uncertainty_scores import TrainedOn, judge_predictions, score_models
from pesfit.models.open import open_model
from pesfit.uncertainty.calibration import Calibration, Scale
from pesfit.uncertainty.standard_deviations import StandardDeviations
from tests.report.samples import predicted, predictions, row

CALIBRATION = Calibration(forces=Scale(2.0, 3.0, 10), relative_energy=Scale(4.0, 0.5, 10))


def says(of: LabeledRow, error: float, deviation: float) -> Predicted:
    exact = predicted(of, energy=error * np.arange(of.n_conformers), forces=error)
    relative = np.where(np.arange(of.n_conformers) > 0, deviation, 0.0)
    return Predicted(
        exact.energy, exact.forces, StandardDeviations(np.ones(of.n_conformers), relative, np.full(of.coords.shape, deviation))
    )


def test_each_source_and_all_of_them_are_judged_by_quantity() -> None:
    rows = [
        row("a/0", source="toy/a"),
        row("b/0", n_conformers=3, source="toy/b"),
        row("c/0", source="toy/b", with_forces=False),
    ]
    said = predictions(rows, {"sure": [says(each, 1.5, 1.0) for each in rows], "mute": [predicted(each) for each in rows]})
    found = {(each.potential, each.quantity, each.source): each for each in judge_predictions(said, {"sure": CALIBRATION})}
    assert set(found) == {
        ("sure", quantity, source) for quantity in ("forces", "relative_energy") for source in ("all", "toy/a", "toy/b")
    }
    assert {key[1:]: each.judgment.n_values for key, each in found.items()} == {
        ("forces", "all"): 63,
        ("forces", "toy/a"): 36,
        ("forces", "toy/b"): 27,
        ("relative_energy", "all"): 8,
        ("relative_energy", "toy/a"): 3,
        ("relative_energy", "toy/b"): 5,
    }
    forces = found["sure", "forces", "all"].sample
    np.testing.assert_allclose(forces.errors, 1.5)
    np.testing.assert_allclose(forces.with_noise, np.sqrt(0.5**2 + 3.0**2))
    energies = found["sure", "relative_energy", "toy/a"].sample
    np.testing.assert_allclose(energies.errors, 1.5 * np.array([1, 2, 3]))
    np.testing.assert_allclose(energies.with_noise, np.sqrt(0.25**2 + 0.5**2))
    assert found["sure", "forces", "all"].judgment.rmse == pytest.approx(1.5)


def test_without_calibration_deviations_are_taken_as_they_are() -> None:
    (only, *_) = judge_predictions(predictions([row("a/0")], {"sure": [says(row("a/0"), 1.0, 2.0)]}), {"sure": None})
    np.testing.assert_array_equal(only.sample.with_noise, only.sample.std)


@pytest.mark.parametrize(("n_molecules", "n_conformers", "kind"), [(10, 2, "molecules"), (9, 2, None), (1, 90, "blocks")])
def test_molecules_are_resampled_or_blocks_of_a_single_one(n_molecules: int, n_conformers: int, kind: str | None) -> None:
    rows = [row(f"{i}/0", n_conformers=n_conformers) for i in range(n_molecules)]
    said = predictions(rows, {"sure": [says(each, 1.0, 1.0) for each in rows]})
    (first, *_) = judge_predictions(said, {})
    assert first.judgment.resampled == kind
    units = first.sample.units
    assert (units is None) == (first.judgment.nll_interval is None) == (kind is None)
    if units is not None:
        assert 10 <= len(np.unique(units.number)) <= 18
        assert len(units.number) == n_molecules * n_conformers * 9


def conformers(smiles: str, n: int, jitter: float) -> Record:
    start = embedded(smiles, smiles, 0)
    coords = start.coords + jitter * np.random.default_rng(7).normal(size=(n, *start.coords.shape))
    zeros = np.zeros(coords.shape)
    return Record(
        f"{smiles}/0", start.smiles, start.atomic_numbers.astype(np.int32), coords, zeros[:, 0, 0], zeros, None, 0, smiles,
        "probe/hot-1000K", np.arange(n),
    )  # fmt: skip


def test_a_model_without_predictions_is_evaluated_and_scored(smirnoff: Path, tmp_path: Path) -> None:
    found = [conformers("CCO", 6, 0.02), conformers("CSC", 4, 0.02)]
    rows = [
        LabeledRow("toys", of.id, "toys", of.group, of.smiles, of.atomic_numbers, of.coords, of.energy, of.forces, 0.0)
        for of in found
    ]
    with DatasetWriter(tmp_path / "probes", {"probe/hot-1000K": "GFN2-xTB"}) as writer:
        writer.write(conformers("CCO", 5, 0.15))
    scores = score_models(
        {"smirnoff": open_model(smirnoff), "openff": open_model("openff_unconstrained-2.1.0.offxml")},
        Predictions(tuple(rows), {}),
        ConformerDataset(tmp_path / "probes"),
        TrainedOn({"smirnoff": {"CCO"}}, {"another level"}),
    )
    assert {each.potential for each in scores.judged} == {"smirnoff"}, "the other has no posterior"
    sets = {each.name: each for each in scores.separations}
    assert {name: of.n_conformers for name, of in sets.items()} == {INSIDE: 6, OTHER_MOLECULES: 4, "probe/hot-1000K": 5}
    assert sets["probe/hot-1000K"].force_rmse is None, "its labels are of another level of theory"
    assert sets[INSIDE].force_rmse is not None
    metrics = scores.metrics()["smirnoff"]
    assert metrics["auroc"][OTHER_MOLECULES] == 1.0, "the fit has seen no sulfur"
    assert set(metrics) == {"forces", "relative_energy", "auroc"}
    json.dumps(metrics, allow_nan=False)
