"""Errors of the test set against what they are in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.evaluate.errors import centered, errors_of, summaries
from tests.report.samples import ETHANOL, ETHANOL_SMILES, predicted, predictions, row

FORCE, ENERGY = "kcal_per_mol_per_angstrom", "kcal_per_mol"


def test_a_constant_shift_is_an_error_of_total_energies_alone() -> None:
    rows = [row("a/0"), row("b/0", ETHANOL, smiles=ETHANOL_SMILES)]
    said = [predicted(rows[0], 7.0, -2.0), predicted(rows[1], -3.0, 2.0)]
    found = summaries(predictions(rows, {"conservative": said, "smirnoff": said}))
    for source in ("all", "toy"):
        values = found["conservative"][source]
        for kind in ("mae", "rmse", "mean_molecule_rmse"):
            assert values[f"energy_{kind}_{ENERGY}"] == pytest.approx(0.0, abs=1e-12)
            assert values[f"force_{kind}_{FORCE}"] == pytest.approx(2.0)
        assert values[f"total_energy_mae_{ENERGY}"] == pytest.approx(5.0)
        assert values[f"total_energy_rmse_{ENERGY}"] == pytest.approx(np.sqrt((49 + 9) / 2))
        assert (values["molecules"], values["conformers"], values["energies"]) == (2, 8, 8)
        assert values["force_components"] == 4 * 9 + 4 * 27
    assert not [key for key in found["smirnoff"]["all"] if key.startswith("total")]


def test_the_mean_over_molecules_counts_molecules_alike() -> None:
    rows = [row("a/0", n_conformers=10), row("b/0", n_conformers=2)]
    said = [predicted(rows[0], np.tile([1.0, -1.0], 5), 1.0), predicted(rows[1], np.array([4.0, -4.0]), 5.0)]
    values = summaries(predictions(rows, {"direct": said}))["direct"]["all"]
    assert values[f"force_rmse_{FORCE}"] == pytest.approx(np.sqrt((10 * 1.0 + 2 * 25.0) / 12))
    assert values[f"force_mean_molecule_rmse_{FORCE}"] == pytest.approx((1.0 + 5.0) / 2)
    assert values[f"energy_rmse_{ENERGY}"] == pytest.approx(np.sqrt((10 * 1.0 + 2 * 16.0) / 12))
    assert values[f"energy_mean_molecule_rmse_{ENERGY}"] == pytest.approx((1.0 + 4.0) / 2)
    assert values[f"force_mean_molecule_rmse_{FORCE}_interval_95"] is None


def test_rows_of_one_molecule_share_an_energy_zero_unless_their_sources_differ() -> None:
    rows = [row("a/0", n_conformers=3), row("a/1", n_conformers=1), row("a/2", n_conformers=2, source="other")]
    said = [predicted(rows[0], 2.0), predicted(rows[1], -2.0), predicted(rows[2], 100.0)]
    found = summaries(predictions(rows, {"smirnoff": said}))["smirnoff"]
    # ΔE = 2, 2, 2, -2 with mean 1.
    assert found["toy"][f"energy_mae_{ENERGY}"] == pytest.approx((3 * 1.0 + 3.0) / 4)
    assert found["other"][f"energy_mae_{ENERGY}"] == pytest.approx(0.0, abs=1e-12)
    assert found["all"]["molecules"] == 1


def test_a_molecule_with_one_conformer_counts_in_forces_only() -> None:
    rows = [row("a/0", n_conformers=1), row("b/0", n_conformers=2)]
    said = [predicted(rows[0], 50.0, 3.0), predicted(rows[1], np.array([2.0, 0.0]), 0.0)]
    values = summaries(predictions(rows, {"smirnoff": said}))["smirnoff"]["all"]
    assert (values["conformers"], values["energies"]) == (3, 2)
    assert values[f"energy_mae_{ENERGY}"] == pytest.approx(1.0)
    assert values[f"energy_mean_molecule_rmse_{ENERGY}"] == pytest.approx(1.0)
    assert values[f"force_mae_{FORCE}"] == pytest.approx(1.0)
    alone = predictions(rows[:1], {"smirnoff": said[:1]})
    assert not [key for key in summaries(alone)["smirnoff"]["all"] if key.startswith("energy_")]
    assert np.isnan(centered(rows[:1], [rows[0].energy])[0]).all()


def test_without_forces_there_are_energies_alone() -> None:
    rows = [row("a/0", with_forces=False)]
    values = summaries(predictions(rows, {"direct": [predicted(rows[0], 1.0)]}))["direct"]["all"]
    assert values["force_components"] == 0
    assert not [key for key in values if key.startswith(("force_m", "force_r"))]
    assert values[f"total_energy_mae_{ENERGY}"] == pytest.approx(1.0)


def test_a_potential_that_can_do_nothing_has_no_errors() -> None:
    rows = [row("a/0"), row("b/0")]
    made = predictions(rows, {"smirnoff": [None, None], "direct": [None, predicted(rows[1], 0.0, 1.0)]})
    found = summaries(made)
    assert found["smirnoff"] == {}
    assert found["direct"]["all"]["molecules"] == 1
    assert len(errors_of(made, "smirnoff").energy) == 0
    assert not made.is_complete
    assert made.common().rows == ()
