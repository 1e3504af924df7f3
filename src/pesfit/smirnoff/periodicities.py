"""Torsions with periodicities that the starting force field does not give them, at k = 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pesfit.core.arrays import BoolArray, IntArray
from pesfit.data.topology import ForceField, ParameterTable, Topology

_PERIODICITY, _IDIVF = 1, 3


@dataclass(frozen=True)
class Extension:
    """A force field with more periodicities, and how topologies follow.

    Attributes:
        force_field: new rows are at the end of the table, so that rows keep their numbers.
        added: new rows of the torsion whose first row is the key.
    """

    force_field: ForceField
    added: Mapping[int, Sequence[int]]

    def extend(self, topology: Topology) -> Topology:
        """Return the topology with a term for each new periodicity of each of its torsions."""
        if not self.added:
            return topology
        atoms, parameters = [topology.propers], [topology.proper_parameters]
        for first, rows in self.added.items():
            mine = topology.propers[topology.proper_parameters == first]
            for row in rows:
                atoms.append(mine)
                parameters.append(np.full(len(mine), row, dtype=parameters[0].dtype))
        return replace(topology, propers=np.concatenate(atoms), proper_parameters=np.concatenate(parameters))


def add_periodicities(force_field: ForceField, chosen: BoolArray, periodicities: Sequence[int]) -> Extension:
    """Give proper torsions the periodicities they lack, at k = 0, phase 0 and the torsion's own idivf.

    Args:
        force_field: as assigned.
        chosen: which rows of its table of proper torsions may be trained, shape (n_parameters,).
        periodicities: the wanted ones.
    """
    table = force_field.tables["ProperTorsions"]
    torsions: dict[str, list[int]] = {}
    for row in np.flatnonzero(chosen):
        torsions.setdefault(table.smirks[row], []).append(int(row))
    new: list[tuple[int, int, float]] = []  # first row, mult, periodicity
    added: dict[int, list[int]] = {}
    for rows in torsions.values():
        first = min(rows, key=lambda row: int(table.mult[row]))
        has = {round(table.values[row, _PERIODICITY]) for row in rows}
        for n_more, periodicity in enumerate(sorted(set(periodicities) - has)):
            added.setdefault(first, []).append(len(table.smirks) + len(new))
            new.append((first, len(rows) + n_more, float(periodicity)))
    if not new:
        return Extension(force_field, {})
    longer = _lengthened(table, new)
    return Extension(replace(force_field, tables={**force_field.tables, "ProperTorsions": longer}), added)


def _lengthened(table: ParameterTable, new: Sequence[tuple[int, int, float]]) -> ParameterTable:
    firsts = [first for first, _, _ in new]
    values = np.array([[0.0, periodicity, 0.0, table.values[first, _IDIVF]] for first, _, periodicity in new])
    mult: IntArray = np.array([number for _, number, _ in new], dtype=table.mult.dtype)
    return ParameterTable(
        handler=table.handler,
        ids=table.ids + tuple(table.ids[first] for first in firsts),
        smirks=table.smirks + tuple(table.smirks[first] for first in firsts),
        mult=np.concatenate([table.mult, mult]),
        values=np.vstack([table.values, values]),
        uses=np.concatenate([table.uses, table.uses[firsts]]),
    )
