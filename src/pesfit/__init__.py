"""Force fields and machine-learned potentials, fitted to quantum-chemical energies and forces.

    import pesfit

    model = pesfit.open_model("outputs/smirnoff")          # what was fitted
    datasets = pesfit.open_datasets("data/clustered")      # what it was fitted to
    atoms.calc = pesfit.calculator("outputs/smirnoff", smiles="CCO")  # for ASE

`dir(pesfit)` lists the public names; `help` of each shows an example. They are imported when they are asked for, since every stage of the
pipeline imports this file; `__init__.pyi` has their types. Further in: docs/architecture.md and the docstrings of the packages.
"""

import importlib
from typing import Any

_MODULES = {
    "Batch": "potentials.interface",
    "ConformerDataset": "data.dataset",
    "Conformers": "potentials.interface",
    "DatasetWriter": "data.dataset",
    "PesfitError": "core.exceptions",
    "Record": "data.dataset",
    "Splits": "data.splits",
    "calculator": "application.ase_calculator",
    "collate": "potentials.interface",
    "load_params": "params.load",
    "open_datasets": "data.dataset",
    "open_gfn2": "models.open",
    "open_model": "models.open",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_MODULES)
