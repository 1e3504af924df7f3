"""Which conformers make up the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.data.splits import SplitRow, Splits
from pesfit.evaluate.breakdown import count_training_sizes
from pesfit.evaluate.labeled_rows import find_test_rows
from tests.painn.train.samples import small_data


def test_rows_hold_their_test_conformers_and_the_lowest_label_of_all(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    rows = find_test_rows(datasets, splits)
    records = {record.id: record for record in datasets["toy"]}
    assert [row.id for row in rows] == list(records)
    for row in rows:
        record = records[row.id]
        chosen = splits.conformers("toy", row.id, "test")
        assert np.array_equal(row.coords, record.coords[chosen])
        assert np.array_equal(row.energy, record.energy[chosen])
        assert (row.forces is None) == (record.forces is None)
        assert (row.charges, row.is_parameterized) == (None, None)
    of_b = np.concatenate([records["b/0"].energy, records["b/1"].energy])
    assert [row.lowest_energy for row in rows if row.group == "b"] == [of_b.min()] * 2
    assert [row.molecule for row in rows if row.id == "d/0"] == [("toy", "toy/two", "d")]


def test_rows_without_test_conformers_are_left_out(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    changed = [SplitRow(r.dataset, r.id, r.group, r.split * (r.id == "c/0")) for r in splits]
    assert [row.id for row in find_test_rows(datasets, Splits(changed))] == ["c/0"]


def test_splits_of_other_data_are_refused(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    longer = [SplitRow(r.dataset, r.id, r.group, np.resize(r.split, 20)) for r in splits]
    with pytest.raises(DataError, match="a/0 has 10 conformers, but the splits have more"):
        find_test_rows(datasets, Splits(longer))
    with pytest.raises(DataError, match="no row 'a/0'"):
        find_test_rows(datasets, Splits([]))


def test_training_conformers_are_counted_by_number_of_atoms(tmp_path: Path) -> None:
    datasets, splits = small_data(tmp_path)
    assert count_training_sizes(datasets, splits) == {2: 7, 3: 7, 4: 7, 5: 14}
