"""A SMIRNOFF force field opened to be used, with the posterior and the charges that its fit left beside it.

Molecules that stage 03 has parameterized are not parameterized again: what it stored is indices into the tables of the force field that
the fit started from, and a fitted force field has the same patterns in the same order, possibly with more periodicities in its torsions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import read_smiles
from pesfit.core.arrays import FloatArray, IntArray, LongArray
from pesfit.core.exceptions import DataError, Failure, MoleculeError
from pesfit.data.topology import COLUMNS, ForceField, ParameterizedSet, Topology
from pesfit.parameterize.charges import ChargeAssigner
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
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


class StoredTopologies:
    """Topologies that stage 03 stored, with indices into the tables of a force field that was fitted from its.

    Args:
        stored: output of stage 03.
        force_field: with the same patterns in the same order (`of` checks it).
    """

    def __init__(self, stored: ParameterizedSet, force_field: ForceField) -> None:
        self._stored = stored
        before, after = (_rows_of_patterns(of, "ProperTorsions") for of in (stored.force_field, force_field))
        self._starts, self._new_starts = before, after
        self._counts = np.diff(np.append(after, len(force_field.tables["ProperTorsions"].smirks)))
        self._numbers: dict[str, list[int]] = {}
        for number, smiles in enumerate(stored.smiles):
            self._numbers.setdefault(smiles, []).append(number)

    @classmethod
    def of(cls, stored: ParameterizedSet, force_field: ForceField) -> Self | None:
        """Return what is stored for a force field; None where it has other patterns."""
        for handler in COLUMNS:
            patterns = []
            for of in (stored.force_field, force_field):
                table, rows = of.tables[handler], _rows_of_patterns(of, handler)
                patterns.append([table.smirks[row] for row in rows.tolist()])
                if handler != "ProperTorsions":
                    patterns[-1].append(str(len(table.smirks)))
            if patterns[0] != patterns[1]:
                return None
        return cls(stored, force_field)

    def find(self, smiles: str, charges: FloatArray) -> Topology | None:
        """Return the topology of a mapped SMILES that has these very charges [e], shape (n_atoms,); None where there is none."""
        for number in self._numbers.get(smiles, ()):
            topology = self._stored[number]
            if np.array_equal(topology.charges, charges):
                return self._with_all_periodicities(topology)
        return None

    def _with_all_periodicities(self, topology: Topology) -> Topology:
        """Give each torsion the rows that its pattern has in the fitted force field."""
        if np.array_equal(self._starts, self._new_starts):
            return topology
        first = np.flatnonzero(np.isin(topology.proper_parameters, self._starts))
        pattern = np.searchsorted(self._starts, topology.proper_parameters[first])
        counts = self._counts[pattern]
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = (np.repeat(self._new_starts[pattern], counts) + place).astype(np.int32)
        return replace(topology, propers=np.repeat(topology.propers[first], counts, axis=0), proper_parameters=rows)


def _rows_of_patterns(force_field: ForceField, handler: str) -> LongArray:
    """Return the first row of each pattern, shape (n_patterns,)."""
    return np.flatnonzero(force_field.tables[handler].mult == 0)


class SmirnoffModel(Model):
    """A SMIRNOFF force field, with what its fit left beside it.

    Args:
        name: as it was given.
        force_field: its numbers.
        setup: what is matched on molecules that are not stored, and where their charges come from.
        fit: charges that it trained come before the methods.
        stored: topologies of molecules that are parameterized already.
    """

    needs_bonds = True
    has_total_energies = False

    def __init__(
        self,
        name: str,
        force_field: ForceField,
        setup: Setup,
        fit: LeftByFit,
        stored: StoredTopologies | None = None,
    ) -> None:
        super().__init__(name, SmirnoffPotential(force_field))
        self._setup, self._fit, self._stored = setup, fit, stored
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
        topology = None if self._stored is None or given is None else self._stored.find(smiles, given)
        if topology is None or topology.n_atoms != len(atomic_numbers):
            elements, given_bytes = atomic_numbers.astype(np.int32).tobytes(), None if given is None else given.tobytes()
            topology = self._parameterized(Request(smiles, elements, given_bytes, total_charge), where)
        method = topology.charge_method if trained is None else FIT
        posterior = None if self._fit.posterior is None else self._fit.posterior.of(topology)
        return PreparedMolecule(
            atomic_numbers, smiles, total_charge, Terms.from_topology(topology), method, self.calibrated(posterior)
        )

    def _parameterized(self, request: Request, where: str) -> Topology:
        found = parameterize(self._setup, request)
        if isinstance(found, Failure):
            raise MoleculeError(f"{where}: {self.name} cannot be assigned: {found.message}")
        return found


def open_smirnoff(
    name: str,
    path: Path,
    charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS,
    stored: ParameterizedSet | None = None,
) -> SmirnoffModel:
    """Open a force field.

    Args:
        name: what messages call it.
        path: of the .offxml.
        charge_methods: where partial charges come from; tried in this order.
        stored: output of stage 03; molecules that it has, with the charges that are asked for, are not parameterized again.

    Raises:
        DataError: where what the fit left beside it is damaged or of another format version.
        ForceFieldError: where it cannot be read or is not supported.
        ParamsError: where a charge method is not known.
    """
    methods = tuple(charge_methods)
    ChargeAssigner(methods).check()
    force_field, patterns = read_force_field(str(path))
    known = None if stored is None else StoredTopologies.of(stored, force_field)
    setup = Setup(patterns, ("dataset", *methods))
    return SmirnoffModel(name, force_field, setup, LeftByFit.read(path, force_field), known)
