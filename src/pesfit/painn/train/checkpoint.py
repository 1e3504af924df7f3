"""What a run that was killed goes on from: tensors and numbers in one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pesfit.core.exceptions import DataError
from pesfit.core.files import atomic_write

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run.

    Attributes:
        tensors: by name, on the CPU.
        values: anything JSON holds; floats come back to the last bit, infinities too.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a reader, or the next run, sees the old one or the new one and never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    # One key of metadata alone: the library writes several in no fixed order.
    header = {"pesfit": json.dumps({"format_version": FORMAT_VERSION, "values": checkpoint.values})}
    with atomic_write(path, sync=True) as new:
        save_file(tensors, new, header)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Read what `save_checkpoint` wrote.

    Returns:
        None where there is none.

    Raises:
        DataError: where it cannot be read or has another format version.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("pesfit", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a checkpoint ({error}); delete it to train from the start") from error
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has checkpoint format version {version}; this version reads {FORMAT_VERSION}; delete it to train from the start"
        )
    return Checkpoint(tensors, header["values"])
