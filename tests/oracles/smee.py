"""SMIRNOFF energies and forces by smee, as a second engine; it computes in float32."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from pesfit.core.exceptions import DataError
from pesfit.data.topology import ForceField
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.terms import ATOM_FIELDS, Terms
from pesfit.smirnoff.potential import check_force_field
from pesfit.smirnoff.smee import import_smee, parameter_maps, tensor_force_field


class SmeePotential(Potential):
    """A SMIRNOFF force field evaluated by smee; batches must come with terms.

    What smee needs is made from a batch's terms, and kept until a batch with other terms comes: use one batch many times.

    Args:
        force_field: whose tables the terms' parameters index.

    Raises:
        ParamsError: where smee cannot be imported.
        ForceFieldError: as `SmirnoffPotential` does.
    """

    def __init__(self, force_field: ForceField) -> None:
        super().__init__()
        check_force_field(force_field)
        self._smee = import_smee()
        self._force_field = force_field
        self._terms: Terms | None = None
        self._converted: tuple[Any, list[Any]] = (None, [])

    def forward(self, batch: Batch) -> Prediction:
        """Evaluate a batch, one molecule after another.

        Raises:
            DataError: if the batch has no terms.
        """
        if batch.terms is None:
            raise DataError("a SMIRNOFF potential needs a batch with terms; collate the molecules with theirs")
        if batch.terms is not self._terms:
            self._converted = self._convert(batch, batch.terms)
            self._terms = batch.terms
        force_field, topologies = self._converted
        energies, forces = [], []
        for topology, coords in zip(topologies, batch.split_atoms(batch.coords), strict=True):
            with torch.enable_grad():
                positions = coords.detach().clone().requires_grad_()
                energy: Tensor = self._smee.compute_energy(topology, force_field, positions)
                (gradient,) = torch.autograd.grad(energy.sum(), positions, allow_unused=True, materialize_grads=True)
            energies.append(energy.detach().double())
            forces.append(-gradient.reshape(-1, 3))
        return Prediction(torch.cat(energies), torch.cat(forces))

    def _convert(self, batch: Batch, terms: Terms) -> tuple[Any, list[Any]]:
        molecules, numbers, first_atom = [], [], 0
        for n_conformers, n_atoms in batch.sizes:
            molecules.append(_first_copy(terms, first_atom, n_atoms))
            numbers.append(batch.atomic_numbers[first_atom : first_atom + n_atoms])
            first_atom += n_conformers * n_atoms
        topologies = [
            self._smee.TensorTopology(
                atomic_nums=atomic_numbers,
                formal_charges=torch.zeros_like(atomic_numbers),  # smee's energies do not look at these and the next two
                bond_idxs=molecule.bonds,
                bond_orders=torch.ones(len(molecule.bonds), dtype=torch.int64),
                parameters=parameter_maps(self._force_field, molecules, i),
            )
            for i, (molecule, atomic_numbers) in enumerate(zip(molecules, numbers, strict=True))
        ]
        names = [f"molecule-{i}" for i in range(len(molecules))]
        charges = [molecule.charges for molecule in molecules]
        return tensor_force_field(self._force_field, names, charges), topologies


def _first_copy(terms: Terms, first_atom: int, n_atoms: int) -> Terms:
    """Cut the molecule that begins at an atom out of joined terms."""
    atoms = slice(first_atom, first_atom + n_atoms)
    cut: dict[str, Any] = {"n_atoms": n_atoms, "vdw_parameters": terms.vdw_parameters[atoms], "charges": terms.charges[atoms]}
    for name, companions in ATOM_FIELDS.items():
        index = getattr(terms, name)
        inside = (index[:, 0] >= first_atom) & (index[:, 0] < first_atom + n_atoms)
        cut[name] = index[inside] - first_atom
        cut[companions] = getattr(terms, companions)[inside]
    return replace(terms, **{field.name: cut[field.name] for field in fields(Terms)})
