"""A SMIRNOFF force field opened to be used, with the posterior of its fit.

Molecules that stage 03 has parameterized are not parameterized again: what it stored is indices into the tables of the force field that
the fit started from, and a fitted force field has the same patterns in the same order, possibly with more periodicities in its torsions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from pesfit.uncertainty.calibration import Calibration

FORCE_FIELD_FILE, POSTERIOR_FILE = "force-field.offxml", "posterior.npz"
CHARGE_METHODS: tuple[ChargeMethod, ...] = ("nagl", "sqm")
"""Origin of charges by default: as in stage 03, but for those that come with data sets."""


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
    """A SMIRNOFF force field, with the posterior of its fit.

    Args:
        name: as it was given.
        force_field: its numbers.
        setup: patterns and charge methods for molecules that are not stored.
        posterior: of the parameters; None where there is none.
        stored: topologies of molecules that are parameterized already.

    Attributes:
        force_field: its numbers.
    """

    needs_bonds = True
    has_total_energies = False

    def __init__(
        self,
        name: str,
        force_field: ForceField,
        setup: Setup,
        posterior: SmirnoffPosterior | None = None,
        stored: StoredTopologies | None = None,
    ) -> None:
        super().__init__(name, SmirnoffPotential(force_field))
        self.force_field = force_field
        self._setup, self._posterior, self._stored = setup, posterior, stored
        self.has_posterior = posterior is not None

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Assign parameters and charges; see `Model.prepare`."""
        if smiles is None:
            raise DataError(
                f"{where} has no bonds, which the SMIRNOFF force field {self.name} needs; give an SDF file, or the SMILES of the "
                "molecule beside the xyz file"
            )
        topology = self.topology(atomic_numbers, smiles, where, charges)
        posterior = None if self._posterior is None else self._posterior.of(topology)
        return PreparedMolecule(
            atomic_numbers,
            smiles,
            int(Chem.GetFormalCharge(read_smiles(smiles))),
            Terms.from_topology(topology),
            topology.charge_method,
            self.calibrated(posterior),
        )

    def topology(self, atomic_numbers: IntArray, smiles: str, where: str, charges: FloatArray | None = None) -> Topology:
        """Assign parameters and charges; arguments and errors as of `prepare`."""
        stored = None if self._stored is None or charges is None else self._stored.find(smiles, charges)
        if stored is not None and stored.n_atoms == len(atomic_numbers):
            return stored
        elements = atomic_numbers.astype(np.int32).tobytes()
        total_charge = int(Chem.GetFormalCharge(read_smiles(smiles)))
        request = Request(smiles, elements, None if charges is None else charges.tobytes(), total_charge)
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
    """Open a force field, with the posterior and its calibration beside it where it has the name that the pipeline gives it.

    Args:
        name: of the model in messages.
        path: of the .offxml.
        charge_methods: where partial charges come from; tried in this order. Charges that a fit trained come before them.
        stored: output of stage 03; molecules that it has, with the charges that are asked for, are not parameterized again.

    Raises:
        DataError: where the posterior is damaged, of another format version, or belongs to another force field.
        ForceFieldError: where it cannot be read or is not supported.
        ParamsError: where a charge method is not known.
    """
    methods = tuple(charge_methods)
    ChargeAssigner(methods).check()
    force_field, patterns = read_force_field(str(path))
    has_posterior = path.name == FORCE_FIELD_FILE and path.with_name(POSTERIOR_FILE).exists()
    posterior = SmirnoffPosterior.read(path.with_name(POSTERIOR_FILE), force_field) if has_posterior else None
    has_trained_charges = any(entry.is_fitted for entry in patterns.library_charges)
    known = None if stored is None or has_trained_charges else StoredTopologies.of(stored, force_field)
    model = SmirnoffModel(name, force_field, Setup(patterns, ("dataset", *methods)), posterior, known)
    if has_posterior:
        model.calibration = Calibration.read(path.parent)
    return model
