"""Energies and forces of geometries that a user gives, with standard deviations where the model has a posterior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pesfit.application.geometries import Geometry
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, PesfitError
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.uncertainty.standard_deviations import StandardDeviations


@dataclass(frozen=True)
class FrameDeviations:
    """Standard deviations of one conformer; what they mean, `uncertainty.standard_deviations.StandardDeviations` says.

    Attributes:
        energy: [kcal/mol].
        relative_energy: [kcal/mol].
        forces: [kcal/mol/Å], shape (n_atoms, 3).
        outside_domain: whether the model is less sure of an atom's force than on nearly all of its training data
            (`Calibration.domain_threshold`); None where it does not know.
    """

    energy: float
    relative_energy: float
    forces: FloatArray
    outside_domain: bool | None = None

    @classmethod
    def of(cls, model: Model, deviations: StandardDeviations, conformer: int) -> FrameDeviations:
        """Take those of one conformer."""
        threshold = None if model.calibration is None else model.calibration.domain_threshold
        return cls(
            float(deviations.energy[conformer]),
            float(deviations.relative_energy[conformer]),
            deviations.forces[conformer],
            None if threshold is None else bool(deviations.score[conformer] > threshold),
        )


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model says of one conformer.

    Attributes:
        geometry: the conformer.
        energy: [kcal/mol].
        relative_energy: [kcal/mol], minus that of the first conformer in an unbroken row of the same molecule.
        forces: [kcal/mol/Å], shape (n_atoms, 3).
        charges: partial charges, [e], shape (n_atoms,); None where the model has none.
        charge_method: where they come from; None where there are none.
        deviations: None where the model has no posterior.
    """

    geometry: Geometry
    energy: float
    relative_energy: float
    forces: FloatArray
    charges: FloatArray | None
    charge_method: str | None
    deviations: FrameDeviations | None


def predict(model: Model, geometries: Sequence[Geometry]) -> list[Predicted]:
    """Evaluate geometries; conformers of one molecule that follow one another are prepared and evaluated together.

    Raises:
        DataError: where the model lacks an element or needs bonds, two atoms coincide, or a result is not finite; names the geometry.
        MoleculeError: where a molecule cannot be parameterized.
    """
    found: list[Predicted] = []
    for conformers in _molecules(geometries):
        first = conformers[0]
        prepared = model.prepare(first.atomic_numbers, first.smiles, first.where)
        found += predict_molecule(model, prepared, conformers)
    return found


def _molecules(geometries: Sequence[Geometry]) -> Iterator[list[Geometry]]:
    start = 0
    for i, geometry in enumerate(geometries):
        if not geometry.is_same_molecule(geometries[start]):
            yield list(geometries[start:i])
            start = i
    if geometries:
        yield list(geometries[start:])


def predict_molecule(model: Model, prepared: PreparedMolecule, conformers: Sequence[Geometry]) -> list[Predicted]:
    """Evaluate conformers of one molecule that is prepared.

    Raises:
        DataError: where the model lacks an element, two atoms coincide, or a result is not finite; names the geometry.
    """
    coords = np.stack([geometry.coords for geometry in conformers])
    energies, forces = _evaluate(model, prepared, coords, conformers)
    deviations = None if prepared.uncertainty is None else prepared.uncertainty(coords)
    charges = None if prepared.terms is None else prepared.terms.charges.numpy()
    found = []
    for i, geometry in enumerate(conformers):
        of_frame = None if deviations is None else FrameDeviations.of(model, deviations, i)
        energy, relative = float(energies[i]), float(energies[i] - energies[0])
        found.append(Predicted(geometry, energy, relative, forces[i], charges, prepared.charge_method, of_frame))
    return found


def _evaluate(
    model: Model, prepared: PreparedMolecule, coords: FloatArray, conformers: Sequence[Geometry]
) -> tuple[FloatArray, FloatArray]:
    try:
        energies, forces = model.evaluate(prepared, coords)
    except CoincidentAtomsError as error:
        where = conformers[error.conformer or 0].where
        raise DataError(f"{where}: atoms {error.atoms[0]} and {error.atoms[1]} are at the same place") from error
    except PesfitError as error:
        raise DataError(f"{conformers[0].where}: {error}") from error
    for geometry, energy, of_atoms in zip(conformers, energies, forces, strict=True):
        if not (np.isfinite(energy) and np.isfinite(of_atoms).all()):
            raise DataError(f"{geometry.where}: {model.name} gives no finite energy and forces")
    return energies, forces
