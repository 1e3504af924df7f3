"""What every source hands over for each row, and the examination each row goes through."""

from __future__ import annotations

from dataclasses import dataclass, field

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.exceptions import Failure
from pesfit.data.dataset import Record
from pesfit.sources.physical_check import PhysicsCheck, measure_physics

_STAGE = "convert"
_BLOCK = 100
"""Conformers whose interatomic distances are held at a time."""
_MAX_OTHER_BONDS = 0.5
"""Fraction of conformers with other bonds than the SMILES says, above which the SMILES or the coordinates must be wrong."""


@dataclass(frozen=True)
class Converted:
    """One row or entry of a source after conversion.

    Attributes:
        record: None where the entry failed or was left out.
        source: value of the record's `source` column, also where there is no record.
        failure: why there is no record, where that is a failure and not the filter.
        n_conformers_read: what the source held, before the filter.
        n_other_bonds: conformers kept in which a bond has broken or formed.
        physics: of the conformers kept.
    """

    record: Record | None
    source: str
    failure: Failure | None = None
    n_conformers_read: int = 0
    n_other_bonds: int = 0
    physics: PhysicsCheck = field(default_factory=PhysicsCheck)


def examined(record: Record, n_conformers_read: int | None = None) -> Converted:
    """Examine one record: finite labels, bonds, energies against forces.

    Args:
        record: as converted.
        n_conformers_read: what the source held; None where nothing was filtered.

    Returns:
        With the record, or with a failure where its bonds or its forces are clearly wrong.

    Raises:
        DataError: where a shape is wrong or a label is not finite.
    """
    record.validate()
    n_read = record.n_conformers if n_conformers_read is None else n_conformers_read
    physics = measure_physics(record)
    kind, problem = "PhysicsError", physics.problem
    n_other_bonds = _n_other_bonds(record)
    if n_other_bonds > _MAX_OTHER_BONDS * record.n_conformers:
        kind, problem = (
            "BondsError",
            (
                f"in {n_other_bonds} of {record.n_conformers} conformers distances are not those of the bonds of {record.smiles} "
                "(are atoms in another order, or coordinates in another unit?)"
            ),
        )
    if problem:
        return Converted(None, record.source, Failure(record.id, _STAGE, kind, problem), n_read, n_other_bonds, physics)
    return Converted(record, record.source, None, n_read, n_other_bonds, physics)


def failed(entry: str, source: str, error: Exception, n_conformers_read: int = 0) -> Converted:
    """Keep the exception that one molecule caused."""
    return Converted(None, source, Failure.from_exception(entry, _STAGE, error), n_conformers_read)


def _n_other_bonds(record: Record) -> int:
    if record.smiles is None:
        return 0
    connectivity = Connectivity(mapped_molecule(record.smiles))
    return sum(
        int((~connectivity.holds(record.coords[start : start + _BLOCK])).sum())
        for start in range(0, record.n_conformers, _BLOCK)
    )
