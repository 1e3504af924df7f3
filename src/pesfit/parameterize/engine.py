"""Parameterize one molecule, in a worker process that keeps what it compiled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import elements_of
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import Failure, MoleculeError, PesfitError
from pesfit.data.topology import Topology
from pesfit.parameterize import exceptions
from pesfit.parameterize.assign import Assigner, Patterns
from pesfit.parameterize.charges import ChargeAssigner, ForceFieldCharges, with_exact_sum
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.params.preparation import ChargeMethod

STAGE = "parameterize"

FORCE_FIELD_CHARGES = "force-field"
"""`charge_method` of molecules whose charges are library charges or charge increments of the force field."""


@dataclass(frozen=True)
class Request:
    """A molecule to be parameterized, equal for all records of it; hashable and small.

    Attributes:
        smiles: mapped.
        elements: bytes of the atomic numbers, int32.
        charges: bytes of the data set's charges [e], float64; None where it has none or they are not asked for.
        total_charge: [e].
    """

    smiles: str
    elements: bytes
    charges: bytes | None
    total_charge: int


@dataclass(frozen=True)
class Setup:
    """A force field and charge methods for every worker; hashable, so that a worker compiles it once.

    Attributes:
        patterns: of the force field.
        charge_methods: `charges.methods` of the parameters.
    """

    patterns: Patterns
    charge_methods: tuple[ChargeMethod, ...]


def parameterize(setup: Setup, request: Request) -> Topology | Failure:
    """Assign parameters and charges to one molecule.

    Returns:
        Its topology, or why there is none, with an empty id.

    Raises:
        PesfitError: what concerns all molecules, such as a file of the charge model that cannot be read.
    """
    try:
        return _engine(setup).parameterize(request)
    except MoleculeError as error:
        return Failure.from_exception("", STAGE, error)
    except PesfitError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever RDKit or a charge program raises concerns this molecule alone
        return Failure.from_exception("", STAGE, error)


@lru_cache(maxsize=1)
def _engine(setup: Setup) -> _Engine:
    return _Engine(setup)


class _Engine:
    def __init__(self, setup: Setup) -> None:
        self._assigner = Assigner(setup.patterns)
        self._force_field_charges = ForceFieldCharges(setup.patterns)
        self._methods = setup.charge_methods
        self._charges = ChargeAssigner(setup.charge_methods)

    def parameterize(self, request: Request) -> Topology:
        molecule = read_mapped_smiles(request.smiles)
        _check_elements(molecule, request)
        total_charge = Chem.GetFormalCharge(molecule)
        if total_charge != request.total_charge:
            raise exceptions.TotalChargeError(
                f"formal charges add up to {total_charge} e, the data set has {request.total_charge} e: {request.smiles}"
            )
        terms = self._assigner.assign(molecule)
        charges, method = self._assign_charges(molecule, request)
        ends = np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()], dtype=np.int32)
        return Topology(
            smiles=request.smiles,
            connectivity=ends.reshape(-1, 2),
            bonds=terms["Bonds"].atoms,
            bond_parameters=terms["Bonds"].parameters,
            angles=terms["Angles"].atoms,
            angle_parameters=terms["Angles"].parameters,
            propers=terms["ProperTorsions"].atoms,
            proper_parameters=terms["ProperTorsions"].parameters,
            impropers=terms["ImproperTorsions"].atoms,
            improper_parameters=terms["ImproperTorsions"].parameters,
            vdw_parameters=terms["vdW"].parameters,
            charges=with_exact_sum(charges, total_charge),
            charge_method=method,
        )

    def _assign_charges(self, molecule: Chem.Mol, request: Request) -> tuple[FloatArray, str]:
        """Return charges [e], shape (n_atoms,), and where they come from."""
        fitted = self._force_field_charges.fitted(molecule)
        if fitted is not None:
            return fitted, FORCE_FIELD_CHARGES
        given = None if request.charges is None else np.frombuffer(request.charges, dtype=np.float64)
        if given is None or self._methods[0] != "dataset":
            own = self._force_field_charges.assign(molecule, lambda base: self._base_charges(molecule, base))
            if own is not None:
                return own, FORCE_FIELD_CHARGES
        found = self._charges.assign(molecule, given, request.total_charge)
        return found.charges, found.method

    def _base_charges(self, molecule: Chem.Mol, base: str) -> FloatArray:
        """Return the charges that a force field's charge increments are added to."""
        methods: tuple[ChargeMethod, ...] = ("gasteiger",)
        if base != "gasteiger":
            methods = tuple(method for method in self._methods if method in ("nagl", "sqm"))
        if not methods:
            raise exceptions.ChargeMethodError(
                f"the force field adds charge increments to {base} charges, and charges.methods = {list(self._methods)} has neither "
                "nagl nor sqm"
            )
        return ChargeAssigner(methods).assign(molecule, None, Chem.GetFormalCharge(molecule)).charges


def _check_elements(molecule: Chem.Mol, request: Request) -> None:
    expected: IntArray = np.frombuffer(request.elements, dtype=np.int32)
    found = elements_of(molecule)
    if found.shape != expected.shape or (found != expected).any():
        raise exceptions.ElementsError(
            f"by map number the elements are {found.tolist()}, the data set has {expected.tolist()}: {request.smiles}"
        )
