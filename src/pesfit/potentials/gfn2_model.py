"""GFN2-xTB as a potential and as a model: the method that labels the small profile's data, to simulate and relabel with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from rdkit import Chem

from pesfit.chemistry.smiles import read_smiles
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.potentials.gfn2 import Gfn2
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.model import Model, PreparedMolecule


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


class Gfn2Model(Model):
    """GFN2-xTB as a model; the total charge is that of the SMILES, 0 where there is none."""

    needs_bonds = False

    def __init__(self, name: str = "gfn2") -> None:
        super().__init__(name, Gfn2Potential())

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Take the molecule as it is; see `Model.prepare`."""
        del where, charges
        return PreparedMolecule(atomic_numbers, smiles, 0 if smiles is None else int(Chem.GetFormalCharge(read_smiles(smiles))))


@lru_cache(maxsize=256)
def _method(atomic_numbers: tuple[int, ...], total_charge: int) -> Gfn2:
    # Not kept in the potential: what tblite is loaded by cannot be sent to another process.
    return Gfn2(np.array(atomic_numbers, dtype=np.int32), total_charge)
