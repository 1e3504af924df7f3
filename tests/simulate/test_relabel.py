"""Forces of GFN2-xTB for frames of a trajectory."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.core.exceptions import MoleculeError
from pesfit.potentials.gfn2 import Gfn2
from pesfit.simulate.relabel import gfn2_forces
from pesfit.simulate.replicas import Molecule, standard_masses
from tests.sources.synthetic import make_frames


def molecule(smiles: str, total_charge: int = 0) -> Molecule:
    frames = make_frames(smiles, 2)
    return Molecule(
        smiles, frames.atomic_numbers, standard_masses(frames.atomic_numbers), frames.coords, total_charge=total_charge
    )


def test_forces_are_minus_the_slope_of_the_energy_and_nan_where_there_is_none() -> None:
    """Of the ion, whose charge must arrive."""
    ion = molecule("[OH-]", -1)
    coords = np.stack([ion.coords[0], np.full((2, 3), np.nan)])
    forces = gfn2_forces(ion, coords)
    assert np.isnan(forces[1]).all()
    method, step = Gfn2(ion.atomic_numbers, -1), 1e-3
    for atom in range(2):
        for axis in range(3):
            move = np.zeros((2, 3))
            move[atom, axis] = step
            rise = method.energy_and_forces(coords[0] + move).energy - method.energy_and_forces(coords[0] - move).energy
            assert forces[0, atom, axis] == pytest.approx(-rise / (2 * step), abs=2e-3)


def test_a_molecule_that_is_not_covered_is_refused() -> None:
    with pytest.raises(MoleculeError, match=r"cannot have 0 of them unpaired"):
        gfn2_forces(molecule("C", 1), molecule("C").coords)
