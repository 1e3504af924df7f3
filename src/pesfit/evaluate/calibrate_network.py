"""Calibrate what stage 07 trained: the deviations of the last layer, and those of the ensemble where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pesfit.evaluate.calibrate import Labels, calibrate
from pesfit.painn.model import ENSEMBLE_FOLDER, has_ensemble, open_ensemble, open_network


def calibrate_network(name: str, folder: Path, labels: Labels) -> dict[str, Any]:
    """Write `calibration.json` beside a network, and into its ensemble, where they have deviations; see `calibrate.calibrate`.

    Args:
        name: what messages call it.
        folder: of the network, as `train_network` writes it.
        labels: of which validation and training set are used.

    Returns:
        Metrics `calibration` and `ensemble_calibration`; None where there is nothing to calibrate.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    of_ensemble = calibrate(open_ensemble(folder), folder / ENSEMBLE_FOLDER, labels) if has_ensemble(folder) else None
    return {"calibration": calibrate(open_network(name, folder), folder, labels), "ensemble_calibration": of_ensemble}
