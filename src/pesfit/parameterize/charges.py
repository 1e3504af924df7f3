"""Partial charges of one molecule: those of the force field itself, or those by the first of several methods that works.

Library charges are taken where their patterns cover every atom; else charge increments, where the force field has them; else the methods.
Matches are counted as Interchange counts them: of the patterns that tag the same set of atoms the last one holds, and where library
charges of different sets overlap, the later set holds. In the end charges add up to the total charge exactly, in any order of summation.
"""

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
from pesfit.parameterize.assign import AtomTuple, Pattern, Patterns, TaggedCharges
from pesfit.parameterize.exceptions import (
    NonFiniteChargeError,
    NonIntegralMoleculeChargeError,
)
from pesfit.parameterize.nagl import nagl_charges
from pesfit.parameterize.nagl_file import check_model, model_path
from pesfit.params.preparation import ChargeMethod

MAX_RESIDUAL = 0.01
"""[e] by which partial charges may miss the total charge, as in Interchange; a smaller residual is rounding and is spread evenly."""
MAX_RESIDUAL_PER_ATOM_SQM = 0.0006
"""[e] the same for each atom of a large molecule with charges from sqm, which prints three decimals."""
_GRID = 2.0**-46
"""[e], 1.4e-14. Sums of multiples of it below 128 e have no rounding error in float64."""
BaseCharges = Callable[[str], FloatArray]
"""Charges [e], shape (n_atoms,), by a method other than `zeros` and `formal_charge`."""


class ChargeCalculationError(MoleculeError):
    """No method gave charges; the message names the reason of each."""


@dataclass(frozen=True, eq=False)
class AssignedCharges:
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

    def assign(self, mol: Chem.Mol, dataset_charges: FloatArray | None, total_charge: int) -> AssignedCharges:
        """Return charges by the first method that works.

        A method that does not apply (no charges in the data set, no AmberTools on PATH) is passed over. One that fails, gives something
        that is not a number, or charges whose sum misses the total charge by more than `MAX_RESIDUAL`, is remembered and the next one is
        tried. A smaller residual is spread evenly over the atoms.

        Args:
            mol: one connected molecule as `read_mapped_smiles` builds it.
            dataset_charges: [e], shape (n_atoms,), in the order of the molecule's atoms; None where the data set has none.
            total_charge: [e], the sum of the formal charges.

        Raises:
            ChargeCalculationError: if no method works, with the reason of each.
            DataError: if the model of `nagl` is missing or is not the published one.
        """
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
                return AssignedCharges(charges, method, tuple(failed))
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


class ForceFieldCharges:
    """The charges in a force field, compiled once.

    Args:
        patterns: what `read_force_field` returned.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._library = [(Pattern(entry.smirks), entry) for entry in patterns.library_charges]
        self._fitted = [(pattern, entry) for pattern, entry in self._library if entry.is_fitted]
        self._increments = [(Pattern(entry.smirks), entry) for entry in patterns.increments]
        self._base = patterns.increment_base

    def fitted(self, molecule: Chem.Mol) -> FloatArray | None:
        """Return the charges that a fit trained for the molecule [e], shape (n_atoms,), or None where it was not in a fit of charges."""
        return _library_charges(molecule, self._fitted)

    def assign(self, molecule: Chem.Mol, base_charges: BaseCharges) -> FloatArray | None:
        """Return the molecule's charges, or None where the force field leaves them to another method.

        Args:
            molecule: as `read_mapped_smiles` builds it.
            base_charges: called where the force field puts increments on charges that have to be computed.

        Returns:
            [e], shape (n_atoms,).
        """
        library = _library_charges(molecule, self._library)
        if library is not None:
            return library
        if self._base is None:
            return None
        if self._base == "zeros":
            # The toolkit makes what it computes add up to the total charge, zeros too.
            charges = np.full(molecule.GetNumAtoms(), Chem.GetFormalCharge(molecule) / molecule.GetNumAtoms())
        elif self._base == "formal_charge":
            charges = np.array([float(atom.GetFormalCharge()) for atom in molecule.GetAtoms()])
        else:
            charges = np.array(base_charges(self._base))
        for atoms, entry in _last_by_tags(molecule, self._increments).items():
            np.add.at(charges, list(atoms), entry.charges)
        return charges


def _library_charges(molecule: Chem.Mol, entries: list[tuple[Pattern, TaggedCharges]]) -> FloatArray | None:
    charges = np.full(molecule.GetNumAtoms(), np.nan)
    for atoms, entry in _last_by_set(molecule, entries).items():
        charges[list(atoms)] = entry.charges
    return None if np.isnan(charges).any() else charges


def _last_by_set(molecule: Chem.Mol, entries: list[tuple[Pattern, TaggedCharges]]) -> dict[AtomTuple, TaggedCharges]:
    """Return the entry of each tuple of tagged atoms: the last one for the tuple, and of tuples of one set of atoms the last.

    A dictionary keeps the place of a key's first entry, and "the last tuple" is by these places. Which of two symmetric tuples of
    one pattern is last thus depends on RDKit's order of matches, as it does in Interchange.
    """
    by_tuple: dict[AtomTuple, TaggedCharges] = {}
    for pattern, entry in entries:
        for atoms in pattern.matches(molecule):
            by_tuple[atoms] = entry
    by_set = {tuple(sorted(atoms)): atoms for atoms in by_tuple}
    return {atoms: by_tuple[atoms] for atoms in by_set.values()}


def _last_by_tags(molecule: Chem.Mol, entries: list[tuple[Pattern, TaggedCharges]]) -> dict[AtomTuple, TaggedCharges]:
    """Return the last entry that tags each set of atoms, by the atoms in the order of its tags."""
    by_set: dict[AtomTuple, tuple[AtomTuple, TaggedCharges]] = {}
    for pattern, entry in entries:
        for atoms in pattern.matches(molecule):
            by_set[tuple(sorted(atoms))] = (atoms, entry)
    return dict(by_set.values())


def with_exact_sum(charges: FloatArray, total_charge: int) -> FloatArray:
    """Spread what partial charges miss of the total charge evenly over the atoms.

    Charges are put on a grid of 2^-46 e, on which float64 adds without rounding: the sum is exact whatever its order. What cannot be
    spread evenly on the grid goes in single steps to the first atoms.

    Args:
        charges: [e], shape (n_atoms,).
        total_charge: [e].

    Returns:
        [e], shape (n_atoms,), each within `MAX_RESIDUAL` / n_atoms + 1.4e-14 e of what it was.

    Raises:
        NonFiniteChargeError: where a charge is not finite.
        NonIntegralMoleculeChargeError: where the sum is off by more than `MAX_RESIDUAL`.
    """
    if not np.isfinite(charges).all():
        atom = int(np.argmin(np.isfinite(charges)))
        raise NonFiniteChargeError(f"the partial charge of atom {atom + 1} is {charges[atom]}; a finite number is needed")
    missing = total_charge - float(np.sum(charges))
    if abs(missing) > MAX_RESIDUAL:
        raise NonIntegralMoleculeChargeError(
            f"partial charges add up to {np.sum(charges):.6f} e and formal charges to {total_charge} e; they may differ by "
            f"{MAX_RESIDUAL} e"
        )
    steps = np.rint((charges + missing / len(charges)) / _GRID).astype(np.int64)
    left = round(total_charge / _GRID) - int(steps.sum())
    every, first = divmod(left, len(steps))
    steps += every
    steps[:first] += 1
    return steps.astype(np.float64) * _GRID
