"""Ask GFN2-xTB about frames of a trajectory: how wrong were the forces that made it."""

from __future__ import annotations

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Conformers, collate
from pesfit.simulate.replicas import Molecule


def gfn2_forces(molecule: Molecule, coords: FloatArray) -> FloatArray:
    """Return GFN2-xTB's forces [kcal/mol/Å], NaN where it has none.

    Args:
        molecule: whose replicas do not matter.
        coords: [Å], shape (n_frames, n_atoms, 3), like the result.

    Raises:
        MoleculeError: if the method does not cover the molecule.
    """
    numbers = torch.from_numpy(molecule.atomic_numbers.astype(np.int64))
    conformers = torch.from_numpy(np.array(coords, dtype=np.float64))
    prediction = Gfn2Potential()(collate([Conformers(numbers, conformers, total_charge=molecule.total_charge)]))
    return np.asarray(prediction.forces.reshape(coords.shape).numpy())
