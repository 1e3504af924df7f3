r"""Several networks of one training set, and how far they differ.

M networks of the same data, each from random weights of its own and with batches in an order of its own. What they say of a quantity y

    σ² = Σ_m (y_m - ȳ)² / (M - 1)        ȳ = Σ_m y_m / M

is taken for what the data leave open about it. Energies relative to a reference are differences within each network, so an offset that a
network has throughout drops out.

B. Lakshminarayanan, A. Pritzel, C. Blundell, NeurIPS 2017, arXiv:1612.01474, without the noise that each network there predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.painn.potential import PaiNNPotential, load_painn
from pesfit.potentials.interface import Conformers, collate
from pesfit.uncertainty.standard_deviations import StandardDeviations

ENSEMBLE_FOLDER = "ensemble"
"""Beside the main network: its companions, in folders that are named by numbers from 1."""

_PAIRS_AT_ONCE = 4096
"""Possible pairs of atoms computed with in one go, which bounds memory; more at a time is hardly faster."""


def companion_folder(folder: Path, number: int) -> Path:
    """Return where a companion of the network in a folder is; `number` from 1."""
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
            f"{inside} holds no networks; train_learned.ensemble says how many stage 07 trains beside the conservative one"
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
    """How far networks differ, as sample standard deviations (a `uncertainty.standard_deviations.Uncertainty`).

    Args:
        networks: at least two, all of which know the elements.
        atomic_numbers: of the molecule, shape (n_atoms,).

    Raises:
        DataError: of fewer than two networks.
    """

    def __init__(self, networks: Sequence[PaiNNPotential], atomic_numbers: IntArray) -> None:
        if len(networks) < 2:
            raise DataError(f"deviations of {len(networks)} network; an ensemble needs at least 2")
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
