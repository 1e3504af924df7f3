"""Which conformers are inside, and how well scores tell the others, on sets whose scores are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.evaluate.labeled_rows import LabeledRow
from pesfit.evaluate.out_of_distribution import (
    INSIDE,
    OTHER_MOLECULES,
    Scored,
    probe_rows,
    scored_sets,
    separate,
    training_groups,
)
from pesfit.evaluate.predictions import Predicted
from pesfit.statistics.resampling import Units
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.standard_deviations import StandardDeviations
from tests.report.samples import predictions, row


def says(of: LabeledRow, score: float, error: float) -> Predicted:
    """A force error on every component, and a deviation that is all on one atom's x."""
    deviations = np.full(of.coords.shape, 1e-3)
    deviations[:, 1, 0] = np.sqrt(score**2 - 2e-6)
    assert of.forces is not None
    return Predicted(
        of.energy, of.forces + error, StandardDeviations(np.ones(of.n_conformers), np.ones(of.n_conformers), deviations)
    )


def test_molecules_with_training_conformers_are_inside_and_probes_of_others_are_left_out() -> None:
    test = [row("known/0"), row("known/1"), row("new/0", n_conformers=3)]
    hot = [row("known/2", n_conformers=2, source="probe/hot-1000K"), row("new/1", source="probe/hot-1000K")]
    said = predictions(test, {"a": [says(test[0], 2.0, 0.0), None, says(test[2], 5.0, 1.0)]})
    of_probes = predictions(hot, {"a": [says(each, 7.0, 1.0) for each in hot]})
    sets = scored_sets(
        "a", said, of_probes, {"known"}, Calibration(domain_threshold=6.0, group_thresholds={"known": 1.5}), same_level=True
    )
    assert {name: (len(scored.score), scored.n_molecules) for name, scored in sets.items()} == {
        INSIDE: (4, 1),
        OTHER_MOLECULES: (3, 1),
        "probe/hot-1000K": (2, 1),
    }
    np.testing.assert_allclose(sets["probe/hot-1000K"].score, 7.0)
    assert sets[INSIDE].flagged.tolist() == [True] * 4, "by the molecule's own threshold"
    assert sets[OTHER_MOLECULES].flagged.tolist() == [False] * 3, "by that of all"
    np.testing.assert_allclose(sets["probe/hot-1000K"].errors, np.ones(2 * 9))
    others = scored_sets("a", said, of_probes, {"known"}, None, same_level=False)
    assert len(others["probe/hot-1000K"].errors) == len(others["probe/hot-1000K"].flagged) == 0
    assert len(others[OTHER_MOLECULES].errors) == 27


def test_sets_are_separated_flagged_and_covered() -> None:
    no, flagged = np.zeros(0), np.array([False, False, False, True])
    inside = Scored(np.array([1.0, 2.0, 3.0, 4.0]), no, no, 2, Units("molecules", np.arange(4)), flagged)
    errors, deviations = np.array([1.9, -2.1, 0.5, 4.0]), np.array([1.0, 1.0, 1.0, 2.1])
    outside = Scored(np.array([3.5, 5.0]), errors, deviations, 1, Units("blocks", np.arange(2)), np.array([True, True]))
    first, second = separate("a", {INSIDE: inside, "probe/hot-1000K": outside})
    assert (first.auroc, first.auroc_interval, first.flagged, first.coverage_95, first.force_rmse) == (
        None,
        None,
        0.25,
        None,
        None,
    )
    assert second.auroc == pytest.approx(7 / 8)
    assert second.auroc_interval is not None
    assert second.auroc_interval.low < 7 / 8 < second.auroc_interval.high
    assert (second.flagged, second.coverage_95, second.median_score) == (1.0, 0.75, 4.25)
    assert second.force_rmse == pytest.approx(np.sqrt((1.9**2 + 2.1**2 + 0.25 + 16.0) / 4))
    (alone,) = separate("a", {OTHER_MOLECULES: replace(outside, flagged=np.zeros(0, dtype=bool))})
    assert (alone.auroc, alone.flagged) == (None, None)


def test_groups_and_probes_come_from_data_sets(tmp_path: Path) -> None:
    zeros = np.zeros((2, 3, 3))
    records = [
        Record(
            f"conformers/{name}", "[O:1]([H:2])[H:3]", np.array([8, 1, 1], dtype=np.int32), zeros + np.arange(3.0)[:, None],
            np.array([3.0, 2.0]), zeros, np.array([-0.8, 0.4, 0.4]), 0, name, "probe/hot-1000K", np.arange(2),
        )
        for name in ("a", "b")
    ]  # fmt: skip
    with DatasetWriter(tmp_path, {"probe/hot-1000K": "GFN2-xTB"}) as writer:
        for record in records:
            writer.write(record)
    dataset = ConformerDataset(tmp_path)
    rows = [
        SplitRow("xtb", record.id, "merged", np.array(split, dtype=np.uint8))
        for record, split in zip(records, ([0, 2], [1, 2]), strict=True)
    ]
    assert training_groups({"xtb": dataset}, Splits(rows)) == {"a"}
    first = probe_rows(dataset)[0]
    assert (first.group, first.n_conformers, first.lowest_energy, first.source) == ("a", 2, 2.0, "probe/hot-1000K")
    assert first.charges is not None
    assert first.charges.tolist() == [-0.8, 0.4, 0.4]
    assert replace(first, id="x").name == "probes/x"
