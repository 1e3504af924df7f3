"""SMARTS patterns of a force field, and the parameters they assign to one molecule, identical to openff-interchange's and ten times faster.

The rules (https://openforcefield.github.io/standards/standards/smirnoff/): every pattern of a section is matched in the file's
order, and for each set of atoms the last match wins. A bond, angle or proper torsion read backwards is the same one; an improper
is the same for every order of its three outer atoms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase

from pesfit.core.arrays import IntArray
from pesfit.core.exceptions import ForceFieldError, MoleculeError
from pesfit.parameterize import exceptions

AtomTuple = tuple[int, ...]
N_TAGS = {"Bonds": 2, "Angles": 3, "ProperTorsions": 4, "ImproperTorsions": 4, "vdW": 1, "Constraints": 2}
"""Tagged atoms in a pattern of each section."""
_UNASSIGNED: dict[str, tuple[str, type[MoleculeError]]] = {
    "Bonds": ("bond", exceptions.UnassignedBondError),
    "Angles": ("angle", exceptions.UnassignedAngleError),
    "ProperTorsions": ("proper torsion", exceptions.UnassignedTorsionError),
    "ImproperTorsions": ("improper torsion", exceptions.UnassignedTorsionError),
    "vdW": ("atom", exceptions.UnassignedVdWError),
}


@dataclass(frozen=True)
class SectionPatterns:
    """Patterns of one section, to be matched.

    Attributes:
        handler: key of `topology.COLUMNS`.
        smirks: one for each parameter, in the file's order: the last that matches wins.
        rows: for each parameter the first row of the section's `ParameterTable`, and how many rows it has.
    """

    handler: str
    smirks: tuple[str, ...]
    rows: tuple[tuple[int, int], ...]


FITTED_CHARGES = "fitted-"
"""Beginning of the ids of library charges that a fit wrote: they come before the charges of data sets."""


@dataclass(frozen=True)
class TaggedCharges:
    """Charges, or charge increments, for the tagged atoms of a pattern.

    Attributes:
        smirks: the pattern.
        charges: [e], one for each tag.
        is_fitted: whether a fit wrote them.
    """

    smirks: str
    charges: tuple[float, ...]
    is_fitted: bool = False


@dataclass(frozen=True)
class Patterns:
    """All patterns to be matched on a molecule: small, hashable, and sent to worker processes.

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


@dataclass(frozen=True)
class AssignedTerms:
    """The terms of one section in one molecule, sorted by atoms.

    Attributes:
        atoms: shape (n_terms, n_atoms_in_a_term).
        parameters: rows of the section's `ParameterTable`, shape (n_terms,).
    """

    atoms: IntArray
    parameters: IntArray


class _Section:
    """One section's patterns, compiled."""

    def __init__(self, section: SectionPatterns) -> None:
        self.handler = section.handler
        self.rows = section.rows
        self.patterns = [Pattern(smirks, N_TAGS[section.handler]) for smirks in section.smirks]

    def last_matches(self, molecule: Chem.Mol) -> dict[AtomTuple, int]:
        """Return the last pattern that matches each set of atoms, whose key is independent of the order they were matched in."""
        assigned: dict[AtomTuple, int] = {}
        is_improper = self.handler == "ImproperTorsions"
        for index, pattern in enumerate(self.patterns):
            for atoms in pattern.matches(molecule):
                if is_improper:
                    first, second, third = sorted((atoms[0], atoms[2], atoms[3]))
                    assigned[first, atoms[1], second, third] = index
                else:
                    assigned[atoms if atoms[0] <= atoms[-1] else atoms[::-1]] = index
        return assigned


class Assigner:
    """The patterns of a force field, compiled once, to be matched on many molecules.

    Args:
        patterns: what `read_force_field` returned.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._sections = [_Section(section) for section in patterns.sections]
        self._constraints = [(label, Pattern(smirks, N_TAGS["Constraints"])) for label, smirks in patterns.constraints]

    def assign(self, molecule: Chem.Mol) -> dict[str, AssignedTerms]:
        """Assign parameters.

        Args:
            molecule: as `read_mapped_smiles` builds it.

        Returns:
            For each key of `topology.COLUMNS` its terms. An improper has three for each periodicity, with the central atom first, as
            Interchange writes them for OpenMM.

        Raises:
            UnassignedBondError, UnassignedAngleError, UnassignedTorsionError, UnassignedVdWError: where a term matches no pattern,
                or a pattern matches atoms that are no such term.
            ConstrainedMoleculeError: where a constraint matches.
        """
        for label, pattern in self._constraints:
            if held := pattern.matches(molecule):
                raise exceptions.ConstrainedMoleculeError(
                    f"the force field's constraint {label} holds {_describe(molecule, held[0])} at a fixed distance; only flexible "
                    "molecules can be handled"
                )
        neighbors = [sorted(other.GetIdx() for other in atom.GetNeighbors()) for atom in molecule.GetAtoms()]
        terms = {handler: AssignedTerms(np.zeros((0, n), np.int32), np.zeros(0, np.int32)) for handler, n in N_TAGS.items()}
        del terms["Constraints"]
        for section in self._sections:
            assigned = section.last_matches(molecule)
            _check(section.handler, assigned, neighbors, molecule)
            terms[section.handler] = _expand(section, assigned)
        return terms


def _expand(section: _Section, assigned: dict[AtomTuple, int]) -> AssignedTerms:
    """Return a term for each row of a term's parameter, and for each of the permutations of an improper."""
    atoms: list[AtomTuple] = []
    parameters: list[int] = []
    for key in sorted(assigned):
        start, n_rows = section.rows[assigned[key]]
        permutations: list[AtomTuple] = [key]
        if section.handler == "ImproperTorsions":
            # Interchange and OpenMM turn about the bond of two outer atoms, and so the central atom comes first.
            first, center, second, third = key
            permutations = [(center, first, second, third), (center, second, third, first), (center, third, first, second)]
        for row in range(start, start + n_rows):
            atoms += permutations
            parameters += [row] * len(permutations)
    width = N_TAGS[section.handler]
    return AssignedTerms(np.array(atoms, dtype=np.int32).reshape(-1, width), np.array(parameters, dtype=np.int32))


def _check(handler: str, assigned: dict[AtomTuple, int], neighbors: list[list[int]], molecule: Chem.Mol) -> None:
    """Check that the terms assigned are the terms there are."""
    name, error = _UNASSIGNED[handler]
    if handler == "ImproperTorsions":
        strays = [key for key in assigned if not {key[0], key[2], key[3]} <= set(neighbors[key[1]])]
    else:
        expected = set(_EXPECTED[handler](neighbors))
        if assigned.keys() == expected:
            return
        if missing := sorted(expected - assigned.keys()):
            raise error(f"no {handler} parameter for {_list(molecule, missing, name)}")
        strays = [key for key in assigned if key not in expected]
    if strays:
        raise error(f"a {handler} pattern matches what is no {name}: {_list(molecule, sorted(strays), 'group of atoms')}")


def _bonds(neighbors: list[list[int]]) -> Iterable[AtomTuple]:
    return ((i, j) for i, others in enumerate(neighbors) for j in others if i < j)


def _angles(neighbors: list[list[int]]) -> Iterable[AtomTuple]:
    return ((i, j, k) for j, others in enumerate(neighbors) for i in others for k in others if i < k)


def _propers(neighbors: list[list[int]]) -> Iterable[AtomTuple]:
    for j, others in enumerate(neighbors):
        for k in others:
            if j < k:
                for i in others:
                    for l in neighbors[k]:  # noqa: E741
                        if i != k and l not in (i, j):
                            yield (i, j, k, l) if i < l else (l, k, j, i)


def _atoms(neighbors: list[list[int]]) -> Iterable[AtomTuple]:
    return ((i,) for i in range(len(neighbors)))


_EXPECTED = {"Bonds": _bonds, "Angles": _angles, "ProperTorsions": _propers, "vdW": _atoms}


def _list(molecule: Chem.Mol, keys: list[AtomTuple], name: str) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{name} {_describe(molecule, keys[0])}{more}"


def _describe(molecule: Chem.Mol, atoms: AtomTuple) -> str:
    """Name atoms by element and map number, such as `C:1-H:5`."""
    return "-".join(f"{molecule.GetAtomWithIdx(index).GetSymbol()}:{index + 1}" for index in atoms)
