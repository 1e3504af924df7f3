"""Checkpoints come back to the last bit, and what is not one is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pesfit.core.exceptions import DataError
from pesfit.painn.train.loop import TrainingCheckpoint, load_checkpoint, save_checkpoint


def test_it_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.safetensors"
    tensors = {
        "weights": torch.randn(5),
        "sums": torch.tensor([0.1, math.nan, math.inf], dtype=torch.float64),
        "step": torch.tensor(3.0),
    }
    values = {"epoch": 3, "best": math.inf, "history": [{"loss": 0.1 + 0.2}]}
    save_checkpoint(path, TrainingCheckpoint(tensors, values))
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded.values == values
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert loaded.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_the_same_state_gives_the_same_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        for _ in range(2):
            save_checkpoint(
                tmp_path / name / "last", TrainingCheckpoint({"x": torch.ones(3), "a": torch.zeros(2)}, {"epoch": 1})
            )
        contents.append((tmp_path / name / "last").read_bytes())
        assert [path.name for path in (tmp_path / name).iterdir()] == ["last"]
    assert contents[0] == contents[1]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "last") is None


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last"
    save_file({"x": torch.ones(1)}, path, {"pesfit": json.dumps({"format_version": 99, "values": {}})})
    with pytest.raises(DataError, match=r"last has checkpoint format version 99; this version reads 1; delete it"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\xff" * 100])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last"
    path.write_bytes(content)
    with pytest.raises(DataError, match="last cannot be read as a checkpoint"):
        load_checkpoint(path)


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last"
    save_checkpoint(path, TrainingCheckpoint({"x": torch.ones(1000)}, {}))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="last cannot be read as a checkpoint"):
        load_checkpoint(path)
