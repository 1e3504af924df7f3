"""Force fields and machine-learned potentials, fitted to quantum-chemical energies and forces."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Give `pesfit.calculator`, the ASE calculator. It is imported when it is asked for: every stage of the pipeline imports this file."""
    if name == "calculator":
        return importlib.import_module("pesfit.application.ase_calculator").calculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
