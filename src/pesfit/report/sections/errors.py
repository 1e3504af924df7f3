"""The sections on the test set: errors, parity, where errors are, and the worst molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pesfit.evaluate.breakdown import breakdown, by_element, by_energy, by_size, count_training
from pesfit.evaluate.errors import gives_total_energies, summaries
from pesfit.evaluate.names import label_of
from pesfit.evaluate.predictions import Predictions
from pesfit.params.evaluation import Analyse
from pesfit.report.page.blocks import Block, Cell, Column, Drawing, Gallery, Section, Table, Text
from pesfit.report.parity import parity, parity_figure
from pesfit.report.published import Frames
from pesfit.report.sections.breakdown import breakdown_figure, breakdown_table
from pesfit.report.sections.published import published_table
from pesfit.report.structures import MoleculeForces, caption, draw, molecule_errors, worst
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT, interval_of, resampled

Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]

_FORCE, _ENERGY = "kcal/mol/Å", "kcal/mol"
_DEFINITIONS = (
    "MAE and RMSE are over all components and conformers of the source; the mean molecule RMSE is the mean over molecules of each "
    "one's own, in which a long trajectory counts like any other molecule. Publications use either. Intervals of 95 % are over resamples "
    "of molecules where there are at least ten. Of a single molecule they are over resamples of blocks of frames, longer than these are "
    "correlated, and tell what other frames of the same trajectory would give. With two to nine molecules there is no interval."
)
_RELATIVE = (
    "Energies are relative to the mean over the molecule's test conformers, since the energy of a force field has no zero of its own; a "
    "molecule with one test conformer has no relative energy and is left out."
)


def sections(
    predictions: Predictions,
    found: Summaries,
    params: Analyse,
    frames: Mapping[tuple[str, str], Frames] | None = None,
    training_sizes: Mapping[int, int] | None = None,
) -> list[Section]:
    """Make the sections.

    Args:
        predictions: on the test set.
        found: its errors, from `errors.summaries`.
        params: section `analyse`.
        frames: of molecules of MD17 and rMD17, from `published.count_frames`.
        training_sizes: number of training conformers by number of atoms, from `rows.count_training_sizes`.
    """
    errors: list[Block] = [force_table(found), energy_table(found)]
    if not predictions.is_complete:
        errors.insert(0, _incomplete(predictions))
        common = predictions.common()
        if common.rows:
            errors.append(force_table(summaries(common), common=True))
    beside = published_table(predictions, frames or {})
    errors += [] if beside is None else [beside]
    kinds = {
        "element": ("by element", by_element()),
        "energy": ("by energy above the molecule's lowest label", by_energy(params.energy_window, params.energy_windows)),
        "size": ("by size of the molecule", by_size(params.size_bin_atoms)),
    }
    trained = None if training_sizes is None else count_training(training_sizes, params.size_bin_atoms)
    where: list[Block] = []
    for name, (words, kind) in kinds.items():
        parts = breakdown(predictions, kind)
        where += [
            breakdown_figure(parts, kind, f"errors-by-{name}", f"Errors of forces {words}"),
            breakdown_table(parts, kind, f"errors-by-{name}", f"Errors {words}", trained if name == "size" else None),
        ]
    result = [
        Section("test-errors", "Errors on the test set", errors),
        Section(
            "parity", "Predictions against labels", [parity_figure(parity(predictions, name)) for name in ("energy", "forces")]
        ),
        Section("where-errors-are", "Where the errors are", where),
    ]
    drawn = galleries(predictions, found, params.worst_molecules)
    return [*result, Section("worst-molecules", "The worst molecules", drawn)] if drawn else result


def force_table(found: Summaries, *, common: bool = False) -> Table:
    """Return errors of forces, by source and potential.

    Args:
        found: from `errors.summaries`.
        common: whether they are of molecules that every potential can do, of which the table then speaks.
    """
    names = {f"force_{kind}_{FORCE_UNIT}": label for kind, label in (("mae", "MAE"), ("rmse", "RMSE"))}
    names[f"force_mean_molecule_rmse_{FORCE_UNIT}"] = "mean molecule RMSE"
    return Table(
        name="test-force-errors-common" if common else "test-force-errors",
        title="Errors of forces, molecules that every potential can do" if common else "Errors of forces, by component",
        columns=[*_LEADING, Column("conformers", "conformers"), *_with_intervals(names, _FORCE)],
        rows=_rows(found, ("molecules", "conformers", "force_components"), names),
        note=_DEFINITIONS,
        group="group",
    )


def energy_table(found: Summaries) -> Table:
    """Return errors of energies, by source and potential."""
    names = {f"energy_{kind}_{ENERGY_UNIT}": label for kind, label in (("mae", "MAE"), ("rmse", "RMSE"))}
    names[f"energy_mean_molecule_rmse_{ENERGY_UNIT}"] = "mean molecule RMSE"
    total = {f"total_energy_mae_{ENERGY_UNIT}": "MAE of total energies"}
    hidden = {
        f"total_energy_{kind}_{unit}": "" for kind in ("mae", "rmse") for unit in (ENERGY_UNIT, f"{ENERGY_UNIT}_per_atom")
    }
    return Table(
        name="test-energy-errors",
        title="Errors of relative energies",
        columns=[*_LEADING, Column("energies", "conformers"), *_with_intervals(names | total, _ENERGY)],
        rows=_rows(found, ("molecules", "energies"), names | total | hidden),
        note=f"{_RELATIVE} Total energies are of networks alone.",
        group="group",
    )


_LEADING = (Column("potential_label", "potential"), Column("molecules", "molecules"))


def _with_intervals(names: Mapping[str, str], unit: str) -> list[Column]:
    return [Column(key, label, unit, interval=f"{key}_interval_95", best="lowest") for key, label in names.items()]


def _rows(found: Summaries, counts: Sequence[str], names: Mapping[str, str]) -> list[dict[str, Cell]]:
    sources = sorted({source for of_sources in found.values() for source in of_sources}, key=lambda name: (name != ALL, name))
    if len(sources) == 2:  # all sources together are the one there is
        sources.remove(ALL)
    rows: list[dict[str, Cell]] = []
    for source in sources:
        for potential, of_sources in found.items():
            if source not in of_sources:
                continue
            values = of_sources[source]
            group = "all sources" if source == ALL else source
            row: dict[str, Cell] = {
                "group": group, "source": source, "potential": potential, "potential_label": label_of(potential)
            }  # fmt: skip
            row |= {name: values.get(name) for name in counts}
            row["resampled"] = resampled(values)
            for name in names:
                row[name] = values.get(name)
                low, high = interval_of(values, name) or (None, None)
                row |= {f"{name}_interval_95_low": low, f"{name}_interval_95_high": high}
            rows.append(row)
    return rows


def _incomplete(predictions: Predictions) -> Text:
    total = len(predictions.rows)
    lacking = {
        label_of(name): sum(one is None for one in of_rows)
        for name, of_rows in predictions.predicted.items()
        if any(one is None for one in of_rows)
    }
    words = ", ".join(f"{name} for {n}" for name, n in lacking.items())
    return Text(
        f"Not every potential can do every molecule of the test set: of {total} rows there is nothing from {words}. Their errors are over "
        "fewer molecules than those of the others; a table below holds what can be compared.",
        "warning",
    )


def galleries(predictions: Predictions, found: Summaries, n_molecules: int) -> list[Block]:
    """Draw the molecules with the largest force errors: of the better one of the force fields, and of the networks."""
    errors = molecule_errors(predictions)
    blocks: list[Block] = []
    for total in (False, True):
        names = [name for name in predictions.potentials if gives_total_energies(name) == total and name != "gfn2"]
        rmse = {name: found[name].get(ALL, {}).get(f"force_rmse_{FORCE_UNIT}") for name in names}
        known = {name: value for name, value in rmse.items() if value is not None}
        if not known:
            continue
        best = min(known, key=lambda name: (known[name], name))
        if molecules := worst(errors, best, n_molecules):
            blocks.append(_gallery(molecules, best, len(errors)))
    return blocks


def _gallery(molecules: Sequence[MoleculeForces], potential: str, n_all: int) -> Gallery:
    largest = max(float(molecule.of_atoms[potential].max()) for molecule in molecules)
    which = f"all {n_all}" if len(molecules) == n_all else f"{len(molecules)} of {n_all}"
    return Gallery(
        title=f"{label_of(potential)}: largest force errors ({which} molecules)",
        drawings=[Drawing(draw(molecule, potential, largest), caption(molecule)) for molecule in molecules],
        note=f"Force RMSE of every potential in {_FORCE}. Discs: error of {label_of(potential)} on the atom and on its hydrogens that are "
        f"not drawn, from none to {largest:.3g} {_FORCE}.",
    )
