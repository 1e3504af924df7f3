"""Whether the atoms of a conformer are still bonded as the molecule says.

Distances are measured in units of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008, 2832, as RDKit tabulates them).
In dynamics of small molecules at 500 K bonds reach 1.2 of it, and atoms with a neighbor in common come down to 1.3 (C and P across
an ester oxygen), others to 1.6.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from pesfit.core.arrays import BoolArray, FloatArray

BROKEN = 1.4
"""A bond longer than this many times the sum of the covalent radii counts as broken."""
FORMED = 1.2
"""Two atoms that are not bonded and closer than this many times the sum of the covalent radii count as bonded."""


class Connectivity:
    """The bonds of one molecule, to be looked for in its conformers.

    Args:
        mol: all hydrogens explicit.
    """

    def __init__(self, mol: Chem.Mol) -> None:
        table = Chem.GetPeriodicTable()
        radii = np.array([table.GetRcovalent(atom.GetAtomicNum()) for atom in mol.GetAtoms()])
        bonded = Chem.GetAdjacencyMatrix(mol).astype(bool)
        self._left, self._right = np.triu_indices(len(radii), k=1)
        sums = radii[self._left] + radii[self._right]
        pairs = bonded[self._left, self._right]
        self._shortest = np.where(pairs, 0.0, FORMED * sums)
        self._longest = np.where(pairs, BROKEN * sums, np.inf)

    def holds(self, coords: FloatArray) -> BoolArray:
        """Say of each conformer whether no bond has broken or formed.

        Args:
            coords: [Å], shape (n_conformers, n_atoms, 3).

        Returns:
            Shape (n_conformers,).
        """
        distances = np.linalg.norm(coords[:, self._left] - coords[:, self._right], axis=-1)
        result: BoolArray = ((distances >= self._shortest) & (distances <= self._longest)).all(axis=1)
        return result
