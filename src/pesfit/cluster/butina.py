"""Butina's clustering (D. Butina, J. Chem. Inf. Comput. Sci. 39, 747, 1999, doi:10.1021/ci9803381).

Every point counts its neighbors once. Points are visited by falling count; a point that no cluster has taken yet becomes the
centroid of a new one and takes all of its neighbors that are still free.
"""

from __future__ import annotations

import numpy as np

from pesfit.core.arrays import BoolArray, LongArray


def butina(within: BoolArray) -> list[LongArray]:
    """Return the clusters, the centroid first in each.

    Partition and order are those of RDKit's `Butina.ClusterData(..., reordering=False)`: of points with equally many neighbors
    the one with the higher index is visited first, and members follow their centroid by rising index.

    Args:
        within: which points are neighbors, symmetric with True on the diagonal, shape (n_points, n_points).

    Returns:
        indices of the members of each cluster; each point is in exactly one.
    """
    counts = within.sum(axis=1)
    free = np.ones(len(within), dtype=np.bool_)
    clusters = []
    for centroid in np.argsort(counts, kind="stable")[::-1]:
        if not free[centroid]:
            continue
        free[centroid] = False
        others = np.flatnonzero(within[centroid] & free)
        free[others] = False
        clusters.append(np.concatenate([[centroid], others]))
    return clusters
