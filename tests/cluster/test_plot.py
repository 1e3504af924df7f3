"""The picture of cluster sizes: same bytes each time, for any number of sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pesfit.cluster.plot import plot_cluster_sizes


@pytest.mark.parametrize(
    "sizes", [{}, {"xtb/conformers": []}, {"a": [1]}, {"a": [1, 2, 5000] * 200, "b": [3], "c": [], "d": [1, 1], "e": [7]}]
)
def test_same_bytes_and_something_to_see(tmp_path: Path, sizes: dict[str, list[int]]) -> None:
    for name in ("first.png", "second.png"):
        plot_cluster_sizes(tmp_path / name, sizes, 0.25)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert not image.text
        pixels = np.asarray(image.convert("L"))
    assert 0.001 < (pixels < 128).mean() < 0.5


def test_other_sizes_give_another_picture(tmp_path: Path) -> None:
    plot_cluster_sizes(tmp_path / "a.png", {"a": [1, 2]}, 0.25)
    plot_cluster_sizes(tmp_path / "b.png", {"a": [1, 1]}, 0.25)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
