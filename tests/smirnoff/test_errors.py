"""Errors of force fields by split and source."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.data.splits import SplitRow, Splits
from pesfit.smirnoff.errors import ErrorRow, improvement, summarize_rows
from pesfit.smirnoff.fit_data import MoleculeRows

LABELS = ("before", "after")
MOLECULES = [MoleculeRows("d", (i,), (f"m{i}",), "a/x" if i % 3 else "b", f"m{i}", i, 1) for i in range(60)]
SPLITS = Splits(SplitRow("d", f"m{i}", f"group {i}", np.zeros(1, dtype=np.uint8)) for i in range(60))


def make_rows() -> list[ErrorRow]:
    rng = np.random.default_rng(0)
    rows = []
    for i, molecule in enumerate(MOLECULES):
        n = int(rng.integers(2, 30))
        energy = n * np.array([rng.uniform(1, 4), rng.uniform(0.1, 1)])
        sums = np.stack([rng.normal(size=2), energy, 90 * energy], axis=1)
        rows.append(ErrorRow(molecule.id, molecule.source, "train" if i < 30 else "test", n, 30 * n, sums))
    return rows


def test_both_definitions() -> None:
    rows = make_rows()
    summary = summarize_rows(rows[::-1], LABELS, MOLECULES, SPLITS)
    assert list(summary) == ["train", "test"]
    assert list(summary["train"]) == ["all", "a/x", "b"]
    inside = [row for row in rows if row.source == "a/x" and row.split == "test"]
    square, count = np.array([row.sums[1, 1] for row in inside]), np.array([row.n_conformers for row in inside])
    after = summary["test"]["a/x"]["after"]
    assert after["energy_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(square.sum() / count.sum()))
    assert after["energy_mean_molecule_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(square / count).mean())
    assert after["force_rmse_kcal_per_mol_per_angstrom"] == pytest.approx(np.sqrt(3 * square.sum() / count.sum()))
    assert after["energy_rmse_kcal_per_mol_interval_95"] is not None
    assert summary["test"]["a/x"]["molecules"] == len(inside)
    assert summary["test"]["a/x"]["conformers"] == count.sum()
    assert summary == summarize_rows(rows, LABELS, MOLECULES, SPLITS), "in any order"


def test_rows_of_one_group_share_an_energy_zero() -> None:
    """Entries of a published set may be one molecule whose conformers were collected apart."""
    splits = Splits(SplitRow("d", f"m{i}", "one molecule", np.zeros(1, dtype=np.uint8)) for i in range(60))
    rows = [ErrorRow(f"d/m{i}", "a/x", "test", n, 9, np.array([[mean, 0.0, 9.0]])) for i, n, mean in ((1, 2, 1.0), (2, 1, 4.0))]
    values = summarize_rows(rows, ("before",), MOLECULES, splits)["test"]["all"]
    assert (values["molecules"], values["conformers"], values["energies"]) == (1, 3, 3)
    assert values["before"]["energy_rmse_kcal_per_mol"] == pytest.approx(np.sqrt((1 + 1 + 4) / 3))


def test_one_molecule_has_no_interval_and_no_forces_no_force_error() -> None:
    rows = [ErrorRow("d/m0", "b", "test", 4, 0, np.array([[1.0, 16.0, 0.0]]))]
    values = summarize_rows(rows, ("before",), MOLECULES, SPLITS)["test"]["all"]["before"]
    assert values["energy_rmse_kcal_per_mol"] == 2.0
    assert values["energy_rmse_kcal_per_mol_interval_95"] is None
    assert not any(key.startswith("force") for key in values)


def test_improvement_is_the_fraction_by_which_errors_fell() -> None:
    summary = summarize_rows(make_rows(), LABELS, MOLECULES, SPLITS)
    found = improvement(summary, "before", "after")
    before, after = (summary["test"]["all"][label]["energy_rmse_kcal_per_mol"] for label in LABELS)
    assert found["test_energy_rmse_reduction"] == pytest.approx(1 - after / before)
    assert len(found) == 8
