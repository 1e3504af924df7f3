"""Stage 05: rules together, over data sets that share molecules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import SPLITS, TEST, TRAIN, UNUSED, VALIDATION, Splits
from pesfit.params.preparation import Split, SplitRule
from pesfit.split.stage import SPLITS_FILE, split_datasets
from tests.split.rows import write_datasets

CHAINS = ["C" * n + "O" for n in range(1, 40)]
RULES = (
    SplitRule(source="xtb/conformers", by="molecule"),
    SplitRule(source="xtb/trajectory", by="block"),
    SplitRule(source="rmd17", by="rmd17", train=20, validation=10, test=30),
    SplitRule(source="espaloma", by="espaloma"),
)


@pytest.fixture(name="datasets")
def _datasets(tmp_path: Path) -> dict[str, ConformerDataset]:
    records = [(f"{smiles}/0", "xtb/conformers", smiles, range(4)) for smiles in (*CHAINS, "CC[O-]", "CCC[OH2+]")]
    records += [(f"ethanol/{i:05d}", "xtb/trajectory", "CCO", range(50 * i, 50 * i + 50)) for i in range(4)]
    records += [("butanol/00000", "rmd17", "CCCCO", range(80))]
    records += [(f"gen2-opt/{i}", "espaloma/gen2-opt", smiles, range(5)) for i, smiles in enumerate(CHAINS[6:26])]
    datasets = write_datasets(tmp_path / "clustered", records)
    published = {"1": {"train": list(range(0, 60, 2)), "test": list(range(1, 60, 2))}}
    (tmp_path / "clustered" / "rmd17" / "splits.json").write_text(json.dumps(published))
    return dict(datasets)


def split(datasets: dict[str, ConformerDataset], output: Path, **changes: object) -> tuple[Splits, dict]:
    output.mkdir()
    params = Split(rules=RULES).model_copy(update=changes)
    metrics = split_datasets(datasets, params, output)
    return Splits.open(output / SPLITS_FILE), metrics


def molecules_in(splits: Splits, datasets: dict[str, ConformerDataset], source: str, code: int) -> set[str]:
    return {
        splits.row(name, record.id).group
        for name, dataset in datasets.items()
        for record in dataset
        if record.source.startswith(source) and (splits.of(name, record.id) == code).any()
    }


@pytest.mark.parametrize("seed", range(6))
def test_test_molecules_are_never_trained_on(datasets: dict[str, ConformerDataset], tmp_path: Path, seed: int) -> None:
    splits, metrics = split(datasets, tmp_path / "splits", seed=seed)
    assert len(splits) == sum(map(len, datasets.values()))
    trained = molecules_in(splits, datasets, "", TRAIN)
    assert not molecules_in(splits, datasets, "xtb/conformers", TEST) & trained
    assert not molecules_in(splits, datasets, "xtb/conformers", VALIDATION) & trained
    # Ethanol and butanol train as trajectories, their ions with them.
    for id_ in ("CCO/0", "CC[O-]/0", "CCCCO/0"):
        assert set(splits.of("xtb", id_)) == {TRAIN}
    assert set(splits.of("xtb", "CCC[OH2+]/0")) == set(splits.of("xtb", "CCCO/0"))
    # What the published recipe tests on, others test on.
    assert molecules_in(splits, datasets, "espaloma", TEST) <= molecules_in(splits, datasets, "xtb/conformers", TEST)
    counts = metrics["sources"]["xtb/conformers"]
    assert counts["test_molecules_in_training_anywhere"] == 0
    assert sum(counts[name]["molecules"] for name in SPLITS) == 41
    assert metrics["sources"]["xtb/trajectory"]["test_molecules_in_training_anywhere"] == 1
    assert metrics["test_molecules_in_training"] == 2


def test_metrics_count_molecules_and_conformers(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    splits, metrics = split(datasets, tmp_path / "splits")
    assert metrics["molecules"] == 41
    assert metrics["molecules_twins_counted_once"] == 39
    assert metrics["sources"]["rmd17"] == {
        "split_by": "rmd17",
        "train": {"molecules": 1, "conformers": 20},
        "validation": {"molecules": 1, "conformers": 10},
        "test": {"molecules": 1, "conformers": 30},
        "unused": {"molecules": 1, "conformers": 20},
        "test_molecules_in_training_anywhere": 1,
    }
    for name, code in (SPLITS | {"unused": UNUSED}).items():
        n_conformers = sum(int((row.split == code).sum()) for row in splits)
        assert metrics[name]["conformers"] == n_conformers
        assert n_conformers == sum(source[name]["conformers"] for source in metrics["sources"].values())
    assert json.loads(json.dumps(metrics)) == metrics


def test_by_molecule_alone_lets_twins_cross(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    crossed = 0
    for seed in range(12):
        splits, _ = split(datasets, tmp_path / f"splits-{seed}", seed=seed, group_by="molecule")
        assert splits.row("xtb", "CC[O-]/0").group != splits.row("xtb", "CCO/0").group
        crossed += set(splits.of("xtb", "CC[O-]/0")) != {TRAIN}
    assert crossed


def test_same_seed_same_bytes(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split(datasets, tmp_path / name, seed=seed)
    files = [(tmp_path / name / SPLITS_FILE).read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_order_of_rules_and_absent_sources_do_not_matter(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    split(datasets, tmp_path / "a")
    more = (SplitRule(source="md17", by="frame"), *RULES[::-1])
    split(datasets, tmp_path / "b", rules=more)
    assert (tmp_path / "a" / SPLITS_FILE).read_bytes() == (tmp_path / "b" / SPLITS_FILE).read_bytes()


def test_the_first_rule_that_fits_is_used(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    first = SplitRule(source="espaloma/gen2-opt", by="molecule", train=7, validation=0, test=0)
    splits, _ = split(datasets, tmp_path / "splits", rules=(first, SplitRule(source="xtb", by="frame"), *RULES))
    # By frame, each molecule of xtb trains; so of espaloma's 20 the first 7 train and no other is used.
    assert {int(code) for row in splits if row.dataset == "xtb" for code in row.split} == {TRAIN, VALIDATION, TEST}
    assert sorted(int(row.split[0]) for row in splits if row.dataset == "espaloma") == [TRAIN] * 7 + [UNUSED] * 13


def test_sources_and_rules_must_meet(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    with pytest.raises(
        ParamsError, match=r"no rule for source 'rmd17'; there are rules for xtb/conformers, xtb/trajectory, espaloma"
    ):
        split(datasets, tmp_path / "a", rules=(*RULES[:2], RULES[3]))
    with pytest.raises(ParamsError, match=r"split\.rules: 'xtb/conformer' is no source.*mean 'xtb/conformers'"):
        split(datasets, tmp_path / "b", rules=(*RULES, SplitRule(source="xtb/conformer", by="frame")))


def test_splits_are_of_conformers(datasets: dict[str, ConformerDataset], tmp_path: Path) -> None:
    splits, _ = split(datasets, tmp_path / "splits")
    for name, dataset in datasets.items():
        for record in dataset:
            assert splits.of(name, record.id).shape == (record.n_conformers,)
    kept = splits.conformers("rmd17", "butanol/00000", "test")
    np.testing.assert_array_equal(datasets["rmd17"][0].select(kept).frame, np.arange(1, 60, 2))
