"""The section on simulations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pesfit.core.exceptions import DataError
from pesfit.data.rollouts import ENERGIES_SCHEMA, write_energies
from pesfit.report.page.blocks import Figure, Layout, Table, Text
from pesfit.report.page.figures import style
from pesfit.report.sections import rollouts
from pesfit.report.sections.rollouts import Rollouts

MOLECULES = {"toy/breaks": 3, "toy/lasts": 2}
POTENTIALS = ("direct", "conservative", "gfn2")
DRIFT = "drift_kcal_per_mol_per_ps_per_atom"


def measured(potential: str, dynamics: str, molecule: str) -> dict[str, Any]:
    breaks = potential == "direct" and molecule == "toy/breaks"
    slope = {"direct": 2.0, "conservative": -1e-3, "gfn2": 1e-4}[potential]
    values: dict[str, Any] = {
        "n_replicas": 2,
        "n_stopped": {"stretched": 1 if breaks else 0, "energy": 0},
        "stable_fraction": 0.5 if breaks else 1.0,
        "stable_time_ps": 0.1,
        "distances_mae": None,
        "force_mae_kcal_per_mol_per_angstrom": None if potential == "gfn2" else 1.0,
        "force_mae_over_time_ps": [] if potential == "gfn2" else [[0.0, 0.5], [0.1, 1.5]],
    }
    if dynamics == "nve":
        values |= {DRIFT: slope, "drift_standard_error_kcal_per_mol_per_ps_per_atom": 0.1 * abs(slope)}
        values |= {"drift_magnitude_kcal_per_mol_per_ps_per_atom": abs(slope), "fluctuation_kcal_per_mol_per_atom": 1e-3}
    else:
        values |= {"temperature_kelvin": 500.0, "temperature_standard_error_kelvin": 5.0}
    return values


def written(folder: Path, molecules: dict[str, int], *, with_deviations: bool = False) -> tuple[Path, Path]:
    rows = [
        {"potential": name, "dynamics": kind, "molecule": molecule, "smiles": None, "source": "toy", "n_atoms": n_atoms}
        | measured(name, kind, molecule)
        for name in POTENTIALS
        for kind in ("nve", "nvt")
        for molecule, n_atoms in molecules.items()
    ]
    (folder / "measures.json").write_text(json.dumps(rows))
    of_all = {name: {kind: measured(name, kind, "") for kind in ("nve", "nvt")} for name in POTENTIALS}
    (folder / "rollout.json").write_text(json.dumps({"n_molecules": 2, "n_failures": 1, "potentials": of_all}))
    time = np.arange(0.0, 101.0, 20.0)
    batches = []
    for row in rows:
        slope = 2e-3 if row["potential"] == "direct" else 1e-6  # kcal/mol/fs/atom
        for replica in range(2):
            stopped = row["n_stopped"]["stretched"] == 1 and replica == 0
            times = time[:3] if stopped else time
            total = 50.0 + slope * row["n_atoms"] * times
            values = {
                "potential": row["potential"],
                "dynamics": row["dynamics"],
                "molecule": row["molecule"],
                "replica": replica,
                "stopped": "stretched" if stopped else None,
                "time_fs": times,
                "potential_energy": total - 7.0,
                "kinetic_energy": np.full(len(times), 7.0),
                "frame_fs": times,
            }
            if with_deviations and row["potential"] == "conservative":
                values |= {"force_std": 1.0 + times / 10.0, "left_domain_fs": 40.0 if replica == 0 else None}
            columns = [pa.array([values.get(field.name)], type=field.type) for field in ENERGIES_SCHEMA]
            batches.append(pa.record_batch(columns, schema=ENERGIES_SCHEMA))
    write_energies(folder / "energies.arrow", batches)
    return folder, folder / "rollout.json"


@pytest.fixture(name="read")
def _read(tmp_path: Path) -> Rollouts:
    return Rollouts.read(*written(tmp_path, MOLECULES))


def test_total_energies_are_changes_for_each_atom(read: Rollouts) -> None:
    assert {trace.potential for trace in read.energies} == set(POTENTIALS)
    (trace,) = [
        each for each in read.energies if (each.potential, each.molecule, each.stopped) == ("direct", "toy/breaks", True)
    ]
    np.testing.assert_allclose(trace.change, 2e-3 * np.array([0.0, 20.0, 40.0]), atol=1e-12)
    np.testing.assert_allclose(trace.time_ps, [0.0, 0.02, 0.04])


def test_drift_is_told_of_a_molecule_that_stays_whole(read: Rollouts) -> None:
    assert read.names == ["toy/lasts", "toy/breaks"]
    assert [(drift.potential, drift.molecule, drift.magnitude) for drift in read.drifts()] == [
        ("gfn2", "toy/lasts", 1e-4),
        ("conservative", "toy/lasts", 1e-3),
        ("direct", "toy/lasts", 2.0),
    ]


def test_stable_replicas_are_counted_over_all_simulations(read: Rollouts) -> None:
    assert read.stable() == {"gfn2": 1.0, "conservative": 1.0, "direct": pytest.approx(1.0 - 2 / 8)}


def test_tables_have_each_molecule_and_all_together(read: Rollouts) -> None:
    constant, nvt = [block for block in rollouts.section(read).blocks if isinstance(block, Table)]
    groups = list(dict.fromkeys(row["group"] for row in constant.rows))
    assert groups == ["toy/lasts", "toy/breaks", "all 2 molecules"]
    assert [row["potential"] for row in constant.rows[:3]] == ["gfn2", "conservative", "direct"]
    (broken,) = [row for row in constant.rows if (row["group"], row["potential"]) == ("toy/breaks", "direct")]
    assert (broken["stable_percent"], broken["stopped_by_stretched"]) == (50.0, 1)
    assert nvt.rows[0]["temperature_kelvin"] == 500.0
    assert not any(column.key == "left_domain_percent" for column in nvt.columns)


def test_many_molecules_are_listed_in_a_closed_table(tmp_path: Path) -> None:
    read = Rollouts.read(*written(tmp_path, {f"toy/{number}": 2 for number in range(5)}))
    tables = [block for block in rollouts.section(read).blocks if isinstance(block, Table)]
    assert [table.folded for table in tables] == [False, False, True]
    assert len({row["molecule"] for row in tables[2].rows}) == 5


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_a_potential_that_runs_away_is_left_out_where_one_looks_closer(read: Rollouts, layout: Layout) -> None:
    energy, errors = [block for block in rollouts.section(read).blocks if isinstance(block, Figure)]
    with style():
        panels = energy.draw(layout).axes
        errors.draw(layout)
    assert [axes.get_title(loc="left") for axes in panels] == [
        "toy/lasts",
        "without PaiNN, direct",
        "toy/breaks",
        "without PaiNN, direct",
    ]
    assert max(panels[0].get_ylim()) > 0.1
    assert max(panels[1].get_ylim()) < 1e-3
    crosses = [line for line in panels[2].lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(0.04, pytest.approx(0.08))]


def test_where_a_replica_leaves_the_domain_is_marked(tmp_path: Path) -> None:
    read = Rollouts.read(*written(tmp_path, MOLECULES, with_deviations=True))
    (figure,) = [
        block
        for block in rollouts.section(read).blocks
        if isinstance(block, Figure) and block.name == "force-uncertainty-over-time"
    ]
    assert "4 of 8 replicas leave" in figure.alt
    with style():
        panels = figure.draw("wide").axes
    assert len(panels) == 4
    for axes in panels:
        marks = [line for line in axes.lines if line.get_marker() == "o"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(0.04, pytest.approx(5.0))]


def test_failures_are_pointed_at_and_times_are_not_on_the_page(read: Rollouts) -> None:
    texts = [block for block in rollouts.section(read).blocks if isinstance(block, Text)]
    assert [text.text.split(" simulations")[0] for text in texts if text.tone == "warning"] == ["1"]
    assert "timing.json" in texts[-1].text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, MOLECULES)
    (tmp_path / "energies.arrow").unlink()
    with pytest.raises(DataError, match=r"energies\.arrow is missing"):
        Rollouts.read(tmp_path, tmp_path / "rollout.json")
