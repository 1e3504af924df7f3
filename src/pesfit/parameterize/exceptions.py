"""Reasons why one molecule cannot be parameterized. Where the OpenFF toolkit or Interchange has a class for it, the name is theirs."""

from __future__ import annotations

from pesfit.core.exceptions import MoleculeError


class EmptySmilesError(MoleculeError):
    """The SMILES has no atoms."""


class SMILESParseError(MoleculeError):
    """RDKit cannot read the SMILES."""


class RemapIndexError(MoleculeError):
    """The map numbers are not 1 to n, each once."""


class ImplicitHydrogensError(MoleculeError):
    """Hydrogens are implied, so that they have no coordinates."""


class MultipleFragmentsError(MoleculeError):
    """The SMILES is more than one molecule."""


class AtomValenceError(MoleculeError):
    """An atom has more bonds than its element and charge allow."""


class KekulizeError(MoleculeError):
    """Single and double bonds cannot be placed in a ring that is written as aromatic."""


class RadicalsNotSupportedError(MoleculeError):
    """An atom of the s or p block has unpaired electrons."""


class UndefinedStereochemistryError(MoleculeError):
    """A stereocenter or a double bond is drawn without its configuration."""


class UnassignedVdWError(MoleculeError):
    """An atom matches no van der Waals parameter."""


class UnassignedBondError(MoleculeError):
    """A bond matches no parameter."""


class UnassignedAngleError(MoleculeError):
    """An angle matches no parameter."""


class UnassignedTorsionError(MoleculeError):
    """A torsion matches no parameter."""


class ConstrainedMoleculeError(MoleculeError):
    """The force field would hold a distance in the molecule fixed."""


class NonIntegralMoleculeChargeError(MoleculeError):
    """Partial charges do not add up to the total charge."""


class NonFiniteChargeError(MoleculeError):
    """A partial charge is not a finite number."""


class TotalChargeError(MoleculeError):
    """The total charge of the data set is not the sum of formal charges."""


class ChargeMethodError(MoleculeError):
    """No method that may be used gives the charges that are needed."""


class ElementsError(MoleculeError):
    """The atoms of the SMILES are not those of the data set, or in another order."""
