"""Deviations of a real fit, judged on a test set and on probes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pesfit.application.geometries import embedded
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.evaluate.out_of_distribution import INSIDE, OTHER_MOLECULES
from pesfit.evaluate.predictions import Predictions
from pesfit.evaluate.sureness import TrainedOn, judge_models
from pesfit.evaluate.test_rows import TestRow
from pesfit.models.open import open_model


def conformers(smiles: str, n: int, jitter: float) -> Record:
    start = embedded(smiles, smiles, 0)
    coords = start.coords + jitter * np.random.default_rng(7).normal(size=(n, *start.coords.shape))
    zeros = np.zeros(coords.shape)
    return Record(
        f"{smiles}/0", start.smiles, start.atomic_numbers.astype(np.int32), coords, zeros[:, 0, 0], zeros, None, 0, smiles,
        "probe/hot-1000K", np.arange(n),
    )  # fmt: skip


def test_a_model_that_was_not_asked_is_asked_and_judged(smirnoff: Path, tmp_path: Path) -> None:
    found = [conformers("CCO", 6, 0.02), conformers("CSC", 4, 0.02)]
    rows = [
        TestRow("toys", of.id, "toys", of.group, of.smiles, of.atomic_numbers, of.coords, of.energy, of.forces, 0.0)
        for of in found
    ]
    with DatasetWriter(tmp_path / "probes", {"probe/hot-1000K": "GFN2-xTB"}) as writer:
        writer.write(conformers("CCO", 5, 0.15))
    sureness = judge_models(
        {"smirnoff": open_model(smirnoff), "openff": open_model("openff_unconstrained-2.1.0.offxml")},
        Predictions(tuple(rows), {}),
        ConformerDataset(tmp_path / "probes"),
        TrainedOn({"smirnoff": {"CCO"}}, {"another level"}),
    )
    assert {each.potential for each in sureness.judged} == {"smirnoff"}, "the other has no posterior"
    sets = {each.name: each for each in sureness.separations}
    assert {name: of.n_conformers for name, of in sets.items()} == {INSIDE: 6, OTHER_MOLECULES: 4, "probe/hot-1000K": 5}
    assert sets["probe/hot-1000K"].force_rmse is None, "its labels are of another level of theory"
    assert sets[INSIDE].force_rmse is not None
    metrics = sureness.metrics()["smirnoff"]
    assert metrics["auroc"][OTHER_MOLECULES] == 1.0, "the fit has seen no sulfur"
    assert set(metrics) == {"forces", "relative_energy", "auroc"}
    json.dumps(metrics, allow_nan=False)
    coverage, apart = sureness.sentences()
    assert "Intervals of 95 %" in coverage
    assert "1.00 (SMIRNOFF, fitted)" in apart
