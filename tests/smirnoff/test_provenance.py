"""The comment at the head of a fitted force field."""

from __future__ import annotations

import numpy as np

from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.smirnoff.exported_charges import ExportedCharges
from pesfit.smirnoff.provenance import provenance

METRICS = {
    "parameters": {"trained": 7},
    "prior_strength": 5.94611,
    "energy_weight": 1.0,
    "force_weight": 0.25,
    "landscapes": {
        "molecules": 4,
        "errors": {
            "test": {
                "before": {
                    "molecules": 4,
                    "minima": 8,
                    "lost": 0,
                    "frequency_rms_per_cm": 119.12,
                    "scan_rms_kcal_per_mol": None,
                },
                "after": {"molecules": 4, "minima": 8, "lost": 1, "frequency_rms_per_cm": 69.51, "scan_rms_kcal_per_mol": None},
            }
        },
    },
    "errors": {
        "train": {
            name: {
                "molecules": 3,
                "conformers": 40,
                "before": {"energy_rmse_kcal_per_mol": 3.2691, "force_rmse_kcal_per_mol_per_angstrom": 13.84},
                "after": {"energy_rmse_kcal_per_mol": 2.1, "force_rmse_kcal_per_mol_per_angstrom": 8.344},
            }
            for name in ("all", "mine/é", "xtb")
        },
        "test": {"all": {"molecules": 1, "conformers": 1, "before": {}, "after": {"energy_rmse_kcal_per_mol": None}}},
    },
}


def test_it_tells_data_method_charges_and_errors() -> None:
    charges = ExportedCharges(library=(("[H:1][H:2]", np.zeros(2)),), nagl=True)
    text = provenance("sage.offxml", {"xtb": "GFN2-xTB"}, FitSmirnoff(), charges, METRICS)
    assert text.isascii()
    for expected in (
        "starting from sage.offxml",
        "7 parameters were trained",
        "xtb (GFN2-xTB): 3/40, 0/0, 0/0",
        "mine/\\xe9 (level of theory not known)",
        "energies x 1, forces x 0.25; method exact",
        "minima: frequency x 30, displacement x 60, conformer energy x 20, scan x 20; 4 rounds",
        "test: 4 molecules, 8 minima; relaxed into another minimum 0 -> 1",
        "harmonic frequencies [1/cm]: 119 -> 69.5",
        "strength of the prior 5.946",
        "of the data for 1 molecules (LibraryCharges); for others: NAGL, openff-gnn-am1bcc-1.0.0.pt.",
        "train: 3 molecules, 40 conformers",
        "energy RMSE [kcal/mol]: 3.27 -> 2.10",
        "force RMSE [kcal/mol/angstrom]: 13.84 -> 8.34",
    ):
        assert expected in text, text


def test_charges_that_are_not_in_the_file_are_named() -> None:
    text = provenance(
        "sage.offxml",
        {},
        FitSmirnoff(method="gradient"),
        ExportedCharges(n_left_out=900),
        {**METRICS, "landscapes": {"molecules": 0}},
    )
    assert "minima" not in text
    assert "of the data for 900 molecules, which are NOT in this file" in text
    assert "Then minimized by lm with loss l2" in text
