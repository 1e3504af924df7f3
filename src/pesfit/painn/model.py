r"""Trained networks opened to be used, with the uncertainty of the last layer's posterior or of an ensemble.

An ensemble is M networks of the same data, each from random weights of its own and with batches in an order of its own. The sample
standard deviation of their predictions y_m of a quantity

    σ² = Σ_m (y_m - ȳ)² / (M - 1)        ȳ = Σ_m y_m / M

is taken for its uncertainty. Energies relative to a reference are differences within each network, so a constant offset of a network
drops out. Two or three networks are hardly enough: one factor can calibrate the standard deviations of four or more (docs/training.md).

B. Lakshminarayanan, A. Pritzel, C. Blundell, NeurIPS 2017, arXiv:1612.01474, without the noise that each network there predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.painn.last_layer import LastLayerPosterior
from pesfit.painn.potential import PaiNNPotential, load_painn
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.standard_deviations import StandardDeviations, Uncertainty

ENSEMBLE_FOLDER = "ensemble"
"""Beside the main network: its companions, in folders that are named by numbers from 1."""

_PAIRS_AT_ONCE = 4096
"""Possible pairs of atoms computed at once, which bounds memory; more at a time is hardly faster."""


class NetworkModel(Model):
    """A network, which needs elements and positions alone.

    Args:
        name: as it was given.
        potential: the network.
        posterior: from atomic numbers to the uncertainty of a molecule; None where there is none.
        calibration: of the posterior; None where there is none.
    """

    needs_bonds = False

    def __init__(
        self,
        name: str,
        potential: PaiNNPotential,
        posterior: Callable[[IntArray], Uncertainty] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(name, potential)
        self._posterior = posterior
        self.has_posterior = posterior is not None
        self.calibration = calibration

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Take the molecule as it is; see `Model.prepare`."""
        del where, charges
        posterior = None if self._posterior is None else self._posterior(atomic_numbers)
        return PreparedMolecule(atomic_numbers, smiles, uncertainty=self.calibrated(posterior))


def open_network(name: str, folder: Path) -> NetworkModel:
    """Open a folder with config.json and model.safetensors; its uncertainty is that of the last layer, where there is a posterior.

    Args:
        name: name for messages.
        folder: as stage 07 writes it.

    Raises:
        DataError: where files are missing, damaged or of another format version.
    """
    potential = load_painn(folder).eval()
    posterior = LastLayerPosterior.read(folder)
    if posterior is None:
        return NetworkModel(name, potential)
    return NetworkModel(name, potential, partial(posterior.of, potential), Calibration.read(folder))


def has_ensemble(folder: Path) -> bool:
    """Return whether companions were trained beside the network of a folder, such as `outputs/learned/conservative`."""
    return (folder / ENSEMBLE_FOLDER).is_dir()


def open_ensemble(folder: Path) -> NetworkModel:
    """Open a network with the uncertainty of its ensemble: energies and forces are its own, standard deviations those among all networks.

    Args:
        folder: as stage 07 writes it for the conservative variant.

    Raises:
        DataError: where there is no ensemble (see `has_ensemble`), or a network of it or the calibration is missing, damaged, of
            another format version, or of another run.
    """
    potential = load_painn(folder).eval()
    networks = (potential, *load_companions(folder, potential))
    calibration = Calibration.read(folder / ENSEMBLE_FOLDER)
    return NetworkModel(f"the ensemble of {folder}", potential, partial(EnsembleUncertainty, networks), calibration)


def companion_folder(folder: Path, number: int) -> Path:
    """Return the folder of a companion of the network in a folder; `number` from 1."""
    return folder / ENSEMBLE_FOLDER / str(number)


def load_companions(folder: Path, main: PaiNNPotential) -> tuple[PaiNNPotential, ...]:
    """Read the companions of a network, in the order of their numbers.

    Args:
        folder: of the main network.
        main: the network.

    Raises:
        DataError: naming the folder that holds none, that is missing or damaged, or whose network is not of the same kind and data.
    """
    inside = folder / ENSEMBLE_FOLDER
    numbers = [int(path.name) for path in inside.iterdir() if path.name.isdecimal()] if inside.is_dir() else []
    if not numbers:
        raise DataError(
            f"{inside} holds no networks; train_learned.ensemble is the number that stage 07 trains beside the conservative one"
        )
    companions = []
    for number in range(1, max(numbers) + 1):
        path = companion_folder(folder, number)
        companion = load_painn(path).eval()
        same = companion.config == main.config and all(
            torch.equal(getattr(companion, name).cpu(), getattr(main, name).cpu()) for name in ("atomrefs", "scale")
        )
        if not same:
            raise DataError(
                f"{path} holds a network of another kind, or of other data, than {folder}; expected one of the same run of stage 07"
            )
        companions.append(companion)
    return tuple(companions)


class EnsembleUncertainty:
    """Sample standard deviations among networks (an `uncertainty.standard_deviations.Uncertainty`).

    Args:
        networks: at least two, all of which know the elements.
        atomic_numbers: of the molecule, shape (n_atoms,).

    Raises:
        DataError: of fewer than two networks.
    """

    def __init__(self, networks: Sequence[PaiNNPotential], atomic_numbers: IntArray) -> None:
        if len(networks) < 2:
            raise DataError(f"standard deviations of {len(networks)} network; an ensemble needs at least 2")
        self._networks = tuple(networks)
        self._atomic_numbers = torch.from_numpy(atomic_numbers.astype(np.int64))

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        """Return standard deviations; see `uncertainty.standard_deviations.Uncertainty`.

        Raises:
            DataError: where the networks do not know an element.
        """
        found = [self._evaluate(network, coords) for network in self._networks]
        energy, forces = np.stack([energy for energy, _ in found]), np.stack([forces for _, forces in found])
        if reference is None:
            origin = energy[:, :1]
        else:
            origin = np.stack([self._evaluate(network, reference[None])[0] for network in self._networks])
        return StandardDeviations(*(np.std(values, axis=0, ddof=1) for values in (energy, energy - origin, forces)))

    def _evaluate(self, network: PaiNNPotential, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return energies [kcal/mol], shape (n_conformers,), and forces [kcal/mol/Å], shape (n_conformers, n_atoms, 3)."""
        n_atoms = len(self._atomic_numbers)
        at_once = max(1, _PAIRS_AT_ONCE // n_atoms**2)
        energies, forces = [np.zeros(0)], [np.zeros((0, n_atoms, 3))]
        for start in range(0, len(coords), at_once):
            part = torch.from_numpy(np.array(coords[start : start + at_once], dtype=np.float64))
            with torch.no_grad():
                found = network(collate([Conformers(self._atomic_numbers, part)]).to(network.scale.device))
            energies.append(found.energy.cpu().numpy())
            forces.append(found.forces.cpu().numpy().reshape(part.shape))
        return np.concatenate(energies), np.concatenate(forces)
