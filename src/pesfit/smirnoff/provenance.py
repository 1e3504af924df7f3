"""The comment at the head of a fitted force field: what it was made from, how, and how well it does.

It names neither dates nor machines: the same fit gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pesfit.data.splits import SPLITS
from pesfit.parameterize.nagl_file import MODEL_NAME
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.smirnoff.exported_charges import ExportedCharges

_ERRORS = {
    "energy_rmse_kcal_per_mol": "energy RMSE [kcal/mol]",
    "force_rmse_kcal_per_mol_per_angstrom": "force RMSE [kcal/mol/angstrom]",
}
_ERRORS_OF_MINIMA = {
    "frequency_rms_per_cm": "harmonic frequencies [1/cm]",
    "bond_rms_angstrom": "bonds at minima [angstrom]",
    "angle_rms_degree": "angles at minima [degree]",
    "dihedral_rms_degree": "dihedrals at minima [degree]",
    "conformer_energy_rms_kcal_per_mol": "energies between minima [kcal/mol]",
    "scan_rms_kcal_per_mol": "torsion scans [kcal/mol]",
}


def provenance(
    start: str, levels: Mapping[str, str], params: FitSmirnoff, charges: ExportedCharges, metrics: Mapping[str, Any]
) -> str:
    """Describe a fit in plain lines of ASCII.

    Args:
        start: name of the starting force field.
        levels: level of theory of each source.
        params: section `fit_smirnoff`.
        charges: those in the file.
        metrics: of the fit: `parameters`, `prior_strength`, `energy_weight`, `force_weight`, `errors`, `landscapes` (see `fit_smirnoff`).
    """
    lines = [
        f"Fitted with pesfit {metadata.version('pesfit')}, starting from {start}.",
        f"{metrics['parameters']['trained']} parameters were trained; everything else is as in the starting force field.",
        "",
        *_data(levels, metrics["errors"]),
        "",
        *_objective(params, metrics),
        f"Charges: {_charges(charges)}.",
        "",
        *_errors(metrics["errors"]),
        *_errors_of_minima(metrics["landscapes"]),
    ]
    text = "\n".join(line.rstrip() for line in lines)
    return text.encode("ascii", "backslashreplace").decode()


def _data(levels: Mapping[str, str], errors: Mapping[str, Any]) -> Iterator[str]:
    yield "Data, molecules/conformers in training, validation and test set:"
    sources = sorted({source for split in errors.values() for source in split} - {"all"})
    for source in sources:
        of_splits = [errors.get(split, {}).get(source, {"molecules": 0, "conformers": 0}) for split in SPLITS]
        counts = ", ".join(f"{count['molecules']}/{count['conformers']}" for count in of_splits)
        yield f"  {source} ({levels.get(source, 'level of theory not known')}): {counts}"


def _objective(params: FitSmirnoff, metrics: Mapping[str, Any]) -> Iterator[str]:
    objective = params.objective
    yield f"Objective: energies x {metrics['energy_weight']:.4g}, forces x {metrics['force_weight']:.4g}; method {params.method},"
    if metrics["landscapes"]["molecules"]:
        kinds = ("frequency", "displacement", "conformer_energy", "scan")
        weights = (f"{kind.replace('_', ' ')} x {getattr(objective, f'{kind}_weight'):.4g}" for kind in kinds)
        yield f"  minima: {', '.join(weights)}; {objective.rounds} rounds,"
    yield f"  energy zero {objective.energy_zero}, normalization {objective.normalization}, conformers {objective.conformer_weight.kind},"
    own = (
        ""
        if params.molecule_strength is None
        else f", of the prior of molecules' own parameters {params.molecule_strength:.4g}"
    )
    yield f"  strength of the prior {metrics['prior_strength']:.4g}{own}."
    if params.method == "gradient":
        yield f"  Then minimized by {params.gradient.optimizer} with loss {params.gradient.loss.kind}."


def _charges(charges: ExportedCharges) -> str:
    parts = []
    if charges.trained:
        parts.append(f"trained for {len(charges.trained)} molecules (LibraryCharges)")
    if charges.library:
        parts.append(f"of the data for {len(charges.library)} molecules (LibraryCharges)")
    if charges.n_left_out:
        parts.append(f"of the data for {charges.n_left_out} molecules, which are NOT in this file: hand them to the toolkit")
    others = f"NAGL, {MODEL_NAME}" if charges.nagl else "as in the starting force field"
    return "; ".join([*parts, f"for others: {others}" if parts else others])


def _errors(errors: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of all sources together."""
    yield "Errors, starting force field -> this one (energies relative to each molecule's mean):"
    for split in SPLITS:
        if split not in errors:
            continue
        found = errors[split]["all"]
        yield f"  {split}: {found['molecules']} molecules, {found['conformers']} conformers"
        for key, name in _ERRORS.items():
            before, after = (found[label].get(key) for label in ("before", "after"))
            if before is not None and after is not None:
                yield f"    {name}: {before:.2f} -> {after:.2f}"


def _errors_of_minima(landscapes: Mapping[str, Any]) -> Iterator[str]:
    errors: Mapping[str, Any] = landscapes.get("errors", {})
    if errors:
        yield "Root mean square errors at minima, and of relaxed torsion scans:"
    for split in SPLITS:
        if split not in errors:
            continue
        before, after = errors[split]["before"], errors[split]["after"]
        yield (
            f"  {split}: {after['molecules']} molecules, {after['minima']} minima; relaxed into another minimum {before['lost']} -> "
            f"{after['lost']}"
        )
        for key, name in _ERRORS_OF_MINIMA.items():
            if before.get(key) is not None and after.get(key) is not None:
                yield f"    {name}: {before[key]:.3g} -> {after[key]:.3g}"
