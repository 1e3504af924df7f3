"""Rules that divide whole molecules."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import ParamsError
from pesfit.data.splits import TEST, TRAIN, UNUSED, VALIDATION
from pesfit.params.preparation import SplitRule
from pesfit.split.molecules import split_as_espaloma, split_by_molecule
from pesfit.split.rows import Row
from tests.split.rows import make_row

RULE = SplitRule(source="xtb/conformers", by="molecule")


def make_molecules(n_molecules: int, source: str = "xtb/conformers", first: int = 0) -> list[Row]:
    """Return two rows of each molecule; molecules come in pairs of twins."""
    return [make_row(f"{i}/{part}", source, f"m{i}") for i in range(first, first + n_molecules) for part in "ab"]


def twins_of(rows: list[Row]) -> dict[str, str]:
    return {row.group: f"t{int(row.group[1:]) // 2}" for row in rows}


def codes_of(rows: list[Row], twins: dict[str, str]) -> dict[str, int]:
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
    everything: list[Row] = []
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
