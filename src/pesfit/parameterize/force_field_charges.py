"""Charges that a force field itself gives to a molecule: library charges, or charges of a model with increments on top.

Library charges are taken where their patterns cover every atom; else increments, where the force field has them; else none. Matches
are counted as Interchange counts them: of the patterns that tag the same set of atoms the last one holds, and where library
charges of different sets overlap, the later set holds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.parameterize.patterns import AtomTuple, Pattern, Patterns, TaggedCharges

BaseCharges = Callable[[str], FloatArray]
"""Charges [e], shape (n_atoms,), by a method other than `zeros` and `formal_charge`."""


class ForceFieldCharges:
    """The charges in a force field, compiled once.

    Args:
        patterns: what `read_force_field` returned.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._library = [(Pattern(entry.smirks), entry) for entry in patterns.library_charges]
        self._increments = [(Pattern(entry.smirks), entry) for entry in patterns.increments]
        self._base = patterns.increment_base

    def assign(self, molecule: Chem.Mol, base_charges: BaseCharges) -> FloatArray | None:
        """Return the molecule's charges, or None where the force field leaves them to another method.

        Args:
            molecule: as `read_mapped_smiles` builds it.
            base_charges: called where the force field puts increments on charges that have to be computed.

        Returns:
            [e], shape (n_atoms,).
        """
        library = np.full(molecule.GetNumAtoms(), np.nan)
        for atoms, entry in _last_by_set(molecule, self._library).items():
            library[list(atoms)] = entry.charges
        if not np.isnan(library).any():
            return library
        if self._base is None:
            return None
        if self._base == "zeros":
            # The toolkit makes what it computes add up to the total charge, zeros too.
            charges = np.full(molecule.GetNumAtoms(), Chem.GetFormalCharge(molecule) / molecule.GetNumAtoms())
        elif self._base == "formal_charge":
            charges = np.array([float(atom.GetFormalCharge()) for atom in molecule.GetAtoms()])
        else:
            charges = np.array(base_charges(self._base))
        for atoms, entry in _last_by_tags(molecule, self._increments).items():
            np.add.at(charges, list(atoms), entry.charges)
        return charges


def _last_by_set(molecule: Chem.Mol, entries: list[tuple[Pattern, TaggedCharges]]) -> dict[AtomTuple, TaggedCharges]:
    """Return the entry of each tuple of tagged atoms: the last one for the tuple, and of tuples of one set of atoms the last.

    A dictionary keeps the place of a key's first entry, and "the last tuple" is by these places. Which of two symmetric tuples of
    one pattern is last thus depends on RDKit's order of matches, as it does in Interchange.
    """
    by_tuple: dict[AtomTuple, TaggedCharges] = {}
    for pattern, entry in entries:
        for atoms in pattern.matches(molecule):
            by_tuple[atoms] = entry
    by_set = {tuple(sorted(atoms)): atoms for atoms in by_tuple}
    return {atoms: by_tuple[atoms] for atoms in by_set.values()}


def _last_by_tags(molecule: Chem.Mol, entries: list[tuple[Pattern, TaggedCharges]]) -> dict[AtomTuple, TaggedCharges]:
    """Return the last entry that tags each set of atoms, by the atoms in the order of its tags."""
    by_set: dict[AtomTuple, tuple[AtomTuple, TaggedCharges]] = {}
    for pattern, entry in entries:
        for atoms in pattern.matches(molecule):
            by_set[tuple(sorted(atoms))] = (atoms, entry)
    return dict(by_set.values())
