"""The section on errors of the test set: tables of forces and energies, and published errors for MD17 and rMD17 beside ours.

Published are mean absolute errors of networks trained on one molecule each. MD17 numbers are published in kcal/mol, those of rMD17 in
meV; here all are in kcal/mol and Å. Ours compare only where the protocol is the same, which `PROTOCOLS` has for each set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pesfit.core.units import EV
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits
from pesfit.evaluate.predictions import Predictions, gives_total_energies, summaries
from pesfit.report.page.blocks import Block, Cell, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import label_of
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT, interval_of, resampled

Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]

_FORCE, _ENERGY = "kcal/mol/Å", "kcal/mol"
_DEFINITIONS = (
    "MAE and RMSE are over all components and conformers of the source; the mean molecule RMSE is the mean over molecules of each "
    "one's own, in which a long trajectory counts like any other molecule. Publications use either. Intervals of 95 % are over resamples "
    "of molecules where there are at least ten. For a single molecule they are over resamples of blocks of frames, longer than the "
    "correlation time, and hold for other frames of the same trajectory. With two to nine molecules there is no interval."
)
_RELATIVE = (
    "Energies are relative to the mean over the molecule's test conformers, since the energy of a force field has no absolute zero; a "
    "molecule with one test conformer has no relative energy and is left out. Total energies are of networks alone."
)
_PROTOCOL_NOTE = (
    "Published networks were trained on one molecule each, to convergence, and tested on frames of the same trajectory. Ours are trained "
    "on all data of the run together, at the size that `params.yaml` sets, and tested on the frames of its split. Only a run on one "
    "molecule with its published split (`by: rmd17`, 950 + 50 frames) and as long a training follows the same protocol."
)


def section(
    predictions: Predictions,
    found: Summaries,
    frames: Mapping[tuple[str, str], FrameCounts] | None = None,
) -> PageSection:
    """Return the section.

    Args:
        predictions: on the test set.
        found: its errors, from `errors.summaries`.
        frames: of molecules of MD17 and rMD17, from `count_frames`.
    """
    blocks: list[Block] = [force_table(found), energy_table(found)]
    if not predictions.is_complete:
        blocks.insert(0, _incomplete(predictions))
        common = predictions.common()
        if common.rows:
            blocks.append(force_table(summaries(common), common=True))
    published = published_table(predictions, frames or {})
    return PageSection("test-errors", "Errors on the test set", blocks if published is None else [*blocks, published])


def force_table(found: Summaries, *, common: bool = False) -> Table:
    """Return errors of forces, by source and potential.

    Args:
        found: from `errors.summaries`.
        common: whether they are of molecules for which every potential has predictions; the title then says so.
    """
    names = _names("force", FORCE_UNIT)
    return Table(
        name="test-force-errors-common" if common else "test-force-errors",
        title="Force errors, molecules that every potential can predict" if common else "Force errors, by component",
        columns=[*_LEADING, TableColumn("conformers", "conformers"), *_with_intervals(names, _FORCE)],
        rows=_rows(found, ("molecules", "conformers", "force_components"), names),
        note=_DEFINITIONS,
        group="group",
    )


def energy_table(found: Summaries) -> Table:
    """Return errors of energies, by source and potential."""
    names = _names("energy", ENERGY_UNIT)
    total = {f"total_energy_mae_{ENERGY_UNIT}": "MAE of total energies"}
    hidden = [f"total_energy_{kind}_{unit}" for kind in ("mae", "rmse") for unit in (ENERGY_UNIT, f"{ENERGY_UNIT}_per_atom")]
    return Table(
        name="test-energy-errors",
        title="Errors of relative energies",
        columns=[*_LEADING, TableColumn("energies", "conformers"), *_with_intervals(names | total, _ENERGY)],
        rows=_rows(found, ("molecules", "energies"), dict.fromkeys([*names, *total, *hidden])),
        note=_RELATIVE,
        group="group",
    )


_LEADING = (TableColumn("potential_label", "potential"), TableColumn("molecules", "molecules"))


def _names(quantity: str, unit: str) -> dict[str, str]:
    kinds = {"mae": "MAE", "rmse": "RMSE", "mean_molecule_rmse": "mean molecule RMSE"}
    return {f"{quantity}_{kind}_{unit}": label for kind, label in kinds.items()}


def _with_intervals(names: Mapping[str, str], unit: str) -> list[TableColumn]:
    return [TableColumn(key, label, unit, interval=f"{key}_interval_95", best="lowest") for key, label in names.items()]


def _rows(found: Summaries, counts: Sequence[str], names: Iterable[str]) -> list[dict[str, Cell]]:
    sources = sorted({source for of_sources in found.values() for source in of_sources}, key=lambda name: (name != ALL, name))
    if len(sources) == 2:  # all sources together are the one there is
        sources.remove(ALL)
    rows: list[dict[str, Cell]] = []
    for source in sources:
        for potential, of_sources in found.items():
            if (values := of_sources.get(source)) is None:
                continue
            group = "all sources" if source == ALL else source
            row: dict[str, Cell] = {"group": group, "source": source, "potential": potential}
            row |= {
                "potential_label": label_of(potential),
                **{name: values.get(name) for name in counts},
                "resampled": resampled(values),
            }
            for name in names:
                low, high = interval_of(values, name) or (None, None)
                row |= {name: values.get(name), f"{name}_interval_95_low": low, f"{name}_interval_95_high": high}
            rows.append(row)
    return rows


def _incomplete(predictions: Predictions) -> Text:
    lacking = {label_of(name): sum(one is None for one in of_rows) for name, of_rows in predictions.predicted.items()}
    words = ", ".join(f"{name} for {n}" for name, n in lacking.items() if n)
    return Text(
        f"Not every potential can predict every molecule of the test set: of {len(predictions.rows)} rows there is nothing from {words}. "
        "Their errors are over fewer molecules than those of the others; a table below has the molecules that all can predict.",
        "warning",
    )


@dataclass(frozen=True)
class PublishedError:
    """Errors of one network for one molecule.

    Attributes:
        source: `md17` or `rmd17`.
        molecule: by its name in the parameters.
        method: name of the network.
        energy_mae: [kcal/mol], of total energies.
        force_mae: [kcal/mol/Å], by component.
        reference: publication.
    """

    source: str
    molecule: str
    method: str
    energy_mae: float
    force_mae: float
    reference: str


_PAINN = "Schütt, Unke, Gastegger, ICML 2021 (arXiv:2102.03150)"
_ET = "Thölke, De Fabritiis, ICLR 2022 (arXiv:2202.02541)"
_MACE = "Batatia et al., NeurIPS 2022 (arXiv:2206.07697)"
_ALLEGRO = "Musaelian et al., Nat. Commun. 14, 579, 2023"
_NEQUIP = "Batzner et al., Nat. Commun. 13, 2453, 2022"

_MD17 = {
    ("PaiNN", _PAINN): {
        "aspirin": (0.167, 0.338),
        "ethanol": (0.064, 0.224),
        "malonaldehyde": (0.091, 0.319),
        "naphthalene": (0.116, 0.077),
        "salicylic": (0.116, 0.195),
        "toluene": (0.095, 0.094),
        "uracil": (0.106, 0.139),
    },
    ("Equivariant Transformer", _ET): {"aspirin": (0.123, 0.253), "ethanol": (0.052, 0.109)},
}
"""Energy [kcal/mol] and forces [kcal/mol/Å]."""

_RMD17 = {
    ("MACE", _MACE): {"aspirin": (2.2, 6.6), "ethanol": (0.4, 2.1)},
    ("Allegro", _ALLEGRO): {"aspirin": (2.3, 7.3), "ethanol": (0.4, 2.1)},
    ("NequIP", _NEQUIP): {"aspirin": (2.3, 8.2), "ethanol": (0.4, 2.8)},
    ("PaiNN", f"{_PAINN}; rMD17 as quoted by {_MACE}"): {"aspirin": (6.9, 16.1), "ethanol": (2.7, 10.0)},
}
"""Energy [meV] and forces [meV/Å]."""

PUBLISHED = tuple(
    PublishedError(source, molecule, method, energy * unit, force * unit, reference)
    for source, unit, table in (("md17", 1.0, _MD17), ("rmd17", 1e-3 * EV, _RMD17))
    for (method, reference), of_molecules in table.items()
    for molecule, (energy, force) in of_molecules.items()
)
PROTOCOLS = {"md17": "1,000 frames, drawn at random", "rmd17": "950 frames + 50 for validation"}
"""Training frames of the published networks, of one molecule each."""


@dataclass(frozen=True)
class FrameCounts:
    """Number of frames of a molecule of MD17 or rMD17 in each split."""

    train: int = 0
    validation: int = 0
    test: int = 0


def molecule_of(source: str, record: str) -> str | None:
    """Return the molecule of MD17 or rMD17 that a row is of; None for rows of other sources.

    Args:
        source: of the record.
        record: its id, such as `ethanol/00003`.
    """
    return record.split("/", maxsplit=1)[0] if source in PROTOCOLS else None


def count_frames(datasets: Mapping[str, ConformerDataset], splits: Splits) -> dict[tuple[str, str], FrameCounts]:
    """Count the frames of each molecule of MD17 and rMD17, by source and molecule.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    found: dict[tuple[str, str], FrameCounts] = {}
    for name, dataset in datasets.items():
        ids, sources = (dataset.table.column(column).to_pylist() for column in ("id", "source"))
        for record, source in zip(ids, sources, strict=True):
            if (molecule := molecule_of(source, record)) is not None:
                before = found.get((source, molecule), FrameCounts())
                new = {split: n + len(splits.conformers(name, record, split)) for split, n in vars(before).items()}
                found[source, molecule] = FrameCounts(**new)
    return found


def published_table(predictions: Predictions, frames: Mapping[tuple[str, str], FrameCounts]) -> Table | None:
    """Return published errors of molecules of MD17 and rMD17 with ours beside them; None where none is in the test set.

    Args:
        predictions: on the test set.
        frames: of these molecules in the splits, from `count_frames`.
    """
    of_rows = [(row.source, molecule_of(row.source, row.id)) for row in predictions.rows]
    rows: list[dict[str, Cell]] = []
    for source, molecule in sorted({(source, molecule) for source, molecule in of_rows if molecule is not None}):
        kept = predictions.only([each == (source, molecule) for each in of_rows])
        count = frames.get((source, molecule), FrameCounts())
        trained = f"{count.train:,} frames + {count.validation:,} for validation"
        about: dict[str, Cell] = {"source": source, "molecule": molecule}
        for potential, of_sources in summaries(kept).items():
            errors = of_sources.get(ALL, {})
            is_total = gives_total_energies(potential)
            energy = errors.get(f"{'total_energy' if is_total else 'energy'}_mae_{ENERGY_UNIT}")
            method = f"this run: {label_of(potential)}" + ("" if is_total else " (energies relative)")
            ours = _both_units(energy, errors.get(f"force_mae_{FORCE_UNIT}"))
            rows.append(about | {"method": method, "trained_on": trained, **ours, "reference": None})
        rows += [
            about
            | {"method": one.method, "trained_on": PROTOCOLS[source]}
            | _both_units(one.energy_mae, one.force_mae)
            | {"reference": one.reference}
            for one in PUBLISHED
            if (one.source, one.molecule) == (source, molecule)
        ]
    columns = [
        TableColumn("source", "data"),
        TableColumn("molecule", "molecule"),
        TableColumn("method", "potential"),
        TableColumn("trained_on", "training frames of this molecule"),
        TableColumn(f"energy_mae_{ENERGY_UNIT}", "energy MAE", _ENERGY),
        TableColumn("energy_mae_mev", "energy MAE", "meV"),
        TableColumn(f"force_mae_{FORCE_UNIT}", "force MAE", _FORCE),
        TableColumn("force_mae_mev_per_angstrom", "force MAE", "meV/Å"),
        TableColumn("reference", "publication"),
    ]
    return (
        Table("published", "Published errors for MD17 and rMD17, and ours", columns, rows, note=_PROTOCOL_NOTE)
        if rows
        else None
    )


def _both_units(energy: float | None, force: float | None) -> dict[str, Cell]:
    """Return cells of mean absolute errors in both unit systems [kcal/mol] and [kcal/mol/Å]."""
    return {
        f"energy_mae_{ENERGY_UNIT}": energy,
        "energy_mae_mev": None if energy is None else energy / EV * 1e3,
        f"force_mae_{FORCE_UNIT}": force,
        "force_mae_mev_per_angstrom": None if force is None else force / EV * 1e3,
    }
