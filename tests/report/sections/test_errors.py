"""Tables of test errors, ours and published ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units

from pesfit.data.dataset import ConformerDataset, DatasetWriter
from pesfit.data.splits import SplitRow, Splits
from pesfit.evaluate.predictions import Predictions, summaries
from pesfit.report.page.blocks import Block, Table, Text
from pesfit.report.sections.errors import PUBLISHED, FrameCounts, count_frames, molecule_of, published_table, section
from tests.painn.train.samples import record
from tests.report.samples import ETHANOL, ETHANOL_SMILES, predicted, predictions, row


def _two_sources() -> Predictions:
    rows = [row("a/0"), row("b/0", ETHANOL, 5, source="other", smiles=ETHANOL_SMILES), row("c/0", n_conformers=1, smiles=None)]
    exact = [predicted(one, 0.0, 0.0) for one in rows]
    wrong = [predicted(one, 1.0, 2.0 + i) for i, one in enumerate(rows)]
    return predictions(rows, {"smirnoff-initial": wrong, "smirnoff": exact, "conservative": wrong})


def _blocks(found: Predictions) -> list[Block]:
    blocks = list(section(found, summaries(found)).blocks)
    _check_cells(blocks)
    return blocks


def _check_cells(blocks: list[Block]) -> None:
    for table in blocks:
        if isinstance(table, Table):
            assert all({column.key for column in table.columns} <= set(r) for r in table.rows), table.name


def _table(blocks: list[Block], name: str) -> Table:
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def test_tables_have_a_row_for_each_source_and_potential() -> None:
    blocks = _blocks(_two_sources())
    forces = _table(blocks, "test-force-errors")
    assert [(r["source"], r["potential"]) for r in forces.rows] == [
        (source, potential)
        for source in ("all", "other", "toy")
        for potential in ("smirnoff-initial", "smirnoff", "conservative")
    ]
    shown = {column.key for column in forces.columns}
    key = "force_mae_kcal_per_mol_per_angstrom"
    assert key in shown
    assert [r[key] for r in forces.rows if r["source"] == "other"] == pytest.approx([3.0, 0.0, 3.0])
    assert all({f"{key}_interval_95_low", f"{key}_interval_95_high"} <= set(r) for r in forces.rows)
    energies = _table(blocks, "test-energy-errors")
    total = [r["total_energy_mae_kcal_per_mol"] for r in energies.rows if r["source"] == "all"]
    assert total == [None, None, pytest.approx(1.0)]
    assert [r["energies"] for r in energies.rows if r["source"] == "toy"] == [4, 4, 4]


def test_one_source_is_not_said_twice() -> None:
    rows = [row("a/0")]
    blocks = _blocks(predictions(rows, {"smirnoff": [predicted(rows[0])]}))
    assert {r["source"] for block in blocks if isinstance(block, Table) for r in block.rows} == {"toy"}


def test_potentials_that_lack_molecules_are_compared_on_what_all_can_do() -> None:
    whole = _two_sources()
    lacking = {**whole.predicted, "conservative": (None, *whole.predicted["conservative"][1:])}
    _blocks(replace(whole, predicted={**lacking, "conservative": (*whole.predicted["conservative"][:1], None, None)}))
    blocks = _blocks(Predictions(whole.rows, lacking))
    (warning,) = [block for block in blocks if isinstance(block, Text)]
    assert warning.tone == "warning"
    assert "of 3 rows there is nothing from PaiNN, conservative for 1" in warning.text
    common = _table(blocks, "test-force-errors-common")
    assert {r["conformers"] for r in common.rows if r["source"] == "all"} == {6}
    assert not [block for block in _blocks(whole) if isinstance(block, Text)]


def test_numbers_are_in_our_units_whatever_they_were_published_in() -> None:
    found = {(one.source, one.molecule, one.method): one for one in PUBLISHED}
    assert len(found) == len(PUBLISHED)
    in_kcal = units.kcal / units.mol / 1e-3  # meV in one kcal/mol
    mace = found["rmd17", "aspirin", "MACE"]
    assert (mace.energy_mae * in_kcal, mace.force_mae * in_kcal) == pytest.approx((2.2, 6.6), rel=1e-6)
    painn = found["md17", "aspirin", "PaiNN"]
    assert (painn.energy_mae, painn.force_mae) == (0.167, 0.338)


def test_molecules_are_those_of_md17_alone() -> None:
    assert molecule_of("rmd17", "ethanol/00003") == "ethanol"
    assert molecule_of("xtb/trajectory", "trajectory/ethanol/00000") is None


def test_frames_are_counted_over_rows(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "rmd17", {"rmd17": "PBE"}) as writer:
        for number in range(2):
            writer.write(record(f"ethanol/0000{number}", "rmd17", [6, 8], 4, seed=number))
    split = np.array([0, 0, 1, 2], dtype=np.uint8)
    splits = Splits([SplitRow("rmd17", f"ethanol/0000{number}", "ethanol", split) for number in range(2)])
    counted = count_frames({"rmd17": ConformerDataset(tmp_path / "rmd17")}, splits)
    assert counted == {("rmd17", "ethanol"): FrameCounts(4, 2, 2)}


def test_ours_stand_beside_those_of_the_same_data_with_the_protocol_named() -> None:
    rows = [row("ethanol/00000", source="rmd17"), row("ethanol/00001", source="md17"), row("aspirin/00000", source="toy")]
    said = [predicted(rows[0], 1.0, 2.0), predicted(rows[1], 3.0, 4.0), predicted(rows[2])]
    made = predictions(rows, {"conservative": said, "smirnoff": said})
    table = published_table(made, {("rmd17", "ethanol"): FrameCounts(700, 50, 4)})
    assert table is not None
    ours = {(r["source"], r["method"]): r for r in table.rows if str(r["method"]).startswith("this run")}
    assert {r["molecule"] for r in table.rows} == {"ethanol"}
    network = ours["rmd17", "this run: PaiNN, conservative"]
    assert network["energy_mae_kcal_per_mol"] == pytest.approx(1.0)
    assert network["force_mae_mev_per_angstrom"] == pytest.approx(2.0 * 43.3641, rel=1e-5)
    assert network["trained_on"] == "700 frames + 50 for validation"
    assert ours["md17", "this run: PaiNN, conservative"]["energy_mae_kcal_per_mol"] == pytest.approx(3.0)
    relative = ours["rmd17", "this run: SMIRNOFF, fitted (energies relative)"]
    assert relative["energy_mae_kcal_per_mol"] == pytest.approx(0.0, abs=1e-12)
    assert {r["method"] for r in table.rows if r["source"] == "rmd17"} >= {"MACE", "NequIP", "PaiNN"}
    assert "950 + 50" in table.note
    assert all({column.key for column in table.columns} <= set(r) for r in table.rows)
    assert published_table(predictions(rows[2:], {"smirnoff": said[2:]}), {}) is None
