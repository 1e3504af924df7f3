"""The table of published errors with ours beside them."""

from __future__ import annotations

from collections.abc import Mapping

from pesfit.core.units import EV
from pesfit.evaluate.errors import gives_total_energies, summaries
from pesfit.evaluate.names import label_of
from pesfit.evaluate.predictions import Predictions
from pesfit.report.page.blocks import Cell, Column, Table
from pesfit.report.published import PROTOCOLS, PUBLISHED, Frames, molecule_of
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT

_NOTE = (
    "Published networks were trained on one molecule each, to the end, and tested on frames of the same trajectory. Ours are trained on "
    "all data of the run together, at the size that `params.yaml` sets, and tested on the frames of its split. Only a run on one molecule "
    "with its published split (`by: rmd17`, 950 + 50 frames) and as long a training follows the same protocol."
)


def published_table(predictions: Predictions, frames: Mapping[tuple[str, str], Frames]) -> Table | None:
    """Return published errors of molecules of MD17 and rMD17 with ours beside them; None where none is in the test set.

    Args:
        predictions: on the test set.
        frames: of these molecules in the splits, from `published.count_frames`.
    """
    rows: list[dict[str, Cell]] = []
    molecules = {(row.source, name) for row in predictions.rows if (name := molecule_of(row.source, row.id)) is not None}
    for source, molecule in sorted(molecules):
        kept = predictions.only(
            [(row.source, molecule_of(row.source, row.id)) == (source, molecule) for row in predictions.rows]
        )
        count = frames.get((source, molecule), Frames())
        trained = f"{count.train:,} frames + {count.validation:,} for validation"
        about: dict[str, Cell] = {"source": source, "molecule": molecule}
        for potential, of_sources in summaries(kept).items():
            errors = of_sources.get(ALL, {})
            is_total = gives_total_energies(potential)
            energy = errors.get(f"{'total_energy' if is_total else 'energy'}_mae_{ENERGY_UNIT}")
            method = f"this run: {label_of(potential)}" + ("" if is_total else " (energies relative)")
            ours = _errors(energy, errors.get(f"force_mae_{FORCE_UNIT}"))
            rows.append(about | {"method": method, "trained_on": trained, **ours, "reference": None})
        rows += [
            about
            | {"method": one.method, "trained_on": PROTOCOLS[source]}
            | _errors(one.energy_mae, one.force_mae)
            | {"reference": one.reference}
            for one in PUBLISHED
            if (one.source, one.molecule) == (source, molecule)
        ]
    if not rows:
        return None
    columns = [
        Column("source", "data"),
        Column("molecule", "molecule"),
        Column("method", "potential"),
        Column("trained_on", "trained on, of this molecule"),
        Column(f"energy_mae_{ENERGY_UNIT}", "energy MAE", "kcal/mol"),
        Column("energy_mae_mev", "energy MAE", "meV"),
        Column(f"force_mae_{FORCE_UNIT}", "force MAE", "kcal/mol/Å"),
        Column("force_mae_mev_per_angstrom", "force MAE", "meV/Å"),
        Column("reference", "published by"),
    ]
    return Table("published", "Published figures, with ours beside them", columns, rows, note=_NOTE)


def _errors(energy: float | None, force: float | None) -> dict[str, Cell]:
    """Return cells of mean absolute errors in both unit systems [kcal/mol] and [kcal/mol/Å]."""
    return {
        f"energy_mae_{ENERGY_UNIT}": energy,
        "energy_mae_mev": None if energy is None else energy / EV * 1e3,
        f"force_mae_{FORCE_UNIT}": force,
        "force_mae_mev_per_angstrom": None if force is None else force / EV * 1e3,
    }
