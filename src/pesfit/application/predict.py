"""Energies and forces of geometries that a user gives, with standard deviations where the model has a posterior."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch

from pesfit.application.geometries import Geometry
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, ParamsError, PesfitError
from pesfit.potentials.interface import collate
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.uncertainty.standard_deviations import StandardDeviations


@dataclass(frozen=True)
class GeometryStd:
    """Standard deviations of one geometry (`uncertainty.standard_deviations.StandardDeviations`).

    Attributes:
        energy: [kcal/mol].
        relative_energy: [kcal/mol].
        forces: [kcal/mol/Å], shape (n_atoms, 3).
        outside_domain: whether the force on some atom is more uncertain than on nearly all of the training data
            (`Calibration.domain_threshold`); None where that is not known.
    """

    energy: float
    relative_energy: float
    forces: FloatArray
    outside_domain: bool | None = None

    @classmethod
    def of(cls, model: Model, found: StandardDeviations, conformer: int) -> GeometryStd:
        """Take those of one conformer."""
        threshold = None if model.calibration is None else model.calibration.domain_threshold
        return cls(
            float(found.energy[conformer]),
            float(found.relative_energy[conformer]),
            found.forces[conformer],
            None if threshold is None else bool(found.score[conformer] > threshold),
        )


@dataclass(frozen=True, eq=False)
class EvaluatedGeometry:
    """Energy and forces of one geometry.

    Attributes:
        geometry: the conformer.
        energy: [kcal/mol].
        relative_energy: [kcal/mol], minus that of the first of successive conformers of the same molecule.
        forces: [kcal/mol/Å], shape (n_atoms, 3).
        charges: partial charges, [e], shape (n_atoms,); None where the model has none.
        charge_method: where they come from; None where there are none.
        std: standard deviations; None where the model has no posterior.
        by_term: energy of each kind of SMIRNOFF term [kcal/mol]; empty where not asked for.
    """

    geometry: Geometry
    energy: float
    relative_energy: float
    forces: FloatArray
    charges: FloatArray | None
    charge_method: str | None
    std: GeometryStd | None
    by_term: Mapping[str, float]


def predict(model: Model, geometries: Sequence[Geometry], *, by_term: bool = False) -> list[EvaluatedGeometry]:
    """Evaluate geometries; successive conformers of one molecule are prepared and evaluated together.

    Args:
        model: any.
        geometries: of any molecules.
        by_term: evaluate the energy of each kind of SMIRNOFF term too.

    Raises:
        ParamsError: where `by_term` is asked of a model that is no SMIRNOFF force field.
        DataError: where the model lacks an element or needs bonds, two atoms coincide, or a result is not finite; names the geometry.
        MoleculeError: where a molecule cannot be parameterized.
    """
    if by_term and not isinstance(model.potential, SmirnoffPotential):
        raise ParamsError(f"--by-term: {model.name} is no SMIRNOFF force field, whose energy is a sum of terms")
    found: list[EvaluatedGeometry] = []
    for _, group in itertools.groupby(geometries, attrgetter("molecule")):
        conformers = list(group)
        first = conformers[0]
        prepared = model.prepare(first.atomic_numbers, first.smiles, first.where)
        found += predict_molecule(model, prepared, conformers, by_term=by_term)
    return found


def predict_molecule(
    model: Model, prepared: PreparedMolecule, conformers: Sequence[Geometry], *, by_term: bool = False
) -> list[EvaluatedGeometry]:
    """Evaluate conformers of one molecule that is prepared.

    Raises:
        DataError: where the model lacks an element, two atoms coincide, or a result is not finite; names the geometry.
    """
    coords = np.stack([geometry.coords for geometry in conformers])
    energies, forces = _evaluate(model, prepared, coords, conformers)
    found = None if prepared.uncertainty is None else prepared.uncertainty(coords)
    charges = None if prepared.terms is None else prepared.terms.charges.numpy()
    return [
        EvaluatedGeometry(
            geometry=geometry,
            energy=float(energies[i]),
            relative_energy=float(energies[i] - energies[0]),
            forces=forces[i],
            charges=charges,
            charge_method=prepared.charge_method,
            std=None if found is None else GeometryStd.of(model, found, i),
            by_term=_by_term(model, prepared, coords[i]) if by_term else {},
        )
        for i, geometry in enumerate(conformers)
    ]


def _by_term(model: Model, prepared: PreparedMolecule, coords: FloatArray) -> dict[str, float]:
    if not isinstance(model.potential, SmirnoffPotential):
        return {}
    with torch.no_grad():
        terms = model.potential.decompose(collate([prepared.conformers(coords[None])]))
    return {handler: float(term.energy[0]) for handler, term in terms.items()}


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
