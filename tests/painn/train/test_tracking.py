"""The learning curve: same bytes each time, whatever a history holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pesfit.painn.train.tracking import plot_learning_curve


def history(n_epochs: int, *, with_forces: bool = True) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, n_epochs + 1):
        row = {"epoch": float(epoch), "learning_rate": 1e-3 / epoch}
        for split in ("train", "validation"):
            row |= {f"{split}_loss": 5.0 / epoch, f"{split}_total_energy_mae_kcal_per_mol": 1.0 / epoch}
            if with_forces:
                row[f"{split}_force_mae_kcal_per_mol_per_angstrom"] = 2.0 / epoch**2
        rows.append(row)
    return rows


@pytest.mark.parametrize("rows", [history(1), history(2), history(60), history(5, with_forces=False)])
def test_same_bytes_and_something_to_see(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    for name in ("first.png", "second.png"):
        plot_learning_curve(tmp_path / name, rows, "ethanol")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert not image.text
        pixels = np.asarray(image.convert("L"))
    assert 0.001 < (pixels < 200).mean() < 0.5
