"""Partition and order of RDKit's implementation, ties included."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit.ML.Cluster import Butina

from pesfit.cluster.butina import butina
from pesfit.core.arrays import FloatArray


def condensed(distances: FloatArray) -> list[float]:
    return [float(distances[i, j]) for i in range(len(distances)) for j in range(i)]


@given(
    n_points=st.integers(1, 60), levels=st.sampled_from([2, 5, 1000]), cutoff=st.floats(0.05, 0.95), seed=st.integers(0, 10_000)
)
@settings(deadline=None, max_examples=200)
def test_equals_rdkit(n_points: int, levels: int, cutoff: float, seed: int) -> None:
    # Few levels make many distances equal, to each other and to the cutoff.
    rng = np.random.default_rng(seed)
    distances = np.triu(rng.integers(0, levels + 1, size=(n_points, n_points)) / levels, 1)
    distances += distances.T
    cutoff = round(cutoff * levels) / levels
    expected = Butina.ClusterData(condensed(distances), n_points, cutoff, isDistData=True, reordering=False)
    assert [tuple(cluster.tolist()) for cluster in butina(distances <= cutoff)] == list(expected)


def test_dense_data_equal_rdkit() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(center, 0.3, size=(80, 2)) for center in (0.0, 1.0, 4.0)])
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = Butina.ClusterData(condensed(distances), len(points), 0.4, isDistData=True, reordering=False)
    assert [tuple(cluster.tolist()) for cluster in butina(distances <= 0.4)] == list(expected)
