"""The conservative network with deviations from its companions in place of those of its last layer, to compare with.

Two networks are hardly an ensemble, and three not quite: one factor can correct the deviations of four or more (docs/training.md).
"""

from __future__ import annotations

from pathlib import Path

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.painn.ensemble import ENSEMBLE_FOLDER, EnsembleUncertainty, load_companions
from pesfit.painn.potential import PaiNNPotential, load_painn
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.uncertainty.calibration import Calibration


class EnsembleModel(Model):
    """A network, whose energies and forces are its own, and how far others of the same training differ from it and each other.

    Args:
        name: what messages call it.
        potential: the main network.
        companions: at least one.
        calibration: of these deviations; None where there is none.
    """

    needs_bonds = False

    def __init__(
        self,
        name: str,
        potential: PaiNNPotential,
        companions: tuple[PaiNNPotential, ...],
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(name, potential)
        self._networks = (potential, *companions)
        self.has_posterior = True
        self.calibration = calibration

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Take the molecule as it is; see `Model.prepare`."""
        del where, charges
        uncertainty = EnsembleUncertainty(self._networks, atomic_numbers)
        return PreparedMolecule(atomic_numbers, smiles, uncertainty=self.calibrated(uncertainty))


def has_ensemble(folder: Path) -> bool:
    """Say whether companions were trained beside the network of a folder, such as `outputs/learned/conservative`."""
    return (folder / ENSEMBLE_FOLDER).is_dir()


def open_ensemble(folder: Path) -> EnsembleModel:
    """Open a network whose deviations are those of the ensemble.

    Args:
        folder: as stage 07 writes it for the conservative variant.

    Raises:
        DataError: where there is no ensemble (see `has_ensemble`), or a network of it or the calibration is missing, damaged, of
            another format version, or not of the same run.
    """
    potential = load_painn(folder).eval()
    companions = load_companions(folder, potential)
    return EnsembleModel(f"the ensemble of {folder}", potential, companions, Calibration.read(folder / ENSEMBLE_FOLDER))
