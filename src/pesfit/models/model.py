"""What the pipeline fitted, opened to be used: a potential, what it needs to know of a molecule, and its posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from rdkit import Chem

from pesfit.arrays import FloatArray, IntArray
from pesfit.errors import DataError, Failure, MoleculeError
from pesfit.fit.posterior import SmirnoffPosterior
from pesfit.models.bonds import parse_smiles
from pesfit.models.trained_charges import TrainedCharges
from pesfit.parameterize.charges import ChargeAssigner
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.patterns import Patterns
from pesfit.params.parameterize import ChargeMethod
from pesfit.potentials.base import Conformers, Potential
from pesfit.potentials.build import build_smirnoff, load_learned
from pesfit.potentials.last_layer import LastLayerPosterior
from pesfit.potentials.painn import CONFIG_FILE, PaiNNPotential
from pesfit.potentials.terms import Terms
from pesfit.potentials.uncertainty import Uncertainty
from pesfit.topology import ForceField

FORCE_FIELD_FILE, POSTERIOR_FILE, CHARGES_FILE = "force-field.offxml", "posterior.npz", "charges.csv"
FIT = "fit"
"""`charge_method` of molecules whose charges were trained."""
CHARGE_METHODS: tuple[ChargeMethod, ...] = ("nagl", "sqm")
"""What charges come from by default: as in stage 03, but for those that come with data sets."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One molecule, as a model sees it.

    Attributes:
        atomic_numbers: shape (n_atoms,).
        smiles: mapped; None where bonds are not known.
        total_charge: [e].
        terms: SMIRNOFF terms; None for models that need none.
        charge_method: where partial charges come from; None where there are none.
        uncertainty: None where the model has no posterior.
    """

    atomic_numbers: IntArray
    smiles: str | None
    total_charge: int = 0
    terms: Terms | None = None
    charge_method: str | None = None
    uncertainty: Uncertainty | None = None

    def conformers(self, coords: FloatArray) -> Conformers:
        """Return conformers to make a batch of; coords [Å], shape (n_conformers, n_atoms, 3)."""
        numbers = torch.from_numpy(self.atomic_numbers.astype(np.int64))
        return Conformers(numbers, torch.from_numpy(np.array(coords, dtype=np.float64)), self.terms, self.total_charge)


class Model(ABC):
    """A potential that users name by a folder or file; `open_model` opens it.

    Attributes:
        name: as it was given.
        potential: what is evaluated.
        needs_bonds: whether molecules must come with a SMILES.
        has_posterior: whether subjects have an uncertainty.
    """

    needs_bonds: ClassVar[bool]

    def __init__(self, name: str, potential: Potential) -> None:
        self.name = name
        self.potential = potential
        self.has_posterior = False

    @abstractmethod
    def subject(self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None) -> Subject:
        """Prepare a molecule.

        Args:
            atomic_numbers: shape (n_atoms,).
            smiles: mapped, or None where bonds are not known.
            where: what messages call it.
            charges: [e], partial charges to take, shape (n_atoms,), such as those of a data set; those that a fit trained come first.

        Raises:
            DataError: where the model needs bonds and there are none.
            MoleculeError: where it cannot be parameterized.
        """


@dataclass(frozen=True, eq=False)
class LeftByFit:
    """What a fit leaves beside its force field.

    Attributes:
        posterior: of the parameters; None where there is none.
        trained: charges of the fit's molecules; None where they were not trained.
    """

    posterior: SmirnoffPosterior | None = None
    trained: TrainedCharges | None = None

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

    def __init__(
        self,
        name: str,
        force_field: ForceField,
        patterns: Patterns,
        charge_methods: tuple[ChargeMethod, ...],
        fit: LeftByFit,
    ) -> None:
        super().__init__(name, build_smirnoff(force_field))
        self._setup = Setup(patterns, ("dataset", *charge_methods))
        self._fit = fit
        self.has_posterior = fit.posterior is not None

    def subject(self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None) -> Subject:
        """Assign parameters and charges; see `Model.subject`."""
        if smiles is None:
            raise DataError(
                f"{where} says nothing of bonds, which the SMIRNOFF force field {self.name} needs; give an SDF file, or the SMILES of the "
                "molecule beside the xyz file"
            )
        total_charge = int(Chem.GetFormalCharge(parse_smiles(smiles)))
        trained = None if self._fit.trained is None else self._fit.trained.of(smiles)
        given = charges if trained is None else trained
        request = Request(
            smiles, atomic_numbers.astype(np.int32).tobytes(), None if given is None else given.tobytes(), total_charge
        )
        topology = parameterize(self._setup, request)
        if isinstance(topology, Failure):
            raise MoleculeError(f"{where}: {self.name} cannot be assigned: {topology.message}")
        method = topology.charge_method if trained is None else FIT
        uncertainty = None if self._fit.posterior is None else self._fit.posterior.of(topology)
        return Subject(atomic_numbers, smiles, total_charge, Terms.from_topology(topology), method, uncertainty)


class NetworkModel(Model):
    """A network, which sees elements and positions alone.

    Args:
        name: as it was given.
        potential: the network.
        posterior: of its last layer; None where there is none.
    """

    needs_bonds = False

    def __init__(self, name: str, potential: PaiNNPotential, posterior: LastLayerPosterior | None = None) -> None:
        super().__init__(name, potential)
        self._network, self._posterior = potential, posterior
        self.has_posterior = posterior is not None

    def subject(self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None) -> Subject:
        """Take the molecule as it is; see `Model.subject`."""
        del where, charges
        uncertainty = None if self._posterior is None else self._posterior.of(self._network, atomic_numbers)
        return Subject(atomic_numbers, smiles, uncertainty=uncertainty)


def open_model(model: str | Path, charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS) -> Model:
    """Open an output folder of the pipeline, or an .offxml.

    Args:
        model: folder with force-field.offxml (and posterior.npz, charges.csv), or with config.json and model.safetensors; or an
            .offxml, by path or by the name under which it is installed.
        charge_methods: where partial charges come from, for SMIRNOFF; tried in this order.

    Raises:
        DataError: where it is none of these, or files are missing, damaged or of another format version.
        ForceFieldError: where a force field cannot be read or is not supported.
        ParamsError: where a charge method is not known.
    """
    path = Path(model)
    if path.is_dir():
        if (path / FORCE_FIELD_FILE).is_file():
            return _open_smirnoff(str(model), path / FORCE_FIELD_FILE, charge_methods)
        if (path / CONFIG_FILE).is_file():
            return NetworkModel(str(model), load_learned(path), LastLayerPosterior.read(path))
        raise DataError(_no_model(path))
    if path.suffix == ".offxml":
        return _open_smirnoff(str(model), path, charge_methods)
    what = "is a file that is no .offxml" if path.exists() else "does not exist"
    raise DataError(f"model {model} {what}; expected a folder such as outputs/smirnoff, or an .offxml")


def _open_smirnoff(name: str, path: Path, charge_methods: Sequence[ChargeMethod]) -> SmirnoffModel:
    methods = tuple(charge_methods)
    ChargeAssigner(methods).check()
    force_field, patterns = read_force_field(str(path))
    return SmirnoffModel(name, force_field, patterns, methods, LeftByFit.read(path, force_field))


def _no_model(path: Path) -> str:
    inner = sorted(
        str(folder) for folder in path.iterdir() if any((folder / name).is_file() for name in (FORCE_FIELD_FILE, CONFIG_FILE))
    )
    hint = f"; did you mean {' or '.join(inner)}?" if inner else ""
    return f"model {path} has neither {FORCE_FIELD_FILE} nor {CONFIG_FILE}{hint}"
