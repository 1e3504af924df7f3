"""Rules that divide the conformers of a molecule."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DataError, ParamsError
from pesfit.data.splits import TEST, TRAIN, UNUSED, VALIDATION
from pesfit.params.preparation import SplitRule
from pesfit.split.rows import RowAssignment
from pesfit.split.rules import split_as_espaloma, split_as_rmd17, split_by_block, split_by_frame, split_by_molecule
from tests.split.rows import make_chunks, make_row

ALL = (TRAIN, VALIDATION, TEST, UNUSED)


def whole(rows: list[RowAssignment]) -> np.ndarray:
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
def _published(rmd17: Path) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    for path in sorted((rmd17 / "splits").iterdir()):
        _, part, number = path.stem.split("_")
        found.setdefault(str(int(number)), {})[part] = [int(word) for word in path.read_text().split()]
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


RULE = SplitRule(source="xtb/conformers", by="molecule")


def make_molecules(n_molecules: int, source: str = "xtb/conformers", first: int = 0) -> list[RowAssignment]:
    """Return two rows of each molecule; molecules come in pairs of twins."""
    return [make_row(f"{i}/{part}", source, f"m{i}") for i in range(first, first + n_molecules) for part in "ab"]


def twins_of(rows: list[RowAssignment]) -> dict[str, str]:
    return {row.group: f"t{int(row.group[1:]) // 2}" for row in rows}


def codes_of(rows: list[RowAssignment], twins: dict[str, str]) -> dict[str, int]:
    """Return the split of each set of twins, and see that it has one."""
    codes: dict[str, int] = {}
    for row in rows:
        assert len(set(row.split.tolist())) == 1
        assert codes.setdefault(twins[row.group], int(row.split[0])) == row.split[0]
    return codes


def test_twins_stay_together_in_exact_shares() -> None:
    rows = make_molecules(80)
    taken: dict[str, int] = {}
    split_by_molecule(rows, RULE, 1, twins_of(rows), taken)
    codes = codes_of(rows, twins_of(rows))
    assert Counter(codes.values()) == {TRAIN: 32, VALIDATION: 4, TEST: 4}
    assert taken == codes


def test_another_seed_another_draw() -> None:
    results = []
    for seed in (1, 1, 2):
        rows = make_molecules(80)
        split_by_molecule(rows, RULE, seed, twins_of(rows), {})
        results.append(codes_of(rows, twins_of(rows)))
    assert results[0] == results[1] != results[2]


def test_adding_molecules_moves_few() -> None:
    before, after = make_molecules(400), make_molecules(420)
    split_by_molecule(before, RULE, 5, twins_of(after), {})
    split_by_molecule(after, RULE, 5, twins_of(after), {})
    old, new = codes_of(before, twins_of(after)), codes_of(after, twins_of(after))
    assert sum(old[name] != new[name] for name in old) <= 10


def test_what_is_taken_stays_and_the_shares_still_hold() -> None:
    rows = make_molecules(80)
    taken = {"t3": TRAIN, "t5": TEST, "t7": VALIDATION, "elsewhere": TRAIN}
    split_by_molecule(rows, RULE, 1, twins_of(rows), taken)
    codes = codes_of(rows, twins_of(rows))
    assert (codes["t3"], codes["t5"], codes["t7"]) == (TRAIN, TEST, VALIDATION)
    assert Counter(codes.values()) == {TRAIN: 32, VALIDATION: 4, TEST: 4}


def test_fractions_give_way_to_what_is_taken() -> None:
    rows = make_molecules(80)
    split_by_molecule(rows, RULE, 1, twins_of(rows), {f"t{i}": TRAIN for i in range(36)})
    assert Counter(codes_of(rows, twins_of(rows)).values()) == {TRAIN: 36, VALIDATION: 2, TEST: 2}


def test_counts_do_not_give_way() -> None:
    rows = make_molecules(80)
    rule = SplitRule(source="xtb/conformers", by="molecule", train=20, validation=5, test=10)
    split_by_molecule(rows, rule, 1, twins_of(rows), {f"t{i}": TRAIN for i in range(25)})
    assert Counter(codes_of(rows, twins_of(rows)).values()) == {TRAIN: 20, VALIDATION: 5, TEST: 10, UNUSED: 5}
    match = r"xtb/conformers: .*\(30 train, 0 validation, 0 test\); 0 train, 5 validation, 10 test .* 10 molecules are left"
    with pytest.raises(ParamsError, match=match):
        split_by_molecule(rows, rule, 1, twins_of(rows), {f"t{i}": TRAIN for i in range(30)})
    with pytest.raises(
        ParamsError, match=r"xtb/conformers: molecules \(twins count as one\): 30 \+ 5 \+ 10 = 45 .* 40 are there"
    ):
        split_by_molecule(rows, rule.model_copy(update={"train": 30}), 1, twins_of(rows), {})


@given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=4),
    taken=st.dictionaries(st.integers(0, 24).map("t{}".format), st.sampled_from([TRAIN, VALIDATION, TEST])),
    seed=st.integers(0, 50),
)
@settings(deadline=None)
def test_nothing_crosses_from_source_to_source(sizes: list[tuple[int, int]], taken: dict[str, int], seed: int) -> None:
    everything: list[RowAssignment] = []
    settled = dict(taken)
    for number, (first, n_molecules) in enumerate(sizes):
        rows = make_molecules(n_molecules, f"espaloma/{number}", first)
        split_by_molecule(rows, RULE, seed, twins_of(rows), settled)
        everything += rows
    codes = codes_of(everything, twins_of(everything))
    for name, code in taken.items():
        assert codes.get(name, code) == code
    assert UNUSED not in codes.values()


def test_espaloma_recipe_is_pythons_shuffle() -> None:
    rows = [make_row(f"gen2-torsion/{i}", "espaloma/gen2-torsion", f"m{i}") for i in range(57)]
    split_as_espaloma(rows)
    shuffled = rows.copy()
    random.seed(2666)
    random.shuffle(shuffled)
    expected = [TRAIN] * 45 + [VALIDATION] * 5 + [TEST] * 5 + [UNUSED] * 2  # int(45.6), int(5.7), int(5.7), and what is left
    assert [int(row.split[0]) for row in shuffled] == expected


def test_espaloma_permutation_is_that_of_every_python() -> None:
    rows = [make_row(f"gen2-opt/{i}", "espaloma/gen2-opt", f"m{i}") for i in range(12)]
    split_as_espaloma(rows)
    # What random.shuffle makes of 0 to 11 after random.seed(2666): its algorithm has not changed since Python 3.2.
    order = [0, 11, 5, 10, 6, 1, 2, 3, 7, 9, 8, 4]
    assert [int(rows[i].split[0]) for i in order] == [TRAIN] * 9 + [VALIDATION, TEST, UNUSED]


def test_espaloma_duplicates_go_with_all_their_subsets_and_the_rest_is_tested_on() -> None:
    subsets = ("gen2-opt", "spice-pubchem")
    rows = [
        make_row(f"duplicated-isomeric-smiles-merge/{i}/{subset}/{i}-{i + 1}", f"espaloma/{subset}", f"m{i}")
        for i in range(17)
        for subset in subsets
    ]
    # Others of the same subsets are drawn by themselves.
    rows += [make_row(f"gen2-opt/{i}", "espaloma/gen2-opt", f"o{i}") for i in range(20)]
    split_as_espaloma(rows)
    codes = [{int(row.split[0]) for row in rows[2 * i : 2 * i + 2]} for i in range(17)]
    assert all(len(code) == 1 for code in codes)
    assert Counter(code.pop() for code in codes) == {TRAIN: 13, VALIDATION: 1, TEST: 3}
    assert Counter(int(row.split[0]) for row in rows[34:]) == {TRAIN: 16, VALIDATION: 2, TEST: 2}


@pytest.mark.parametrize(("subset", "code"), [("rna-nucleoside", TRAIN), ("rna-trinucleotide", TEST)])
def test_espaloma_takes_some_subsets_whole(subset: str, code: int) -> None:
    rows = [make_row(f"{subset}/{i}", f"espaloma/{subset}", f"m{i}") for i in range(4)]
    split_as_espaloma(rows)
    assert {int(row.split[0]) for row in rows} == {code}
