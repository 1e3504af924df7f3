"""SMARTS patterns with tagged atoms: what of a force field has to be matched, and matching it on many molecules."""

from __future__ import annotations

from dataclasses import dataclass

from rdkit import Chem, rdBase

from pesfit.core.exceptions import ForceFieldError

AtomTuple = tuple[int, ...]

N_TAGS = {"Bonds": 2, "Angles": 3, "ProperTorsions": 4, "ImproperTorsions": 4, "vdW": 1, "Constraints": 2}
"""Tagged atoms in a pattern of each section."""


@dataclass(frozen=True)
class SectionPatterns:
    """What is matched for one section.

    Attributes:
        handler: key of `topology.COLUMNS`.
        smirks: one for each parameter, in the file's order: the last that matches wins.
        rows: for each parameter the first row of the section's `ParameterTable`, and how many rows it has.
    """

    handler: str
    smirks: tuple[str, ...]
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TaggedCharges:
    """Charges, or charge increments, for the tagged atoms of a pattern.

    Attributes:
        smirks: the pattern.
        charges: [e], one for each tag.
    """

    smirks: str
    charges: tuple[float, ...]


@dataclass(frozen=True)
class Patterns:
    """All that has to be matched on a molecule: small, hashable, and sent to worker processes.

    Attributes:
        sections: bonds, angles, torsions and vdW, where the force field has them.
        constraints: id and SMIRKS of each.
        library_charges: in the file's order.
        increment_base: `partial_charge_method` of the charge increments; None where there is no such section.
        increments: in the file's order.
    """

    sections: tuple[SectionPatterns, ...]
    constraints: tuple[tuple[str, str], ...]
    library_charges: tuple[TaggedCharges, ...]
    increment_base: str | None
    increments: tuple[TaggedCharges, ...]


def _match_parameters() -> Chem.SubstructMatchParameters:
    """Return what the OpenFF toolkit asks RDKit for: every match in every atom order, stereochemistry respected."""
    parameters = Chem.SubstructMatchParameters()
    parameters.uniquify = False  # type: ignore[assignment]
    parameters.useChirality = True  # type: ignore[assignment]
    parameters.maxMatches = 2**32 - 1  # type: ignore[assignment]
    return parameters


_PARAMETERS = _match_parameters()


class Pattern:
    """A compiled SMARTS pattern whose tagged atoms are numbered 1 to n.

    Args:
        smarts: the pattern.
        n_tags: how many tagged atoms it must have; None for any number of at least 1.

    Raises:
        ForceFieldError: where RDKit cannot read it, or the tags are not 1 to `n_tags`, each once.
    """

    def __init__(self, smarts: str, n_tags: int | None = None) -> None:
        with rdBase.BlockLogs():
            query = Chem.MolFromSmarts(smarts)
        if query is None:
            raise ForceFieldError(f"SMARTS {smarts!r} cannot be read by RDKit")
        tags = sorted(atom.GetAtomMapNum() for atom in query.GetAtoms() if atom.GetAtomMapNum())
        n_expected = max(len(tags), 1) if n_tags is None else n_tags
        if tags != list(range(1, n_expected + 1)):
            raise ForceFieldError(f"SMARTS {smarts!r} has the tags {tags}; expected 1 to {n_expected}, each once")
        place = {atom.GetAtomMapNum(): atom.GetIdx() for atom in query.GetAtoms()}
        self.n_tags = n_expected
        self._query = query
        self._order = tuple(place[tag] for tag in tags)
        self._is_in_order = self._order == tuple(range(query.GetNumAtoms()))

    def matches(self, molecule: Chem.Mol) -> list[AtomTuple]:
        """Return the atoms that match tags 1, 2, ..., for each match, in RDKit's order."""
        found = molecule.GetSubstructMatches(self._query, _PARAMETERS)
        if self._is_in_order:
            return list(found)
        return [tuple([match[place] for place in self._order]) for match in found]
