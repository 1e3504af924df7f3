"""A SMIRNOFF force field opened to be used, with the posterior and the charges that its fit left beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import read_smiles
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError
from pesfit.data.topology import ForceField
from pesfit.parameterize.charges import ChargeAssigner
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.patterns import Patterns
from pesfit.params.preparation import ChargeMethod
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.posterior import SmirnoffPosterior
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.smirnoff.trained_charges import TrainedCharges
from pesfit.uncertainty.calibration import Calibration

FORCE_FIELD_FILE, POSTERIOR_FILE, CHARGES_FILE = "force-field.offxml", "posterior.npz", "charges.csv"
FIT = "fit"
"""`charge_method` of molecules whose charges were trained."""
CHARGE_METHODS: tuple[ChargeMethod, ...] = ("nagl", "sqm")
"""What charges come from by default: as in stage 03, but for those that come with data sets."""


@dataclass(frozen=True, eq=False)
class LeftByFit:
    """What a fit leaves beside its force field.

    Attributes:
        posterior: of the parameters; None where there is none.
        trained: charges of the fit's molecules; None where they were not trained.
        calibration: of the posterior; None where there is none.
    """

    posterior: SmirnoffPosterior | None = None
    trained: TrainedCharges | None = None
    calibration: Calibration | None = None

    @classmethod
    def read(cls, path: Path, force_field: ForceField) -> LeftByFit:
        """Read what lies beside an .offxml, and belongs to it where that has the name that the pipeline gives it.

        Raises:
            DataError: where files are damaged, of another format version, or belong to another force field.
        """
        if path.name != FORCE_FIELD_FILE:
            return cls()
        posterior, charges = (path.with_name(name) for name in (POSTERIOR_FILE, CHARGES_FILE))
        return cls(
            SmirnoffPosterior.read(posterior, force_field) if posterior.exists() else None,
            TrainedCharges(charges) if charges.exists() else None,
            Calibration.read(path.parent) if posterior.exists() else None,
        )


class SmirnoffModel(Model):
    """A SMIRNOFF force field, with what its fit left beside it.

    Args:
        name: as it was given.
        force_field: its numbers.
        patterns: what is matched on molecules.
        charge_methods: tried in this order.
        fit: charges that it trained come before the methods.
    """

    needs_bonds = True
    has_total_energies = False

    def __init__(
        self,
        name: str,
        force_field: ForceField,
        patterns: Patterns,
        charge_methods: tuple[ChargeMethod, ...],
        fit: LeftByFit,
    ) -> None:
        super().__init__(name, SmirnoffPotential(force_field))
        self._setup = Setup(patterns, ("dataset", *charge_methods))
        self._fit = fit
        self.has_posterior = fit.posterior is not None
        self.calibration = fit.calibration

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Assign parameters and charges; see `Model.prepare`."""
        if smiles is None:
            raise DataError(
                f"{where} says nothing of bonds, which the SMIRNOFF force field {self.name} needs; give an SDF file, or the SMILES of the "
                "molecule beside the xyz file"
            )
        total_charge = int(Chem.GetFormalCharge(read_smiles(smiles)))
        trained = None if self._fit.trained is None else self._fit.trained.of(smiles)
        given = charges if trained is None else trained
        request = Request(
            smiles, atomic_numbers.astype(np.int32).tobytes(), None if given is None else given.tobytes(), total_charge
        )
        topology = parameterize(self._setup, request)
        if isinstance(topology, Failure):
            raise MoleculeError(f"{where}: {self.name} cannot be assigned: {topology.message}")
        method = topology.charge_method if trained is None else FIT
        posterior = None if self._fit.posterior is None else self._fit.posterior.of(topology)
        return PreparedMolecule(
            atomic_numbers, smiles, total_charge, Terms.from_topology(topology), method, self.calibrated(posterior)
        )


def open_smirnoff(name: str, path: Path, charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS) -> SmirnoffModel:
    """Open a force field.

    Args:
        name: what messages call it.
        path: of the .offxml.
        charge_methods: where partial charges come from; tried in this order.

    Raises:
        DataError: where what the fit left beside it is damaged or of another format version.
        ForceFieldError: where it cannot be read or is not supported.
        ParamsError: where a charge method is not known.
    """
    methods = tuple(charge_methods)
    ChargeAssigner(methods).check()
    force_field, patterns = read_force_field(str(path))
    return SmirnoffModel(name, force_field, patterns, methods, LeftByFit.read(path, force_field))
