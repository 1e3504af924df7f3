"""Errors of every potential on the test set, in the ways they are published, with intervals.

The definitions, and the keys, are those of `train.metrics` (errors pooled over conformers and components) and of `fit.metrics` (the mean
over molecules of each molecule's own root mean square error):

    ΔE'_i = ΔE_i - mean of ΔE over the molecule's test conformers in the source      `energy_...`
    mean molecule RMSE = 1/M Σ_m sqrt(mean of Δ² over m)                            `..._mean_molecule_rmse_...`

A molecule with one test conformer has ΔE' = 0 whatever the potential says: it is left out of `energy_...`, and counted in forces. (In the
metrics of `07_train_learned` such molecules count, with an error of 0.) Total energies are compared for potentials that give them at
the labels' level of theory, which a force field does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.evaluate.predictions import Predictions
from pesfit.evaluate.test_rows import TestRow
from pesfit.statistics.errors import Bootstrap, Errors, summarise

ALL = "all"
"""Name of all sources together."""
FORCE_UNIT, ENERGY_UNIT = "kcal_per_mol_per_angstrom", "kcal_per_mol"
_INTERVAL = (2.5, 97.5)
_NUMBERS_AT_ONCE = 2**22


def gives_total_energies(potential: str) -> bool:
    """Say whether a potential's energies have the labels' zero; those of a force field do not."""
    return not potential.startswith("smirnoff")


def errors_of(predictions: Predictions, potential: str) -> Errors:
    """Return a potential's errors of each conformer, for `train.metrics.summarise`."""
    pairs = predictions.of(potential)
    molecules = {name: i for i, name in enumerate(sorted({(row.dataset, row.group) for row, _ in pairs}))}
    numbers: list[tuple[int, int, int, int]] = []
    energy, absolute, squared = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for row, predicted in pairs:
        of_row = (
            0 if row.forces is None else 3 * row.n_atoms,
            row.n_atoms,
            molecules[row.dataset, row.group],
            predictions.sources.index(row.source),
        )
        numbers += [of_row] * row.n_conformers
        forces = np.zeros(row.coords.shape) if row.forces is None else predicted.forces - row.forces
        energy.append(predicted.energy - row.energy)
        absolute.append(np.abs(forces).sum(axis=(1, 2)))
        squared.append((forces**2).sum(axis=(1, 2)))
    n_components, n_atoms, molecule, source = np.array(numbers, dtype=np.int64).reshape(-1, 4).T
    return Errors(
        energy=np.concatenate(energy),
        force_abs=np.concatenate(absolute),
        force_sq=np.concatenate(squared),
        n_components=n_components,
        n_atoms=n_atoms,
        molecule=molecule,
        source=source,
        sources=predictions.sources,
    )


def centred(rows: Sequence[TestRow], values: Sequence[FloatArray]) -> list[FloatArray]:
    """Take the mean over each molecule off.

    Args:
        rows: of the test set.
        values: of each row's conformers, such as energies.

    Returns:
        Of each row's conformers the value minus the mean over all of the molecule's; NaN where the molecule has one conformer.
    """
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for row, of_row in zip(rows, values, strict=True):
        total, count = sums.get(row.molecule, (0.0, 0))
        sums[row.molecule] = total + float(of_row.sum()), count + len(of_row)
    means = {molecule: total / count if count > 1 else np.nan for molecule, (total, count) in sums.items()}
    return [of_row - means[row.molecule] for row, of_row in zip(rows, values, strict=True)]


def centred_energies(predictions: Predictions, potential: str) -> list[tuple[FloatArray, FloatArray]]:
    """Return labels and predictions of each row that the potential says something of, both by `centred` [kcal/mol]."""
    pairs = predictions.of(potential)
    rows = [row for row, _ in pairs]
    labels = centred(rows, [row.energy for row in rows])
    return list(zip(labels, centred(rows, [predicted.energy for _, predicted in pairs]), strict=True))


def summaries(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarise the errors of every potential.

    Args:
        predictions: on the test set.
        bootstrap: for the intervals.

    Returns:
        `{potential: {source: {name: value}}}`, with `all` for all sources; names end in the unit, and each has its
        `<name>_interval_95`, None where there is none. Without entries where there are no labels.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for potential in predictions.potentials:
        errors = errors_of(predictions, potential)
        if not len(errors.energy):
            result[potential] = {}
            continue
        _, unit, count = np.unique(
            errors.molecule * len(errors.sources) + errors.source, return_inverse=True, return_counts=True
        )
        several = errors.select(count[unit] > 1)
        relative = summarise(several, bootstrap) if len(several.energy) else {}
        result[potential] = {}
        for source, group in summarise(errors, bootstrap).items():
            kept = {key: value for key, value in group.items() if not key.startswith(("energy_", "total_energy_"))}
            kept |= {key: value for key, value in relative.get(source, {}).items() if key.startswith("energy_")}
            kept["energies"] = int(relative.get(source, {}).get("conformers", 0))
            if gives_total_energies(potential):
                kept |= {key: value for key, value in group.items() if key.startswith("total_energy_")}
            of_source = np.ones(len(unit), dtype=np.bool_) if source == ALL else errors.source == errors.sources.index(source)
            result[potential][source] = kept | _by_molecule(errors.select(of_source), bootstrap)
    return result


def _by_molecule(errors: Errors, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the mean over molecules of their root mean square errors; a molecule of two sources counts in each."""
    _, unit, count = np.unique(errors.molecule * len(errors.sources) + errors.source, return_inverse=True, return_counts=True)
    n_components = np.bincount(unit, errors.n_components)
    squares = np.bincount(unit, errors.force_sq)
    mean = np.bincount(unit, errors.energy) / count
    energies = np.bincount(unit, (errors.energy - mean[unit]) ** 2) / count
    forces = squares[n_components > 0] / n_components[n_components > 0]
    found: dict[str, Any] = {}
    for name, unit_name, mean_squares in (("force", FORCE_UNIT, forces), ("energy", ENERGY_UNIT, energies[count > 1])):
        if len(mean_squares):
            each = np.sqrt(mean_squares)
            key = f"{name}_mean_molecule_rmse_{unit_name}"
            found |= {key: float(each.mean()), f"{key}_interval_95": _interval_of_mean(each, bootstrap)}
    return found


def _interval_of_mean(values: FloatArray, bootstrap: Bootstrap) -> list[float] | None:
    """Return a percentile interval of a mean over resamples (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""
    n = len(values)
    if n < 2:
        return None
    rng = np.random.default_rng(bootstrap.seed)
    means = np.empty(bootstrap.n_resamples)
    at_once = max(1, _NUMBERS_AT_ONCE // n)
    for start in range(0, bootstrap.n_resamples, at_once):
        stop = min(start + at_once, bootstrap.n_resamples)
        counts = rng.multinomial(n, np.full(n, 1.0 / n), size=stop - start)
        means[start:stop] = counts.astype(np.float64) @ values / n
    low, high = np.percentile(means, _INTERVAL)
    return [float(low), float(high)]
