"""The distribution of interatomic distances, by which simulations are compared with reference data."""

from __future__ import annotations

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray

_PAIRS_AT_ONCE = 2**22


class DistanceHistogram:
    r"""How often two atoms of a molecule are at each distance (Fu et al., Forces are not enough, TMLR 2023, arXiv:2210.07237).

    .. math::

        h(r) = \frac{1}{n (n-1)} \sum_i \sum_{j \ne i} \delta(r - |x_i - x_j|)

    averaged over frames: a density over r whose integral is 1, in bins from 0 on.

    Args:
        bin_width: [Å].
    """

    def __init__(self, bin_width: float) -> None:
        self.bin_width = bin_width
        self._counts: LongArray = np.zeros(0, dtype=np.int64)
        self.n_frames = 0

    def add(self, coords: FloatArray) -> None:
        """Count the distances of some frames.

        Args:
            coords: [Å], finite, shape (n_frames, n_atoms, 3).
        """
        first, second = np.triu_indices(coords.shape[1], 1)
        step = max(1, _PAIRS_AT_ONCE // max(1, len(first)))
        for start in range(0, len(coords), step):
            block = coords[start : start + step]
            distances = np.linalg.norm(block[:, first] - block[:, second], axis=-1)
            counts = np.bincount((distances / self.bin_width).astype(np.int64).reshape(-1), minlength=len(self._counts))
            counts[: len(self._counts)] += self._counts
            self._counts = counts
        self.n_frames += len(coords)

    @property
    def density(self) -> FloatArray:
        """h(r) in each bin [1/Å]; empty without a distance."""
        total = int(self._counts.sum())
        return self._counts / (total * self.bin_width) if total else np.zeros(0)

    def difference(self, other: DistanceHistogram) -> float | None:
        """Return the mean absolute error as published, ∫ |h(r) - h'(r)| dr: 0 for the same, 2 for distributions that never meet.

        None where one of them is empty.
        """
        one, two = self.density, other.density
        if not len(one) or not len(two):
            return None
        length = max(len(one), len(two))
        padded = (np.pad(density, (0, length - len(density))) for density in (one, two))
        return float(np.abs(np.subtract(*padded)).sum() * self.bin_width)
