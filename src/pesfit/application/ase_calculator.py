"""The ASE calculator: any model for ASE's optimizers and dynamics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor

from pesfit.application.geometries import checked
from pesfit.application.predict import predict_molecule
from pesfit.chemistry.bonds import BondsFromSmiles
from pesfit.core.exceptions import DataError
from pesfit.core.units import EV
from pesfit.models.open import open_model
from pesfit.params.preparation import ChargeMethod
from pesfit.potentials.interface import Prediction, collate
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.smirnoff.model import CHARGE_METHODS

_STD = ("energy_std", "forces_std")


def calculator(
    model: str | Path, *, smiles: str | None = None, charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS
) -> PesfitCalculator:
    """Make an ASE calculator; `pesfit.calculator` is this function.

    Args:
        model: an output folder of the pipeline, or an .offxml by path or installed name.
        smiles: of the molecule, needed by SMIRNOFF alone. With map numbers on all atoms these give their order; without, the SMILES is
            matched with the atoms that are neighbors at the first positions.
        charge_methods: where partial charges come from, for SMIRNOFF; tried in this order.

    Raises:
        DataError: where the model cannot be opened, or needs bonds and there is no SMILES.
        ForceFieldError: where a force field cannot be read or is not supported.

    Example:
        >>> import pesfit
        >>> from ase.build import molecule
        >>> atoms = molecule("CH3CH2OH")
        >>> atoms.calc = pesfit.calculator("outputs/smirnoff", smiles="CCO")
        >>> atoms.get_forces().shape  # eV/Å
        (9, 3)
    """
    opened = open_model(model, charge_methods)
    if opened.needs_bonds and smiles is None:
        raise DataError(
            f"the SMIRNOFF force field {model} needs bonds, which ASE's atoms lack; give the molecule's SMILES as smiles="
        )
    return PesfitCalculator(opened, None if smiles is None else BondsFromSmiles(smiles))


class PesfitCalculator(Calculator):
    """Energy [eV] and forces [eV/Å] of a molecule in vacuum, and standard deviations where the model has a posterior.

    `get_property("energy_std")` [eV] and `get_property("forces_std")` [eV/Å, shape (n_atoms, 3)] are computed when asked for
    (`uncertainty.standard_deviations.StandardDeviations`).

    Args:
        model: any.
        bonds: None where the model needs none.
    """

    name = "pesfit"

    def __init__(self, model: Model, bonds: BondsFromSmiles | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces", *(_STD if model.has_posterior else ())]
        self._model = model
        self._bonds = bonds
        self._last: _LastMolecule | None = None

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Evaluate; ASE calls this where results are out of date.

        Raises:
            DataError: where the atoms are periodic, are not the SMILES's or not known to the model, or a result is not finite.
            MoleculeError: where the molecule cannot be parameterized.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        molecule: Any = self.atoms
        if molecule.pbc.any():
            raise DataError(f"the atoms are periodic (pbc = {molecule.pbc.tolist()}); only molecules in vacuum can be handled")
        coords = torch.from_numpy(molecule.positions.copy())
        last = self._prepare(molecule)
        prediction = last.evaluate(coords)
        energy, forces = float(prediction.energy[0]), prediction.forces.numpy()
        if not torch.isfinite(prediction.energy).all() or not torch.isfinite(prediction.forces).all():
            raise DataError(f"{self._model.name} gives no finite energy and forces; do atoms coincide?")
        self.results = {"energy": energy / EV, "free_energy": energy / EV, "forces": forces / EV}
        if last.prepared.uncertainty is not None and set(properties) & set(_STD):
            std = last.prepared.uncertainty(coords.numpy()[None])
            self.results["energy_std"] = float(std.energy[0]) / EV
            self.results["forces_std"] = std.forces[0] / EV

    def _prepare(self, atoms: Any) -> _LastMolecule:
        """Prepare a molecule that is not the one of the last call."""
        bare = checked("the atoms", atoms.numbers, atoms.positions, None)
        smiles = None if self._bonds is None else self._bonds.assign(bare.atomic_numbers, bare.coords, bare.where)
        geometry = replace(bare, smiles=smiles)
        if self._last is None or self._last.molecule != geometry.molecule:
            prepared = self._model.prepare(geometry.atomic_numbers, smiles, geometry.where)
            predict_molecule(self._model, prepared, [geometry])  # names what the model cannot evaluate
            evaluate = self._model.potential.bind(collate([prepared.conformers(geometry.coords[None])]))
            self._last = _LastMolecule(geometry.molecule, prepared, evaluate)
        return self._last


class _LastMolecule(NamedTuple):
    """The molecule of the last call (`Geometry.molecule`), as the model prepared it, and the potential bound to it."""

    molecule: tuple[str | None, bytes]
    prepared: PreparedMolecule
    evaluate: Callable[[Tensor], Prediction]
