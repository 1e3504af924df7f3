"""The page that says what a fit achieved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pesfit.params.fit_smirnoff import Train
from pesfit.smirnoff.fit_report import notable, write_summary
from pesfit.smirnoff.parameters import Layout
from tests.smirnoff.samples import sample


def quantity(name: str, value: float, interval: list[float] | None) -> dict[str, object]:
    return {name: value, f"{name}_interval_95": interval}


def test_errors_before_and_after_stand_beside_each_other(tmp_path: Path) -> None:
    names = ("energy_rmse_kcal_per_mol", "energy_mean_molecule_rmse_kcal_per_mol", "force_rmse_kcal_per_mol_per_angstrom")
    before = {key: value for name in names for key, value in quantity(name, 2.0, [1.0, 3.0]).items()}
    after = {key: value for name in names for key, value in quantity(name, 1.0, [0.5, 1.5]).items()}
    lonely = {key: value for name in names for key, value in quantity(name, 0.25, None).items()}
    errors = {
        "test": {
            "all": {"molecules": 3, "conformers": 12, "before": before, "after": after},
            "one": {"molecules": 1, "conformers": 4, "before": before, "after": lonely},
        }
    }
    write_summary(tmp_path / "summary.md", {"errors": errors}, ["Bonds b3 length"])
    lines = (tmp_path / "summary.md").read_text().splitlines()
    change = "2.00 → **1.00** (0.50 to 1.50)"
    assert f"| all | 3 | 12 | {change} | {change} | {change} | none |" in lines
    assert "| one | 1 | 4 | 2.00 → **0.25** | 2.00 → **0.25** | 2.00 → **0.25** | none |" in lines
    assert lines[-1].endswith("holds them: Bonds b3 length.")


def test_what_a_reader_would_stop_at_stands_first(tmp_path: Path) -> None:
    measures = {"molecules": 2, "minima": 3, "lost": 0, "frequency_rms_per_cm": 80.0}
    metrics = {
        "errors": {"train": {}},
        "equilibrium_angles_changed": ["a15 123.9° → 133.6°"],
        "parameters_at_a_bound": [],
        "landscapes": {
            "errors": {"train": {"before": measures, "after": measures | {"lost": 1, "frequency_rms_per_cm": 52.04}}}
        },
    }
    write_summary(tmp_path / "summary.md", metrics, [])
    lines = (tmp_path / "summary.md").read_text().splitlines()
    first = lines.index("## Train")
    assert lines.index("Equilibrium angles changed by more than 5°: a15 123.9° → 133.6°.") < first
    assert lines.index("Parameters at a bound: none.") < first
    assert "| train | 2 | 3 | 0 → 1 | 80.0 → **52.0** | none | none | none | none | none |" in lines


def test_large_changes_and_bounds_are_named() -> None:
    found = sample(("CCO",), n_conformers=1)
    layout = Layout.of(found.force_field, Train())
    x = np.zeros(len(layout))
    entry = int(np.flatnonzero((layout.handler == 1) & layout.is_shift)[0])
    x[entry] = 0.17 * layout.k[entry]
    named = notable(layout, found.force_field, layout.apply(found.force_field, x))
    assert len(named["equilibrium_angles_changed"]) == 1
    assert named["parameters_at_a_bound"] == layout.names(found.force_field, np.arange(len(layout)) == entry)
    same = notable(layout, found.force_field, found.force_field)
    assert same == {"equilibrium_angles_changed": [], "parameters_at_a_bound": []}
