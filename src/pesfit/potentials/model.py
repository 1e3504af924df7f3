"""The interface of opened models: a potential, the preparation of molecules for it, and its uncertainty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.potentials.interface import Conformers, Potential, collate
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.potentials.terms import Terms
from pesfit.uncertainty.calibration import CalibratedUncertainty, Calibration
from pesfit.uncertainty.standard_deviations import Uncertainty

ATOMS_AT_ONCE = 20_000
"""Atoms of all conformers evaluated at once, which bounds memory; a constant, because another cut may change the last bits."""


@dataclass(frozen=True, eq=False)
class PreparedMolecule:
    """One molecule, as a model sees it.

    Attributes:
        atomic_numbers: shape (n_atoms,).
        smiles: mapped; None where bonds are not known.
        total_charge: [e].
        terms: SMIRNOFF terms; None for models that need none.
        charge_method: where partial charges come from; None where there are none.
        uncertainty: None where the model has no posterior.
    """

    atomic_numbers: IntArray
    smiles: str | None
    total_charge: int = 0
    terms: Terms | None = None
    charge_method: str | None = None
    uncertainty: Uncertainty | None = None

    def conformers(self, coords: FloatArray) -> Conformers:
        """Return conformers to make a batch of; coords [Å], shape (n_conformers, n_atoms, 3)."""
        numbers = torch.from_numpy(self.atomic_numbers.astype(np.int64))
        return Conformers(numbers, torch.from_numpy(np.array(coords, dtype=np.float64)), self.terms, self.total_charge)


class Model(ABC):
    """A potential that users name by a folder or file; `open_model` opens it.

    Attributes:
        name: as it was given.
        potential: energies and forces.
        needs_bonds: whether molecules must come with a SMILES.
        has_total_energies: whether energies have the zero of the labels; those of a force field have one of their own.
        has_posterior: whether prepared molecules have an uncertainty.
        calibration: correction of the posterior's standard deviations, which prepared molecules apply; None without one.
    """

    needs_bonds: ClassVar[bool]
    has_total_energies: ClassVar[bool] = True

    def __init__(self, name: str, potential: Potential) -> None:
        self.name = name
        self.potential = potential
        self.has_posterior = False
        self.calibration: Calibration | None = None

    @abstractmethod
    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Prepare a molecule.

        Args:
            atomic_numbers: shape (n_atoms,).
            smiles: mapped, or None where bonds are not known.
            where: name for messages.
            charges: [e], partial charges to take, shape (n_atoms,), such as those of a data set.

        Raises:
            DataError: where the model needs bonds and there are none.
            MoleculeError: where it cannot be parameterized.
        """

    def evaluate(self, prepared: PreparedMolecule, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate conformers of one molecule, keeping nothing to differentiate, and `ATOMS_AT_ONCE` atoms at a time.

        Args:
            prepared: from `prepare`.
            coords: [Å], shape (n_conformers, n_atoms, 3).

        Returns:
            Energies [kcal/mol], shape (n_conformers,), and forces [kcal/mol/Å], of the shape of `coords`.

        Raises:
            PesfitError: where the potential does not cover the molecule, or two atoms are at the same place.
        """
        n_at_once = max(1, ATOMS_AT_ONCE // len(prepared.atomic_numbers))
        parts = [self._evaluate(prepared, coords[i : i + n_at_once], i) for i in range(0, max(1, len(coords)), n_at_once)]
        return np.concatenate([energy for energy, _ in parts]), np.concatenate([forces for _, forces in parts])

    def _evaluate(self, prepared: PreparedMolecule, coords: FloatArray, start: int) -> tuple[FloatArray, FloatArray]:
        try:
            with torch.no_grad():
                prediction = self.potential(collate([prepared.conformers(coords)]))
        except CoincidentAtomsError as error:
            raise CoincidentAtomsError(error.atoms, start + (error.conformer or 0), error.molecule) from error
        return prediction.energy.numpy(), prediction.forces.numpy().reshape(coords.shape)

    def calibrated(self, posterior: Uncertainty | None) -> Uncertainty | None:
        """Return the uncertainty of a prepared molecule: the posterior's standard deviations, corrected by its calibration."""
        if posterior is None or self.calibration is None:
            return posterior
        return CalibratedUncertainty(posterior, self.calibration)
