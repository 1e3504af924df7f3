"""Partial charges of one molecule, by the first of several methods that works."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdPartialCharges

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError, ParamsError
from pesfit.parameterize import sqm
from pesfit.parameterize.errors import ImplicitHydrogensError, MultipleFragmentsError, TotalChargeError
from pesfit.parameterize.nagl import nagl_charges
from pesfit.parameterize.nagl_file import check_model, model_path
from pesfit.params.preparation import ChargeMethod

MAX_RESIDUAL = 0.01
"""[e] by how much the sum of charges may miss the total charge before they are taken for another molecule's or another ion's; what
Interchange tolerates. Less than that is rounding, and is spread evenly."""

MAX_RESIDUAL_PER_ATOM_SQM = 0.0006
"""[e] the same for each atom of a large molecule with charges from sqm, which prints three decimals."""


class ChargeCalculationError(MoleculeError):
    """No method gave charges; the message says what each said."""


@dataclass(frozen=True, eq=False)
class Charges:
    """Partial charges and where they come from.

    Attributes:
        charges: [e], shape (n_atoms,); their sum is the total charge to within the rounding of 64-bit arithmetic.
        method: the one that gave them.
        failed: what the methods tried before it said, such as `dataset: charge 3 is nan`; empty where the first applicable one worked.
    """

    charges: FloatArray
    method: ChargeMethod
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChargeAssigner:
    """Tries methods in order. It holds names alone, so it can be sent to worker processes; models are loaded where they are used.

    Attributes:
        methods: of `dataset`, `nagl`, `sqm`, `gasteiger`; at least one.
    """

    methods: tuple[ChargeMethod, ...]

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ParamsError: naming the one that is not known.
        """
        known = get_args(ChargeMethod)
        for method in self.methods:
            if method not in known:
                raise ParamsError(f"charges.methods: {method!r} is not known; expected some of {', '.join(known)}")
        if not self.methods:
            raise ParamsError(f"charges.methods is empty; expected some of {', '.join(known)}")

    def check(self) -> None:
        """Check, before work starts, that what the methods need is there.

        Raises:
            DataError: if `nagl` is asked for and its model is missing or is not the published one.
            ParamsError: if `sqm` alone is asked for and AmberTools is not on PATH.
        """
        if "nagl" in self.methods:
            check_model(model_path())
        if self.methods == ("sqm",) and sqm.missing_programs():
            raise ParamsError(
                f"charges.methods asks for sqm alone, but AmberTools' {' and '.join(sqm.missing_programs())} not found on PATH"
            )

    def assign(self, mol: Chem.Mol, dataset_charges: FloatArray | None, total_charge: int) -> Charges:
        """Return charges by the first method that works.

        A method that does not apply (no charges in the data set, no AmberTools on PATH) is passed over. One that fails, gives something
        that is not a number, or charges whose sum misses the total charge by more than `MAX_RESIDUAL`, is remembered and the next one is
        tried. A smaller residual is spread evenly over the atoms.

        Args:
            mol: one connected molecule, hydrogens explicit, formal charges and stereochemistry assigned.
            dataset_charges: [e], shape (n_atoms,), in the order of the molecule's atoms; None where the data set has none.
            total_charge: [e].

        Raises:
            ChargeCalculationError: if no method works, with what each said.
            TotalChargeError: if the total charge is not the sum of the formal charges.
            MultipleFragmentsError: if the molecule is not connected.
            ImplicitHydrogensError: if hydrogens are implied.
            DataError: if the model of `nagl` is missing or is not the published one.
        """
        _check_molecule(mol, total_charge)
        failed: list[str] = []
        passed_over: list[str] = []
        for method in self.methods:
            calculate = _calculation(method, mol, dataset_charges, total_charge)
            if calculate is None:
                passed_over.append(_why_not_applicable(method))
                continue
            try:
                charges = _balanced(calculate(), total_charge, mol.GetNumAtoms(), method)
            except MoleculeError as error:
                failed.append(f"{method}: {error}")
            else:
                return Charges(charges, method, tuple(failed))
        raise ChargeCalculationError(f"no charges; {'; '.join([*failed, *passed_over])}")


def _calculation(
    method: ChargeMethod, mol: Chem.Mol, dataset_charges: FloatArray | None, total_charge: int
) -> Callable[[], FloatArray] | None:
    """Return what computes the charges, or None where the method does not apply."""
    if method == "dataset":
        return None if dataset_charges is None else lambda: np.array(dataset_charges, dtype=np.float64)
    if method == "nagl":
        return lambda: nagl_charges(mol)
    if method == "sqm":
        return None if sqm.missing_programs() else lambda: sqm.sqm_charges(mol, total_charge)
    return lambda: _gasteiger_charges(mol)


def _why_not_applicable(method: ChargeMethod) -> str:
    if method == "sqm":
        return f"sqm: AmberTools' {' and '.join(sqm.missing_programs())} not found on PATH"
    return f"{method}: the data set has none"


def _check_molecule(mol: Chem.Mol, total_charge: int) -> None:
    n_fragments = len(Chem.GetMolFrags(mol))
    if n_fragments != 1:
        raise MultipleFragmentsError(f"the molecule consists of {n_fragments} fragments, expected 1")
    for index, atom in enumerate(mol.GetAtoms()):
        if atom.GetTotalNumHs():
            raise ImplicitHydrogensError(
                f"{atom.GetTotalNumHs()} hydrogens on {atom.GetSymbol()} (atom {index}) are not atoms of their own"
            )
    formal = Chem.GetFormalCharge(mol)
    if formal != total_charge:
        raise TotalChargeError(f"total charge {total_charge} e, but the formal charges add up to {formal} e")


def _balanced(charges: FloatArray, total_charge: int, n_atoms: int, method: ChargeMethod) -> FloatArray:
    """Return the charges with what their sum misses of the total charge spread evenly over the atoms."""
    if charges.shape != (n_atoms,):
        raise MoleculeError(f"charges have the shape {charges.shape}, expected ({n_atoms},)")
    if not np.isfinite(charges).all():
        first = int(np.flatnonzero(~np.isfinite(charges))[0])
        raise MoleculeError(f"charge {first} is {charges[first]}")
    residual = math.fsum(charges) - total_charge
    allowed = max(MAX_RESIDUAL, MAX_RESIDUAL_PER_ATOM_SQM * n_atoms) if method == "sqm" else MAX_RESIDUAL
    if abs(residual) > allowed:
        raise MoleculeError(f"charges add up to {math.fsum(charges):.6g} e, expected {total_charge} e to within {allowed:g} e")
    return charges - residual / n_atoms


def _gasteiger_charges(mol: Chem.Mol) -> FloatArray:
    """Return charges by partial equalization of orbital electronegativity (https://doi.org/10.1016/0040-4020(80)80168-2)."""
    copy = Chem.Mol(mol)
    try:
        rdPartialCharges.ComputeGasteigerCharges(copy, throwOnParamFailure=True)
    except ValueError as error:
        raise MoleculeError(f"RDKit has no Gasteiger parameters: {error}") from error
    return np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in copy.GetAtoms()])
