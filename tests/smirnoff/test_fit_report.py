"""The page that says what a fit achieved."""

from __future__ import annotations

from pathlib import Path

from pesfit.smirnoff.fit_report import write_summary


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
