"""State of a fit in a file, so that a run that was killed goes on where it was and ends in the same bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pesfit.core.files import atomic_write

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where the state is kept.

    Attributes:
        path: the file, an uncompressed npz.
        key: stands for all input; a state of other input is not taken up.
    """

    path: Path
    key: str

    def save(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"state.{name}": value for name, value in state.items()}
        with atomic_write(self.path, sync=True) as new, new.open("wb") as stream:
            np.savez(stream, format_version=np.array(FORMAT_VERSION), key=np.array(self.key), **arrays)  # type: ignore[arg-type]

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the state; None where there is none, or it is of other input, of another version, or damaged."""
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                if int(file["format_version"]) != FORMAT_VERSION or str(file["key"]) != self.key:
                    return None
                return {name.removeprefix("state."): file[name] for name in file.files if name.startswith("state.")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
