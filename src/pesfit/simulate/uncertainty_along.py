"""How sure a potential is along its own trajectory, and where that leaves what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.simulate.loop import Run
from pesfit.uncertainty.standard_deviations import Uncertainty


@dataclass(frozen=True, eq=False)
class Carried:
    """Standard deviations along a run, NaN from where a replica was stopped.

    Attributes:
        score: [kcal/mol/Å], that of the least certain atom's force (`StandardDeviations.score`), shape (n_replicas, n_frames).
        relative_energy: [kcal/mol], of the energy minus that of the replica's first frame, shape (n_replicas, n_frames).
        left_fs: [fs], time of the first frame whose score is above the threshold, for each replica; None where there is none.
    """

    score: FloatArray
    relative_energy: FloatArray
    left_fs: tuple[float | None, ...]


def carry(run: Run, uncertainty: Uncertainty, threshold: float | None, timestep_fs: float) -> Carried:
    """Evaluate deviations at the stored frames of a run.

    Args:
        run: of one molecule.
        uncertainty: of the potential that made it, for this molecule.
        threshold: [kcal/mol/Å], the score that hardly any training conformer exceeds; None where it is not known.
        timestep_fs: [fs], of the run.
    """
    shape = run.coords.shape[:2]
    score, relative_energy = np.full(shape, np.nan), np.full(shape, np.nan)
    left: list[float | None] = []
    for replica, coords in enumerate(run.coords):
        n_frames = run.n_frames(replica)
        outside = np.zeros(0, dtype=np.int64)
        if n_frames:
            deviations = uncertainty(coords[:n_frames], coords[0])
            score[replica, :n_frames] = scores = deviations.score
            relative_energy[replica, :n_frames] = deviations.relative_energy
            if threshold is not None:
                outside = np.flatnonzero(scores > threshold)
        left.append(float(run.frame_step[outside[0]]) * timestep_fs if len(outside) else None)
    return Carried(score, relative_energy, tuple(left))
