"""Stage 04: every data set with one representative of each cluster of similar conformers, and a histogram of the clusters' sizes."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pesfit.cluster.representatives import Representatives, cluster_rows
from pesfit.core.arrays import LongArray
from pesfit.core.exceptions import Failure, check_failed_fraction
from pesfit.core.files import FAILURES_FILE
from pesfit.core.parallel import ordered_map
from pesfit.core.plotting import PALETTE, new_figure, save_png
from pesfit.data.dataset import ConformerDataset, DatasetWriter, write_failures
from pesfit.data.sources import check_source_names, covers
from pesfit.params.preparation import Cluster

_COLUMNS = 3
_FEWEST_BINS = 4
"""Room for this many bars, so that one alone is not a wall."""
_DATASET_FILES = ("state.json", "dataset_info.json")
_PAIRS_A_TASK = 5_000_000
"""Pairs of conformers handed to a worker at once, a fraction of a second's work; with fewer than this in all, none is started."""


@dataclass(frozen=True)
class _Rows:
    """Numbers of the rows that are kept, and of those among them that are clustered; both ascending."""

    kept: tuple[int, ...]
    clustered: tuple[int, ...]


@dataclass
class _ClusterCounts:
    """Counts of one source."""

    n_molecules: int = 0
    n_before: int = 0
    n_after: int = 0
    n_unparameterized: int = 0
    n_failed: int = 0
    n_capped: int = 0
    sizes: list[int] = field(default_factory=list)

    def metrics(self, *, clustered: bool) -> dict[str, Any]:
        values: dict[str, Any] = {
            "molecules": self.n_molecules,
            "molecules_left_out_unparameterized": self.n_unparameterized,
            "conformers_before": self.n_before,
            "conformers_after": self.n_after,
        }
        if clustered:
            values |= {
                "molecules_failed": self.n_failed,
                "molecules_with_capped_symmetry": self.n_capped,
                "clusters": len(self.sizes),
                "clusters_of_one_conformer": self.sizes.count(1),
                "mean_cluster_conformers": float(np.mean(self.sizes)) if self.sizes else 0.0,
                "largest_cluster_conformers": max(self.sizes, default=0),
            }
        return values


def cluster_datasets(
    datasets: Mapping[str, ConformerDataset],
    params: Cluster,
    output: Path,
    *,
    excluded: Collection[str],
    plot: Path,
) -> dict[str, Any]:
    """Write every data set without the molecules that failed earlier, clustered where the parameters ask for it.

    A record is clustered by itself: rows that a long trajectory was cut into are clustered one by one. Representatives keep the
    order of the record; `frame` has their indices in the source's own order. Files a source keeps beside its rows (such as
    rMD17's `splits.json`) go along.

    Args:
        datasets: by name, as `open_datasets` gives them.
        params: section `cluster`.
        output: folder for one data set folder each, and `failures.csv`, whose ids are `<data set>/<record id>`.
        excluded: `<data set>/<record id>` of the records to leave out: the ids in the failures of stage 03.
        plot: PNG to write, with the sizes of the clusters.

    Returns:
        metrics: for each source, molecules and conformers before and after, clusters and their sizes.

    Raises:
        ParamsError: where `cluster.sources` or `cluster.representative` names something that is no source.
        TooManyFailuresError: where more molecules fail than allowed.
    """
    present = sorted({source for dataset in datasets.values() for source in dataset.level_of_theory})
    check_source_names("cluster.sources", params.sources, present)
    check_source_names("cluster.representative", params.representative, present)
    tallies: dict[str, _ClusterCounts] = {}
    failures: list[Failure] = []
    n_tried = 0
    for name, dataset in datasets.items():
        left_out = frozenset(id_.removeprefix(f"{name}/") for id_ in excluded if id_.startswith(f"{name}/"))
        rows = _choose_rows(dataset, params, left_out, tallies)
        n_tried += len(rows.clustered)
        failed = _write(dataset, output / name, rows, _cluster(name, dataset, params, rows.clustered), tallies)
        failures += [replace(failure, id=f"{name}/{failure.id}") for failure in failed]
    check_failed_fraction(failures, n_tried, params.max_failed_fraction)
    write_failures(output / FAILURES_FILE, failures)
    clustered = {source: tally for source, tally in sorted(tallies.items()) if _is_clustered(source, params)}
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot_cluster_sizes(plot, {source: tally.sizes for source, tally in clustered.items()}, params.cutoff_angstrom)
    return {
        "sources": {source: tally.metrics(clustered=source in clustered) for source, tally in sorted(tallies.items())},
        "conformers_before": sum(tally.n_before for tally in tallies.values()),
        "conformers_after": sum(tally.n_after for tally in tallies.values()),
        "molecules_failed": len(failures),
    }


def _is_clustered(source: str, params: Cluster) -> bool:
    return any(covers(name, source) for name in params.sources)


def _choose_rows(
    dataset: ConformerDataset, params: Cluster, excluded: frozenset[str], tallies: dict[str, _ClusterCounts]
) -> _Rows:
    """Look at the small columns alone."""
    ids, sources = (dataset.table.column(column).to_pylist() for column in ("id", "source"))
    kept, clustered = [], []
    for row, (id_, source) in enumerate(zip(ids, sources, strict=True)):
        tally = tallies.setdefault(source, _ClusterCounts())
        if id_ in excluded:
            tally.n_unparameterized += 1
            continue
        kept.append(row)
        if _is_clustered(source, params):
            clustered.append(row)
    return _Rows(tuple(kept), tuple(clustered))


def _cluster(
    name: str, dataset: ConformerDataset, params: Cluster, rows: tuple[int, ...]
) -> Iterator[Representatives | Failure]:
    """Cluster rows, many of them in worker processes, few in this one; only their numbers travel."""
    if rows:
        tasks = _tasks(dataset, rows)
        function = functools.partial(cluster_rows, dataset.path, params)
        for results in ordered_map(function, tasks, label=f"cluster {name}", n_items=len(tasks), unit="batch"):
            yield from results


def _tasks(dataset: ConformerDataset, rows: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Cut rows into runs that are worth a worker's while."""
    n_conformers = pc.list_value_length(dataset.table.column("energy")).to_pylist()
    tasks, run, n_pairs = [], [], 0
    for row in rows:
        run.append(row)
        n_pairs += n_conformers[row] ** 2 // 2
        if n_pairs >= _PAIRS_A_TASK:
            tasks.append(tuple(run))
            run, n_pairs = [], 0
    return [*tasks, tuple(run)] if run else tasks


def _write(
    dataset: ConformerDataset,
    path: Path,
    rows: _Rows,
    results: Iterator[Representatives | Failure],
    tallies: dict[str, _ClusterCounts],
) -> list[Failure]:
    """Write the rows that are kept, one in memory at a time, and return the failures."""
    failures = []
    clustered = frozenset(rows.clustered)
    with DatasetWriter(path, dataset.level_of_theory) as writer:
        for row in rows.kept:
            record = dataset[row]
            tally = tallies[record.source]
            tally.n_molecules += 1
            tally.n_before += record.n_conformers
            if row in clustered:
                result = next(results)
                if isinstance(result, Failure):
                    failures.append(result)
                    tally.n_failed += 1
                    continue
                tally.sizes += result.sizes.tolist()
                tally.n_capped += not result.all_orders
                record = record.select(result.conformers)
            tally.n_after += record.n_conformers
            writer.write(record)
        # Drawn to its end, so that the progress bar and the workers are closed here.
        next(results, None)
    for beside in sorted(dataset.path.glob("*.json")):
        if beside.name not in _DATASET_FILES:
            shutil.copyfile(beside, path / beside.name)
    return failures


def plot_cluster_sizes(path: Path, sizes: Mapping[str, Sequence[int]], cutoff_angstrom: float) -> None:
    """Draw, for each source, how many clusters there are of each size.

    The file's bytes depend on the arguments alone.

    Args:
        path: PNG to write.
        sizes: for each clustered source, the number of conformers in each of its clusters.
        cutoff_angstrom: [Å], for the title.
    """
    shown = {source: np.asarray(values, dtype=np.int64) for source, values in sizes.items() if len(values)}
    n_columns = max(1, min(_COLUMNS, len(shown)))
    n_rows = max(1, -(-len(shown) // n_columns))
    title = f"Clusters of like conformers (RMSD at most {cutoff_angstrom:g} Å from the centroid)"
    figure = new_figure(max(6.4, 4.2 * n_columns), 1.0 + 3.2 * n_rows, title)
    if not shown:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No source was clustered: see `cluster.sources` in params.yaml", ha="center", va="center")
    edges = _bin_edges(max((int(values.max()) for values in shown.values()), default=1))
    for i, (source, values) in enumerate(shown.items()):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        _histogram(axes, values, edges, PALETTE[i % len(PALETTE)])
        axes.set_title(f"{source}\n{values.sum():,} conformers → {len(values):,} clusters", fontsize=10)
        if i % n_columns == 0:
            axes.set_ylabel("clusters")
        if i + n_columns >= len(shown):
            axes.set_xlabel("conformers in the cluster")
    save_png(figure, path)


def _bin_edges(largest: int) -> npt.NDArray[np.float64]:
    """Return edges that double: 1, 2-3, 4-7, ... conformers."""
    n_bins = int(largest).bit_length()
    return np.exp2(np.arange(n_bins + 1))


def _histogram(axes: Axes, values: LongArray, edges: npt.NDArray[np.float64], color: str) -> None:
    counts, _ = np.histogram(values, edges)
    positions = np.arange(len(counts))
    bars = axes.bar(positions, counts, width=0.92, color=color)
    axes.bar_label(bars, labels=[_short(int(count)) for count in counts], fontsize=8 if len(counts) <= 9 else 7, padding=2)
    axes.set_xlim(-0.6, max(len(counts), _FEWEST_BINS) - 0.4)
    axes.set_xticks(positions, [_bin_name(int(edges[i]), int(edges[i + 1]) - 1) for i in positions])
    axes.tick_params(axis="x", rotation=0 if len(counts) <= 6 else 45, labelsize=8)
    if counts.max() >= 100:
        axes.set_yscale("log")
        axes.set_ylim(0.7, counts.max() * 3.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0.0, counts.max() * 1.15)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _short(count: int) -> str:
    """Write a count as 312, 7.5k or 12M, and nothing for none, so that labels of neighboring bars do not touch."""
    for factor, suffix in ((1_000_000, "M"), (1000, "k")):
        if count >= factor:
            return f"{count / factor:.{1 if count < 9.95 * factor else 0}f}{suffix}"
    return str(count) if count else ""


def _bin_name(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
