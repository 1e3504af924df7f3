"""Stage 05: a split for every conformer of every data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import ParamsError
from pesfit.data.dataset import ConformerDataset
from pesfit.data.sources import check_source_names, covers
from pesfit.data.splits import SPLITS, TEST, TRAIN, UNUSED, SplitRow, write_splits
from pesfit.params.preparation import Split, SplitRule
from pesfit.split.rows import RowAssignment, read_rows
from pesfit.split.rules import split_as_espaloma, split_as_rmd17, split_by_block, split_by_frame, split_by_molecule
from pesfit.split.twins import connectivity_keys, twin_groups

SPLITS_FILE = "splits.arrow"


def split_datasets(datasets: Mapping[str, ConformerDataset], params: Split, output: Path) -> dict[str, Any]:
    """Divide the conformers of all data sets and write `splits.arrow`.

    Rules that divide the conformers of a molecule, and published splits, come first: they leave no choice. Rules by molecule come
    then, in their order, and put a molecule (with its twins) that is in use already where it is closest to training. So a test molecule
    of a source that is split by molecule is in no training or validation set of any source; where published rules themselves test on
    what others train on, the metrics count them.

    Args:
        datasets: by name, as `open_datasets` gives them.
        params: section `split`.
        output: folder for `splits.arrow`; `splits.Splits.open` reads it.

    Returns:
        metrics: for each source, molecules and conformers of each split, and how many test molecules are in training somewhere.

    Raises:
        ParamsError: where a source has no rule, a rule names no source, or asks for more than there is.
        DataError: where published splits are missing or malformed.
    """
    rows = read_rows(datasets)
    sources: dict[str, list[RowAssignment]] = {}
    for row in rows:
        sources.setdefault(row.source, []).append(row)
    check_source_names("split.rules", (rule.source for rule in params.rules), sources)
    rules = {source: _rule_of(source, params.rules) for source in sorted(sources)}
    keys = connectivity_keys(sorted({row.smiles for row in rows if row.smiles})) if params.group_by == "connectivity" else {}
    twins = twin_groups((row.group, keys.get(row.smiles or "")) for row in rows)
    for rule in params.rules:
        _apply_fixed(rule, {source: sources[source] for source in rules if rules[source] is rule}, datasets, params.seed)
    taken: dict[str, int] = {}
    for row in rows:
        if row.n_conformers and (closest := int(row.split.min())) != UNUSED:
            taken[twins[row.group]] = min(closest, taken.get(twins[row.group], UNUSED))
    for rule in params.rules:
        for source in (source for source in rules if rule.by == "molecule" and rules[source] is rule):
            split_by_molecule(sources[source], rule, params.seed, twins, taken)
    write_splits(output / SPLITS_FILE, (SplitRow(row.dataset, row.id, twins[row.group], row.split) for row in rows))
    return _metrics({source: sources[source] for source in rules}, rules, twins)


def _rule_of(source: str, rules: Sequence[SplitRule]) -> SplitRule:
    for rule in rules:
        if covers(rule.source, source):
            return rule
    raise ParamsError(
        f"split.rules: no rule for source {source!r}; there are rules for {', '.join(rule.source for rule in rules)}: add one such as "
        f"{{source: {source}, by: molecule}}"
    )


def _apply_fixed(
    rule: SplitRule, sources: Mapping[str, Sequence[RowAssignment]], datasets: Mapping[str, ConformerDataset], seed: int
) -> None:
    """Apply a rule that does not depend on where other rules put a molecule."""
    if rule.by == "espaloma":
        split_as_espaloma([row for rows in sources.values() for row in rows])
    for rows in sources.values():
        if rule.by == "frame":
            split_by_frame(rows, rule, seed)
        elif rule.by == "block":
            split_by_block(rows, rule, seed)
        elif rule.by == "rmd17":
            split_as_rmd17(rows, rule, seed, datasets[rows[0].dataset].path / "splits.json")


def _metrics(
    sources: Mapping[str, Sequence[RowAssignment]], rules: Mapping[str, SplitRule], twins: Mapping[str, str]
) -> dict[str, Any]:
    everything = [row for rows in sources.values() for row in rows]
    trained = _twins_in(everything, TRAIN, twins)
    tested = _twins_in(everything, TEST, twins)
    return {
        "sources": {
            source: {
                "split_by": rules[source].by,
                **{name: _counts(rows, code) for name, code in (SPLITS | {"unused": UNUSED}).items()},
                "test_molecules_in_training_anywhere": len(_twins_in(rows, TEST, twins) & trained),
            }
            for source, rows in sources.items()
        },
        **{name: _counts(everything, code) for name, code in (SPLITS | {"unused": UNUSED}).items()},
        "molecules": len(twins),
        "molecules_twins_counted_once": len(set(twins.values())),
        "test_molecules_in_training": len(tested & trained),
    }


def _counts(rows: Iterable[RowAssignment], code: int) -> dict[str, int]:
    used = [(row.group, int((row.split == code).sum())) for row in rows]
    return {
        "molecules": len({group for group, n_conformers in used if n_conformers}),
        "conformers": sum(n_conformers for _, n_conformers in used),
    }


def _twins_in(rows: Iterable[RowAssignment], code: int, twins: Mapping[str, str]) -> set[str]:
    return {twins[row.group] for row in rows if (row.split == code).any()}
