"""GFN2-xTB behind the interface of potentials: the method that labels the small profile's data, to simulate and relabel with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from pesfit.core.exceptions import MoleculeError
from pesfit.potentials.base import Batch, Potential, Prediction
from pesfit.potentials.gfn2 import Gfn2


class Gfn2Potential(Potential):
    """GFN2-xTB for closed shells, one conformer after another; batches must come with the total charges of ions.

    Where the self-consistent field does not converge, or coordinates are not finite, energy and forces of that conformer are NaN.
    """

    def forward(self, batch: Batch) -> Prediction:
        """Evaluate a batch.

        Raises:
            MoleculeError: if an element is not covered, or a molecule's charge leaves an electron unpaired.
        """
        charges = batch.total_charges or (0,) * len(batch.sizes)
        energies, forces = [], []
        numbers = batch.split_atoms(batch.atomic_numbers)
        for atomic_numbers, coords, charge in zip(numbers, batch.split_atoms(batch.coords.detach()), charges, strict=True):
            method = _method(tuple(atomic_numbers[0].tolist()), charge)
            for conformer in coords.cpu().numpy():
                try:
                    labels = method.energy_and_forces(conformer)
                    energies.append(labels.energy)
                    forces.append(labels.forces)
                except MoleculeError:
                    energies.append(np.nan)
                    forces.append(np.full_like(conformer, np.nan))
        device = batch.coords.device
        return Prediction(
            torch.tensor(energies, dtype=torch.float64, device=device),
            torch.from_numpy(np.concatenate(forces)).to(device),
        )


@lru_cache(maxsize=256)
def _method(atomic_numbers: tuple[int, ...], total_charge: int) -> Gfn2:
    # Not kept in the potential: what tblite is loaded by cannot be sent to another process.
    return Gfn2(np.array(atomic_numbers, dtype=np.int32), total_charge)
