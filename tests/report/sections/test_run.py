"""The sections on the run and on failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DataError, Failure
from pesfit.data.dataset import DatasetWriter, Record, write_failures
from pesfit.params.load import Params
from pesfit.params.preparation import Cluster
from pesfit.report.page.blocks import Block, Facts, Table, Text
from pesfit.report.reading import read_failures_by_stage
from pesfit.report.sections.run import RunSummary, changed_parameters, failures_section, installed_versions, run_section

COUNTS = {"molecules": 1, "conformers": 7}
SPLIT = {
    "split_by": "block",
    **{name: {"molecules": 1, "conformers": n} for name, n in (("train", 4), ("validation", 2), ("test", 1))},
}


def record(source: str) -> Record:
    shape = (2, 1, 3)
    return Record(
        id=f"{source}/a",
        smiles="[He:1]",
        atomic_numbers=np.array([2], dtype=np.int32),
        coords=np.zeros(shape),
        energy=np.zeros(2),
        forces=np.zeros(shape),
        charges=None,
        total_charge=0,
        group="a",
        source=source,
        frame=np.arange(2),
    )


def read(folder: Path, params: Params) -> RunSummary:
    with DatasetWriter(
        folder / "arrow" / "toy", {"toy/one": "HF/STO-3G", "toy/two": "HF/STO-3G", "toy/not-fetched": "HF/STO-3G"}
    ) as writer:
        for source in ("toy/one", "toy/two"):
            writer.write(record(source))
    for name, values in {
        "convert": {"toy": {"failures": 0, "toy/one": COUNTS, "toy/two": COUNTS}},
        "cluster": {"sources": {"toy/one": {"conformers_after": 5}}},
        "split": {"sources": {"toy/one": SPLIT}, "test_molecules_in_training": 1},
        "parameterize": {"force_field": "some.offxml", "molecules_by_charge_method": {"nagl": 3, "sqm": 0}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return RunSummary.read(params, folder / "arrow", folder)


def named(blocks: list[Block], name: str) -> Table:
    (table,) = [block for block in blocks if isinstance(block, Table) and block.name == name]
    return table


def test_data_level_of_theory_and_charges_are_told(tmp_path: Path) -> None:
    blocks = list(run_section(read(tmp_path, Params())).blocks)
    (facts,) = [block for block in blocks if isinstance(block, Facts)]
    told = dict(facts.items)
    assert told["level of theory"] == "HF/STO-3G"
    assert told["partial charges, molecules"] == "3 by nagl"
    assert told["initial force field"] == "`some.offxml`"
    one, two = named(blocks, "data").rows
    assert [one[key] for key in ("conformers", "conformers_kept", "split_by", "train", "validation", "test")] == [
        7,
        5,
        "by blocks of time",
        4,
        2,
        1,
    ]
    assert [two[key] for key in ("conformers_kept", "split_by", "train")] == [None, None, 0]
    assert any(isinstance(block, Text) and block.text.startswith("1 molecule of the test set is") for block in blocks)


def test_parameters_that_differ_from_their_defaults_are_listed(tmp_path: Path) -> None:
    assert changed_parameters(Params()) == []
    params = Params(profile="mine", cluster=Cluster(cutoff_angstrom=0.123))
    default = json.dumps(Cluster().cutoff_angstrom)
    assert changed_parameters(params) == [("cluster.cutoff_angstrom", "0.123", default)]
    table = named(list(run_section(read(tmp_path, params)).blocks), "changed-parameters")
    assert list(table.rows) == [{"parameter": "cluster.cutoff_angstrom", "value": "0.123", "default": default}]


def test_versions_are_those_that_are_installed() -> None:
    assert installed_versions(("numpy", "no-such-package")) == {"numpy": np.__version__}


FOUND = [Failure("a", "convert", "MoleculeError", "no <bonds>"), Failure("b", "convert", "MoleculeError", "none either")]


def test_failures_are_counted_and_listed(tmp_path: Path) -> None:
    write_failures(tmp_path / "one.csv", FOUND[:1])
    write_failures(tmp_path / "two.csv", FOUND[1:])
    write_failures(tmp_path / "none.csv", [])
    files = {"02_convert": [tmp_path / "one.csv", tmp_path / "two.csv"], "04_cluster": [tmp_path / "none.csv"]}
    read = read_failures_by_stage(files)
    assert read == {"02_convert": FOUND, "04_cluster": []}
    _, counts, each = failures_section(read).blocks
    assert isinstance(counts, Table)
    assert isinstance(each, Table)
    assert list(counts.rows) == [
        {"stage": "02_convert", "failures": 2, "reasons": "MoleculeError (2)"},
        {"stage": "04_cluster", "failures": 0, "reasons": "none"},
    ]
    assert [row["message"] for row in each.rows] == ["no <bonds>", "none either"]
    assert each.folded


def test_none_is_said_plainly() -> None:
    (text,) = failures_section({"02_convert": [], "04_cluster": []}).blocks
    assert isinstance(text, Text)
    assert text.text.startswith("None: in 2 stages")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"failures\.csv is missing; .*02_convert"):
        read_failures_by_stage({"02_convert": [tmp_path / "failures.csv"]})
