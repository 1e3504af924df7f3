"""The benchmark of minima, frequencies and torsion profiles: the first table of the page, and a section with all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pesfit.benchmark import summary as keys
from pesfit.benchmark.build import FREQUENCIES_FILE, MINIMA_FILE, SCANS_FILE
from pesfit.report.page.blocks import Block, Cell, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import in_order, label_of
from pesfit.report.page.tables import number
from pesfit.report.reading import read_json, read_rows
from pesfit.statistics.errors import interval_of

Row = Mapping[str, str]
Best = Literal["lowest", "highest", "smallest"]

START, FIT, REFERENCE = keys.START, "smirnoff", "gfn2"
SUBSETS = {keys.HELD_OUT: "held-out molecules", keys.TRAINED: "training molecules"}
_DEFINITIONS = (
    "Each potential relaxes minima of the method of the labels; where it ends is compared with where it started. Bonds, "
    "angles, dihedrals: root mean square difference, each molecule alike. RMSD: of heavy atoms; TFD: torsion fingerprint deviation; ddE: "
    "energies relative to the molecule's lowest minimum. Frequencies: harmonic, at the minima of each. Torsion profiles: relaxed scans. "
    "A basin is lost where a dihedral turns by more than 60° or an angle by more than 25°; such minima are in all other measures."
)
_MIN_RATIO = 1.005
"""From which on a measure counts as worse than with the start."""


@dataclass(frozen=True)
class ShownMeasure:
    """A measure as the page names it.

    Attributes:
        key: of the summary.
        label: in words.
        unit: empty where there is none.
        best: which value is best; the smallest in magnitude, for a bias.
        is_error: whether its ratio to that of the start means something.
        of: key of the number that a count is out of.
    """

    key: str
    label: str
    unit: str = ""
    best: Best = "lowest"
    is_error: bool = True
    of: str | None = None


MEASURES = (
    ShownMeasure(keys.NOT_CONVERGED, "minimizations that do not end", is_error=False, of=keys.MINIMA),
    ShownMeasure(keys.BROKEN, "minima whose bonds break", is_error=False, of=keys.MINIMA),
    ShownMeasure(keys.LOST, "minima whose basin is lost", is_error=False, of=keys.MINIMA),
    ShownMeasure(keys.BOND, "bonds", "Å"),
    ShownMeasure(keys.ANGLE, "angles", "°"),
    ShownMeasure(keys.DIHEDRAL, "dihedrals", "°"),
    ShownMeasure(keys.RMSD, "mean RMSD", "Å"),
    ShownMeasure(keys.RMSD_MEDIAN, "median RMSD", "Å"),
    ShownMeasure(keys.TFD, "mean TFD"),
    ShownMeasure(keys.DDE_RMSE, "RMSE of ddE", "kcal/mol"),
    ShownMeasure(keys.FREQUENCY_MAE, "MAE of frequencies", "cm⁻¹"),
    ShownMeasure(keys.FREQUENCY_BIAS, "bias of frequencies", "cm⁻¹", best="smallest", is_error=False),
    ShownMeasure(keys.PROFILE, "mean RMSE of torsion profiles", "kcal/mol"),
    ShownMeasure(keys.PROFILE_MEDIAN, "median RMSE of torsion profiles", "kcal/mol"),
    ShownMeasure(keys.BARRIER, "MAE of barrier heights", "kcal/mol"),
    ShownMeasure(
        keys.BETTER, "scans better than with the initial force field", best="highest", is_error=False, of=keys.COMPARED
    ),
)
ERRORS = tuple(measure for measure in MEASURES if measure.is_error)


@dataclass(frozen=True, eq=False)
class BenchmarkResults:
    """Output of the stage `benchmark`.

    Attributes:
        summary: `{potential: {subset: {measure: value}}}`, potentials in the order of the page.
        minima, frequencies, scans: rows of its tables.
    """

    summary: Mapping[str, Mapping[str, Mapping[str, Any]]]
    minima: Sequence[Row]
    frequencies: Sequence[Row]
    scans: Sequence[Row]

    @classmethod
    def read(cls, folder: Path, metrics: Path) -> Self:
        """Read the output of the stage.

        Args:
            folder: `outputs/benchmark`.
            metrics: `outputs/metrics/benchmark.json`.

        Raises:
            DataError: if a file is missing.
        """
        found = read_json(metrics)["summary"]
        tables = [
            read_rows(folder / name, ("potential", "molecule", "subset"))
            for name in (MINIMA_FILE, FREQUENCIES_FILE, SCANS_FILE)
        ]
        return cls({name: found[name] for name in in_order(found)}, *tables)

    @property
    def potentials(self) -> list[str]:
        """Those that are judged: all but the reference."""
        return [name for name in self.summary if name != REFERENCE]

    @property
    def subsets(self) -> list[str]:
        """Subsets with molecules, those held out first."""
        return [subset for subset in SUBSETS if any(subset in self.summary[name] for name in self.potentials)]

    def value(self, potential: str, subset: str, key: str) -> float | int | None:
        """Return a measure; None where there is none, also of minima that are lost where no minimization ends."""
        values = self.summary.get(potential, {}).get(subset, {})
        if key in (keys.BROKEN, keys.LOST) and values.get(keys.NOT_CONVERGED) == values.get(keys.MINIMA):
            return None
        found: float | int | None = values.get(key)
        return found

    def ratio(self, potential: str, subset: str, key: str) -> float | None:
        """Return a measure divided by that of the initial force field; None where one of them is missing or 0."""
        mine, start = self.value(potential, subset, key), self.value(START, subset, key)
        return mine / start if mine and start else None

    def named(self, subset: str) -> str:
        """Return the name of a subset with its number of molecules."""
        n_molecules = max(int(self.value(name, subset, "molecules") or 0) for name in self.potentials)
        return f"{n_molecules} {SUBSETS[subset]}"


def sentences(results: BenchmarkResults) -> Iterator[str]:
    """Yield what the fitted force field does worse than the initial one, and where it fails, for the first screen."""
    for subset in results.subsets:
        ratios = {m.label: ratio for m in ERRORS if (ratio := results.ratio(FIT, subset, m.key)) is not None}
        if not ratios:
            continue
        worse = sorted((label for label, ratio in ratios.items() if ratio > _MIN_RATIO), key=lambda label: -ratios[label])
        words = ", ".join(f"{label} (× {number(ratios[label], 3)})" for label in worse)
        share = f"{len(ratios) - len(worse)} of {len(ratios)} errors"
        told = f"worse in {words}; it lowers or keeps {share}" if worse else f"worse in none of {len(ratios)} errors"
        lost = ", ".join(
            f"{label_of(name)} {n_lost}"
            for name in results.potentials
            if (n_lost := results.value(name, subset, keys.LOST)) is not None
        )
        stuck = [label_of(name) for name in results.potentials if _all_fail(results, name, subset)]
        fail = f" No minimization ends with {', '.join(stuck)}." if stuck else ""
        yield f"On {results.named(subset)} the fitted force field is, compared with the initial one, {told}. Basins lost: {lost}.{fail}"


def _all_fail(results: BenchmarkResults, potential: str, subset: str) -> bool:
    failed, minima = (results.value(potential, subset, key) for key in (keys.NOT_CONVERGED, keys.MINIMA))
    return bool(minima) and failed == minima


def headline_table(results: BenchmarkResults, errors: Mapping[str, Mapping[str, float]] | None = None) -> Table:
    """Return the first table of the page: measures down, potentials across.

    Args:
        results: of the benchmark.
        errors: of the labeled test conformers, `{measure in words: {potential: value}}`, to go below.
    """
    rows: list[dict[str, Cell]] = []
    for subset in results.subsets:
        for measure in MEASURES:
            values = {name: results.value(name, subset, measure.key) for name in results.potentials}
            if all(value is None for value in values.values()):
                continue
            of = None if measure.of is None else max(int(results.value(name, subset, measure.of) or 0) for name in values)
            label = measure.label if of is None else f"{measure.label}, of {of}"
            label += f", {measure.unit}" if measure.unit else ""
            rows.append({"group": results.named(subset), "measure": label, "best": measure.best, **values})
    for label, by_potential in (errors or {}).items():
        of_potentials = {name: by_potential.get(name) for name in results.potentials}
        rows.append({"group": "labeled test conformers", "measure": label, "best": "lowest", **of_potentials})
    columns = [TableColumn("measure", "measure")]
    columns += [TableColumn(name, label_of(name), best="lowest") for name in results.potentials]
    return Table(
        "benchmark",
        "Minima, frequencies and torsion profiles against the labels",
        columns,
        rows,
        _DEFINITIONS,
        group="group",
        across=True,
    )


def tables(results: BenchmarkResults) -> list[Table]:
    """Return the tables of the section: all measures with their intervals."""
    shown = {measure.key: measure for measure in MEASURES}
    geometry = [shown[key] for key in (keys.BOND, keys.ANGLE, keys.DIHEDRAL, keys.RMSD, keys.RMSD_MEDIAN, keys.TFD)]
    energies = [
        *(shown[key] for key in (keys.DDE_RMSE,)),
        ShownMeasure(keys.DDE_MAE, "MAE of ddE", "kcal/mol"),
        *(shown[key] for key in (keys.PROFILE, keys.PROFILE_MEDIAN, keys.BARRIER)),
    ]
    of_ranges = [ShownMeasure(keys.in_range(keys.FREQUENCY_MAE, *ends), range_name(*ends), "cm⁻¹") for ends in keys.RANGES]
    bias = [ShownMeasure(keys.FREQUENCY_BIAS, "bias", "cm⁻¹", best="smallest")]
    note = "Intervals of 95 % are over resamples of molecules where there are at least ten; medians have none."
    return [
        _table(
            results,
            Table("benchmark-geometry", "Minima: failures and geometry", (), (), note),
            (keys.MINIMA, keys.NOT_CONVERGED, keys.BROKEN, keys.LOST),
            geometry,
        ),
        _table(
            results,
            Table(
                "benchmark-energies",
                "Energies of minima and torsion profiles",
                (),
                (),
                f"{note} Networks relax fewer points of each scan (`benchmark.network_scan_step`).",
            ),
            (keys.PAIRS, keys.SCANS, keys.SCAN_POINTS, keys.POINTS_FAILED),
            energies,
        ),
        _table(
            results,
            Table(
                "benchmark-frequency-ranges",
                "Harmonic frequencies: mean absolute errors overall and by range, and bias",
                (),
                (),
                f"{note} Modes are paired in ascending order; those below 20 cm⁻¹ are left out.",
            ),
            (),
            [shown[keys.FREQUENCY_MAE], *bias, *of_ranges],
        ),
    ]


def range_name(low: int | None, high: int | None) -> str:
    """Return a range of wavenumbers in words."""
    return f"below {high}" if low is None else f"above {low}" if high is None else f"{low}–{high}"


_COUNT_LABELS = {
    keys.MINIMA: "minima",
    keys.NOT_CONVERGED: "do not end",
    keys.BROKEN: "bonds break",
    keys.LOST: "basin lost",
    keys.PAIRS: "pairs of minima",
    keys.SCANS: "scans",
    keys.SCAN_POINTS: "points",
    keys.POINTS_FAILED: "points that fail",
}


def _table(results: BenchmarkResults, table: Table, counts: Sequence[str], measures: Sequence[ShownMeasure]) -> Table:
    """Return a table, of which name, title and note are given, with rows for potentials and columns for measures."""
    rows: list[dict[str, Cell]] = []
    for subset in results.subsets:
        for potential, of_subsets in results.summary.items():
            values = of_subsets.get(subset)
            if values is None or not any(measure.key in values for measure in measures):
                continue
            row: dict[str, Cell] = {
                "group": results.named(subset),
                "potential": potential,
                "potential_label": label_of(potential),
            }
            row |= {key: results.value(potential, subset, key) for key in counts}
            for measure in measures:
                low, high = interval_of(values, measure.key) or (None, None)
                row |= {
                    measure.key: values.get(measure.key),
                    f"{measure.key}_interval_95_low": low,
                    f"{measure.key}_interval_95_high": high,
                }
            rows.append(row)
    columns = [TableColumn("potential_label", "potential"), *(TableColumn(key, _COUNT_LABELS[key]) for key in counts)]
    for measure in measures:
        has_interval = any(row[f"{measure.key}_interval_95_low"] is not None for row in rows)
        interval = f"{measure.key}_interval_95" if has_interval else None
        columns.append(TableColumn(measure.key, measure.label, measure.unit, interval=interval))
    return replace(table, columns=columns, rows=rows, group="group")


def lost_table(results: BenchmarkResults) -> Table:
    """Return the minima that a potential does not keep."""
    rows: list[dict[str, Cell]] = []
    for row in results.minima:
        if row["potential"] == REFERENCE or row["kept"] == "1":
            continue
        why = "did not end" if row["converged"] != "1" else "bonds broken" if row["intact"] != "1" else "another basin"
        rows.append(
            {
                "potential": label_of(row["potential"]),
                "molecule": row["molecule"],
                "subset": SUBSETS[row["subset"]],
                "minimum": int(row["minimum"]) + 1,
                "what": why,
                "rmsd_angstrom": cell(row["rmsd_angstrom"]),
                "tfd": cell(row["tfd"]),
            }
        )
    columns = [
        TableColumn("potential", "potential"),
        TableColumn("molecule", "molecule"),
        TableColumn("subset", "which"),
        TableColumn("minimum", "minimum"),
        TableColumn("what", "what happened"),
        TableColumn("rmsd_angstrom", "RMSD", "Å"),
        TableColumn("tfd", "TFD"),
    ]
    return Table(
        "benchmark-lost", "Minima that are not kept", columns, rows, "Minima are numbered from the lowest.", folded=True
    )


def cell(text: str) -> float | None:
    """Return a number of a table; None where it is empty."""
    return float(text) if text and math.isfinite(float(text)) else None


def section(results: BenchmarkResults, figures: Sequence[Block]) -> PageSection:
    """Return the section; figures from `benchmark_figures`."""
    first = Text(
        "After V. T. Lim et al., F1000Research 9, 1390 (2020), and L. D'Amore et al., J. Chem. Inf. Model. 62, 6094 (2022); "
        "`docs/benchmark.md` has the definitions."
    )
    if not results.subsets:
        return PageSection("benchmark", "Minima, frequencies, torsions", [Text("No molecule has minima to compare with.")])
    geometry, energies, frequencies = tables(results)
    return PageSection(
        "benchmark", "Minima, frequencies, torsions", [first, geometry, energies, frequencies, *figures, lost_table(results)]
    )
