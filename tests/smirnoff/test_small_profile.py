"""From SMILES to forces by our own code alone, for every molecule of the small profile, against Interchange and OpenMM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import Failure
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.sources.xtb import MOLECULES, TRAJECTORY_MOLECULE, NamedMolecule
from tests import openff_oracle

NAMED = (*MOLECULES, TRAJECTORY_MOLECULE)


@pytest.mark.parametrize("half", [NAMED[::2], NAMED[1::2]], ids=["even", "odd"])
@pytest.mark.slow
def test_energies_and_forces_equal_openmm(half: tuple[NamedMolecule, ...]) -> None:
    force_field, patterns = read_force_field(openff_oracle.FORCE_FIELD)
    setup = Setup(patterns, ("dataset",))
    molecules = [openff_oracle.molecule(named.smiles) for named in half]
    conformers = []
    for molecule in molecules:
        elements = molecule.atomic_numbers.astype(np.int32).tobytes()
        request = Request(molecule.smiles, elements, molecule.charges.tobytes(), round(molecule.charges.sum()))
        topology = parameterize(setup, request)
        assert not isinstance(topology, Failure), topology
        coords = torch.tensor(molecule.coords)
        conformers.append(Conformers(torch.tensor(molecule.atomic_numbers), coords, Terms.from_topology(topology)))
    batch = collate(conformers)
    prediction = SmirnoffPotential(force_field)(batch)
    found = zip(batch.split_conformers(prediction.energy), batch.split_atoms(prediction.forces), strict=True)
    for molecule, (energy, forces) in zip(molecules, found, strict=True):
        expected_energy, expected_forces = openff_oracle.openmm_energy_forces(molecule)
        np.testing.assert_allclose(energy, expected_energy, rtol=0.0, atol=1e-6, err_msg=molecule.smiles)
        np.testing.assert_allclose(forces, expected_forces, rtol=0.0, atol=1e-6, err_msg=molecule.smiles)
