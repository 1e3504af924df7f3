"""Standard deviations that a posterior or an ensemble predicts for energies and forces, and the interface that gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pesfit.core.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class StandardDeviations:
    """Predicted standard deviations of the energies and forces of some conformers of one molecule.

    Attributes:
        energy: of the total energy [kcal/mol], shape (n_conformers,). It includes the uncertainty of the offset that all conformers
            share, which cancels wherever energies are compared.
        relative_energy: of the energy minus that of a reference conformer, [kcal/mol], shape (n_conformers,).
        forces: of each component, [kcal/mol/Å], shape (n_conformers, n_atoms, 3).
    """

    energy: FloatArray
    relative_energy: FloatArray
    forces: FloatArray

    @property
    def score(self) -> FloatArray:
        """Standard deviation of the force on the least certain atom, max_i |σ_i| [kcal/mol/Å], shape (n_conformers,).

        Geometries mostly leave the training distribution at one place, such as a bond that breaks; a mean over atoms would hide that.
        """
        return np.asarray(np.sqrt((self.forces**2).sum(axis=-1)).max(axis=-1))


class Uncertainty(Protocol):
    """The posterior of a potential, for one molecule."""

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        """Return standard deviations.

        Args:
            coords: [Å], shape (n_conformers, n_atoms, 3).
            reference: [Å], the conformer that relative energies are relative to, shape (n_atoms, 3); the first one where None.
        """
