"""Rules that divide the conformers of a molecule."""

from __future__ import annotations

import json
import re
import tarfile
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DataError, ParamsError
from pesfit.data.splits import TEST, TRAIN, UNUSED, VALIDATION
from pesfit.params.preparation import SplitRule
from pesfit.split.frames import split_as_rmd17, split_by_block, split_by_frame
from pesfit.split.rows import Row
from tests.split.rows import make_chunks, make_row

ALL = (TRAIN, VALIDATION, TEST, UNUSED)


def whole(rows: list[Row]) -> np.ndarray:
    return np.concatenate([row.split for row in rows])


def numbers(split: np.ndarray) -> tuple[int, ...]:
    return tuple(int((split == code).sum()) for code in ALL)


def runs(split: np.ndarray) -> list[tuple[int, int]]:
    return [(int(code), len(list(members))) for code, members in groupby(split)]


def test_by_frame_gives_each_molecule_its_shares() -> None:
    rows = [*make_chunks(250), *make_chunks(40, group="CO")]
    split_by_frame(rows, SplitRule(source="md17", by="frame"), 1)
    assert numbers(whole(rows[:3])) == (200, 25, 25, 0)
    assert numbers(whole(rows[3:])) == (32, 4, 4, 0)
    assert len(runs(whole(rows[:3]))) > 50


def test_by_frame_counts_leave_the_rest_unused() -> None:
    rows = make_chunks(250)
    split_by_frame(rows, SplitRule(source="md17", by="frame", train=95, validation=5, test=100), 1)
    assert numbers(whole(rows)) == (95, 5, 100, 50)


def test_by_frame_does_not_depend_on_other_molecules_or_the_order_of_rows() -> None:
    alone, with_others = make_chunks(250), [*make_chunks(70, group="C"), *make_chunks(250)[::-1]]
    rule = SplitRule(source="md17", by="frame")
    split_by_frame(alone, rule, 1)
    split_by_frame(with_others, rule, 1)
    by_id = {row.id: row.split for row in with_others}
    for row in alone:
        np.testing.assert_array_equal(row.split, by_id[row.id])


@pytest.mark.parametrize("by", ["frame", "block"])
def test_another_seed_another_split(by: str) -> None:
    splits = []
    for seed in (1, 1, 2):
        rows = make_chunks(300)
        (split_by_frame if by == "frame" else split_by_block)(rows, SplitRule(source="md17", by=by), seed)
        splits.append(whole(rows))
    np.testing.assert_array_equal(splits[0], splits[1])
    assert (splits[0] != splits[2]).any()


def test_blocks_are_runs_with_gaps_between() -> None:
    rows = make_chunks(2000)
    split_by_block(rows, SplitRule(source="md17", by="block"), 2666)
    split = whole(rows)
    assert numbers(split) == (1520, 190, 190, 100)
    found = runs(split)
    assert sum(length for code, length in found if code == TEST) == 190
    assert sum(code == TEST for code, _ in found) <= 5
    # Two sets never touch, and gaps are alike.
    for (code, _), (following, _) in pairwise(found):
        assert UNUSED in {code, following}
    gaps = [length for code, length in found if code == UNUSED]
    assert max(gaps) - min(gaps) <= 1
    assert found[0][0] != UNUSED != found[-1][0]


def test_one_stretch_without_gap_is_three_blocks() -> None:
    rows = make_chunks(1000)
    split_by_block(rows, SplitRule(source="md17", by="block", stretches=1, gap=0.0), 0)
    assert sorted(runs(whole(rows))) == [(TRAIN, 800), (VALIDATION, 100), (TEST, 100)]


def test_blocks_follow_the_frames_whatever_the_order_of_rows() -> None:
    rows = make_chunks(500)[::-1]
    split_by_block(rows, SplitRule(source="md17", by="block", stretches=1, gap=0.0), 0)
    in_order = whole(rows[::-1])
    assert len(runs(in_order)) == 3


@given(
    n_frames=st.integers(1, 400),
    stretches=st.integers(1, 30),
    gap=st.sampled_from([0.0, 0.05, 0.3]),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.0, 0.2), (1, 0, 0), (0.0, 0.0, 1.0), (0.9, 0, 0)]),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_blocks_keep_their_promises(n_frames: int, stretches: int, gap: float, shares: tuple[float, ...], seed: int) -> None:
    train, validation, test = shares
    rule = SplitRule(source="md17", by="block", train=train, validation=validation, test=test, stretches=stretches, gap=gap)
    rows = make_chunks(n_frames, size=64)
    if n_frames - int(gap * n_frames) < sum(share for share in shares if isinstance(share, int)):
        return
    split_by_block(rows, rule, seed)
    split = whole(rows)
    n_usable = n_frames - int(gap * n_frames)
    for code, share in zip((TRAIN, VALIDATION, TEST), shares, strict=True):
        expected = share if isinstance(share, int) else share * n_usable
        assert abs((split == code).sum() - expected) < 1.0 + 1e-9
    n_runs = sum(code != UNUSED for code, _ in runs(split))
    assert n_runs <= 3 * stretches


def test_more_frames_than_there_are_is_refused() -> None:
    with pytest.raises(
        ParamsError, match=r"md17: frames of CCO that gap = 0.05 leaves of 2000: 950 \+ 50 \+ 1000 = 2000 .* 1900"
    ):
        split_by_block(make_chunks(2000), SplitRule(source="md17", by="block", train=950, validation=50, test=1000), 0)


def write_published(path: Path, train: list[int], test: list[int]) -> Path:
    path.write_text(json.dumps({"1": {"train": train, "test": test}}))
    return path


RMD17 = SplitRule(source="rmd17", by="rmd17", train=15, validation=5, test=10)


def test_published_frames_are_found_in_any_row(tmp_path: Path) -> None:
    train, test = list(range(5, 405, 20)), list(range(0, 400, 40))
    rows = [*make_chunks(420, "rmd17", "CCO"), *make_chunks(420, "rmd17", "C")]
    split_as_rmd17(rows, RMD17, 3, write_published(tmp_path / "splits.json", train, test))
    for molecule in (rows[:5], rows[5:]):
        split = whole(molecule)
        assert np.flatnonzero(split == TEST).tolist() == test
        assert np.flatnonzero((split == TRAIN) | (split == VALIDATION)).tolist() == train
        assert numbers(split) == (15, 5, 10, 390)


def test_published_frames_that_are_not_there(tmp_path: Path) -> None:
    published = write_published(tmp_path / "splits.json", list(range(20)), list(range(30, 40)))
    match = r"of the 20 training frames of split 1, CCO: 15 \+ 5 = 20 are asked for, 12 are there"
    with pytest.raises(ParamsError, match=match):
        split_as_rmd17([make_row("CCO/0", "rmd17", frame=range(12))], RMD17, 3, published)
    with pytest.raises(ParamsError, match=r"needs .*splits\.json, which only the rmd17 source has"):
        split_as_rmd17([make_row("CCO/0")], RMD17, 3, tmp_path / "none" / "splits.json")


@pytest.mark.parametrize("text", ["", "[]", '{"2": {}}', '{"1": {"train": [1]}}', '{"1": {"train": ["x"], "test": []}}'])
def test_published_splits_that_are_malformed(tmp_path: Path, text: str) -> None:
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=r"splits\.json does not hold training and test frames of split 1"):
        split_as_rmd17([make_row("CCO/0", "rmd17")], RMD17, 3, tmp_path / "splits.json")


def test_published_splits_that_overlap(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="frame 7 both in training and in test"):
        split_as_rmd17([make_row("a", "rmd17")], RMD17, 3, write_published(tmp_path / "splits.json", [6, 7], [7]))


@pytest.fixture(name="published", scope="module")
def _published(real_data: Path) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(real_data / "mirror" / "rmd17" / "rmd17.tar.bz2") as archive:
        for member in archive:
            if match := re.search(r"index_(train|test)_0(\d)\.csv", member.name):
                file = archive.extractfile(member)
                assert file is not None
                found.setdefault(match[2], {})[match[1]] = [int(word) for word in file.read().split()]
    return found


@pytest.mark.parametrize("number", [1, 5])
def test_the_published_rmd17_splits(tmp_path: Path, published: dict[str, dict[str, list[int]]], number: int) -> None:
    (tmp_path / "splits.json").write_text(json.dumps(published))
    rows = make_chunks(9633, "rmd17", size=1000)
    rule = SplitRule(source="rmd17", by="rmd17", number=number, train=950, validation=50, test=1000)
    split_as_rmd17(rows, rule, 2666, tmp_path / "splits.json")
    split = whole(rows)
    assert set(np.flatnonzero(split == TEST)) == set(published[str(number)]["test"])
    assert set(np.flatnonzero((split == TRAIN) | (split == VALIDATION))) == set(published[str(number)]["train"])
    assert numbers(split) == (950, 50, 1000, 7633)
