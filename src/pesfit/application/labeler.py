"""Labels and uncertainties for rows of data sets, from a model that each worker process opens for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError, PesfitError
from pesfit.data.dataset import Record
from pesfit.models.open import open_gfn2, open_model
from pesfit.params.preparation import ChargeMethod
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.smirnoff.model import CHARGE_METHODS

GFN2 = "gfn2"
"""Name of GFN2-xTB itself, which needs no file."""
STAGE = "label"
"""`stage` of failures."""


@dataclass(frozen=True)
class Labeler:
    """A model by name, which worker processes open.

    Attributes:
        name: `gfn2`, or what `open_model` takes.
        charge_methods: where SMIRNOFF takes partial charges from that rows do not bring, tried in this order.
    """

    name: str
    charge_methods: tuple[ChargeMethod, ...] = CHARGE_METHODS

    @property
    def level_of_theory(self) -> str:
        """Level of theory of its labels: `GFN2-xTB`, or `pesfit` and the model's name."""
        return LEVEL_OF_THEORY if self.name == GFN2 else f"pesfit {self.name}"

    def open(self) -> Model:
        """Open the model anew, and keep it for the rows that follow.

        Raises:
            DataError: as `open_model`; also ForceFieldError and ParamsError.
        """
        _opened.cache_clear()
        _prepared.cache_clear()
        return _opened(self)


@dataclass(frozen=True, eq=False)
class RelabeledRow:
    """A row with new labels.

    Attributes:
        record: the conformers that have finite ones; None where there are none.
        failure: the reason why the row, or some of its conformers, are left out; None where nothing is.
        n_left_out: conformers that are left out.
    """

    record: Record | None
    failure: Failure | None = None
    n_left_out: int = 0


def label(labeler: Labeler, record: Record) -> RelabeledRow:
    """Replace a row's energies and forces by those of a model."""
    try:
        prepared, model = _prepare(labeler, record), _opened(labeler)

        def energy_and_forces(coords: FloatArray) -> FloatArray:
            energy, forces = model.evaluate(prepared, coords)
            return np.column_stack([energy, forces.reshape(len(coords), -1)])

        values, problem = _evaluate(energy_and_forces, record.coords, 1 + 3 * record.n_atoms)
    except PesfitError as error:
        return RelabeledRow(None, Failure.from_exception(record.id, STAGE, error), record.n_conformers)
    finite = np.isfinite(values).all(axis=1)
    kept, lost = np.flatnonzero(finite), np.flatnonzero(~finite)
    failure = _left_out(labeler, record, lost.tolist(), problem) if len(lost) else None
    labeled = replace(record, energy=values[:, 0], forces=values[:, 1:].reshape(record.coords.shape))
    return RelabeledRow(labeled.select(kept) if len(kept) else None, failure, len(lost))


def score(labeler: Labeler, record: Record) -> FloatArray | Failure:
    """Return `StandardDeviations.score` of each conformer [kcal/mol/Å], shape (n_conformers,), NaN where the model has none."""
    try:
        uncertainty = _prepare(labeler, record).uncertainty
        if uncertainty is None:
            raise DataError(f"{labeler.name} has no posterior, and so no standard deviations")
        values, _ = _evaluate(lambda coords: uncertainty(coords).score[:, None], record.coords, 1)
    except PesfitError as error:
        return Failure.from_exception(record.id, STAGE, error)
    return values[:, 0]


def _evaluate(function: Callable[[FloatArray], FloatArray], coords: FloatArray, width: int) -> tuple[FloatArray, str]:
    """Evaluate conformers together, or one by one where the model refuses one of them (two atoms at the same place).

    Returns:
        Numbers for each conformer, NaN where there are none, shape (n_conformers, width), and the first reason: the end of a sentence.
    """
    values = np.full((len(coords), width), np.nan)
    problem = ""
    usable = np.flatnonzero(np.isfinite(coords).all(axis=(1, 2)))
    try:
        if len(usable):
            values[usable] = function(coords[usable])
    except MoleculeError:
        for one in usable:
            try:
                values[one] = function(coords[one : one + 1])[0]
            except CoincidentAtomsError as error:
                problem = problem or f": atoms {error.atoms[0]} and {error.atoms[1]} are at the same place"
            except MoleculeError as error:
                problem = problem or f": {error}"
    return values, problem


def _left_out(labeler: Labeler, record: Record, lost: list[int], why: str) -> Failure:
    frames = ", ".join(str(record.frame[i]) for i in lost[:10]) + (", ..." if len(lost) > 10 else "")
    message = f"{labeler.name} gives no finite energy and forces for {len(lost)} of {record.n_conformers} conformers (frames {frames})"
    return Failure.from_exception(record.id, STAGE, MoleculeError(f"{message}{why}"))


@lru_cache(maxsize=1)
def _opened(labeler: Labeler) -> Model:
    return open_gfn2() if labeler.name == GFN2 else open_model(labeler.name, labeler.charge_methods)


def _prepare(labeler: Labeler, record: Record) -> PreparedMolecule:
    charges = None if record.charges is None else record.charges.tobytes()
    numbers = record.atomic_numbers.astype(np.int32).tobytes()
    return replace(_prepared(labeler, numbers, record.smiles, charges), total_charge=record.total_charge)


@lru_cache(maxsize=64)
def _prepared(labeler: Labeler, numbers: bytes, smiles: str | None, charges: bytes | None) -> PreparedMolecule:
    """Prepare a molecule once, however many rows it has."""
    return _opened(labeler).prepare(
        np.frombuffer(numbers, dtype=np.int32),
        smiles,
        "a row without SMILES" if smiles is None else smiles,
        None if charges is None else np.frombuffer(charges, dtype=np.float64),
    )
