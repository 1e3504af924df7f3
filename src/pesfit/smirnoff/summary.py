"""What a fit achieved, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_QUANTITIES = {
    "energy RMSE": "energy_rmse_kcal_per_mol",
    "energy, mean of molecules": "energy_mean_molecule_rmse_kcal_per_mol",
    "force RMSE": "force_rmse_kcal_per_mol_per_angstrom",
    "force, mean of molecules": "force_mean_molecule_rmse_kcal_per_mol_per_angstrom",
}


def write_summary(path: Path, metrics: Mapping[str, Any], undetermined: Sequence[str]) -> None:
    """Write errors before and after, for each split and source, and what the data left open.

    Args:
        path: file to write.
        metrics: what `fit_smirnoff` returns.
        undetermined: parameters that stayed at their prior, such as `Bonds b3 k`.
    """
    path.write_text("\n".join(_lines(metrics, undetermined)) + "\n")


def _lines(metrics: Mapping[str, Any], undetermined: Sequence[str]) -> Iterator[str]:
    yield "# The fit of SMIRNOFF parameters"
    yield ""
    yield (
        "Energies are relative to each molecule's mean, in kcal/mol, forces in kcal/mol/Å; before → after, with the 95 % interval "
        "of the latter from resampled molecules. RMSE is the root of the mean square over all conformers, the other column the mean "
        "over molecules of each molecule's RMSE."
    )
    for split, sources in metrics["errors"].items():
        yield from ["", f"## {split.capitalize()}", ""]
        yield "| source | molecules | conformers | " + " | ".join(_QUANTITIES) + " |"
        yield "| --- | --- | --- |" + " --- |" * len(_QUANTITIES)
        for source, errors in sources.items():
            cells = [_change(errors, key) for key in _QUANTITIES.values()]
            yield f"| {source} | {errors['molecules']} | {errors['conformers']} | " + " | ".join(cells) + " |"
    yield from ["", f"## Parameters that the data do not determine ({len(undetermined)})", ""]
    yield "They stay near their starting values, where the prior holds them: " + (", ".join(undetermined) or "none") + "."


def _change(errors: Mapping[str, Any], key: str) -> str:
    before, after = (errors.get(label, {}).get(key) for label in ("before", "after"))
    if before is None or after is None:
        return "none"
    interval = errors["after"].get(f"{key}_interval_95")  # none for a single molecule
    spread = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{before:.2f} → **{after:.2f}**{spread}"
