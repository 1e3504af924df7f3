"""Assign SMIRNOFF parameters to one molecule, identically to openff-interchange and some ten times faster.

The rules (https://openforcefield.github.io/standards/standards/smirnoff/): every pattern of a section is matched in the file's
order, and for each set of atoms the last match wins. A bond, angle or proper torsion read backwards is the same one; an improper
is the same for every order of its three outer atoms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from pesfit.core.arrays import IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize import errors
from pesfit.parameterize.patterns import N_TAGS, AtomTuple, Pattern, Patterns, SectionPatterns

_UNASSIGNED: dict[str, tuple[str, type[MoleculeError]]] = {
    "Bonds": ("bond", errors.UnassignedBondError),
    "Angles": ("angle", errors.UnassignedAngleError),
    "ProperTorsions": ("proper torsion", errors.UnassignedTorsionError),
    "ImproperTorsions": ("improper torsion", errors.UnassignedTorsionError),
    "vdW": ("atom", errors.UnassignedVdWError),
}


@dataclass(frozen=True)
class Terms:
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

    def assign(self, molecule: Chem.Mol) -> dict[str, Terms]:
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
                raise errors.ConstrainedMoleculeError(
                    f"the force field's constraint {label} holds {_describe(molecule, held[0])} at a fixed distance; only flexible "
                    "molecules can be handled"
                )
        neighbors = [sorted(other.GetIdx() for other in atom.GetNeighbors()) for atom in molecule.GetAtoms()]
        terms = {handler: Terms(np.zeros((0, n), np.int32), np.zeros(0, np.int32)) for handler, n in N_TAGS.items()}
        del terms["Constraints"]
        for section in self._sections:
            assigned = section.last_matches(molecule)
            _check(section.handler, assigned, neighbors, molecule)
            terms[section.handler] = _expand(section, assigned)
        return terms


def _expand(section: _Section, assigned: dict[AtomTuple, int]) -> Terms:
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
    return Terms(np.array(atoms, dtype=np.int32).reshape(-1, width), np.array(parameters, dtype=np.int32))


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
