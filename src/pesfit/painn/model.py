"""A trained network opened to be used, with the posterior of its last layer."""

from __future__ import annotations

from pathlib import Path

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.painn.last_layer import LastLayerPosterior
from pesfit.painn.potential import PaiNNPotential, load_painn
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.uncertainty.calibration import Calibration


class NetworkModel(Model):
    """A network, which sees elements and positions alone.

    Args:
        name: as it was given.
        potential: the network.
        posterior: of its last layer; None where there is none.
        calibration: of the posterior; None where there is none.
    """

    needs_bonds = False

    def __init__(
        self,
        name: str,
        potential: PaiNNPotential,
        posterior: LastLayerPosterior | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(name, potential)
        self._network, self._posterior = potential, posterior
        self.has_posterior = posterior is not None
        self.calibration = calibration

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Take the molecule as it is; see `Model.prepare`."""
        del where, charges
        posterior = None if self._posterior is None else self._posterior.of(self._network, atomic_numbers)
        return PreparedMolecule(atomic_numbers, smiles, uncertainty=self.calibrated(posterior))


def open_network(name: str, folder: Path) -> NetworkModel:
    """Open a folder with config.json and model.safetensors.

    Args:
        name: what messages call it.
        folder: as stage 07 writes it.

    Raises:
        DataError: where files are missing, damaged or of another format version.
    """
    posterior = LastLayerPosterior.read(folder)
    calibration = None if posterior is None else Calibration.read(folder)
    return NetworkModel(name, load_painn(folder).eval(), posterior, calibration)
