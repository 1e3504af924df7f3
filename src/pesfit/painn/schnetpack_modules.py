"""The parts of schnetpack that potentials are built from, imported alone.

`import schnetpack` also imports its data sets, trainer and simulations (lightning, matplotlib, h5py: 6 s of CPU beside the 0.6 s that its
networks need), and in 2.1.1 fails beside a current torch, whose `torch.utils.data.dataloader` has no `T_co` any more. So its `nn` and
`representation.painn` are imported under bare parent packages, which are taken away again: who imports schnetpack later gets all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pesfit.core.exceptions import PesfitError

_SUPPORTED = ("2.1.1", "2.2.0")
_BARE_PARENTS = ("schnetpack", "schnetpack.representation")
_LOCK = threading.Lock()


@dataclass(frozen=True)
class SchNetPack:
    """Classes and functions of schnetpack.

    Attributes:
        representation: `schnetpack.representation.painn`.
        nn: `schnetpack.nn`.
    """

    representation: Any
    nn: Any


@cache
def import_schnetpack() -> SchNetPack:
    """Import the representation and the layers.

    Raises:
        PesfitError: where schnetpack is missing, or is a version that nobody has checked.
    """
    try:
        found = version("schnetpack")
    except PackageNotFoundError as error:
        raise PesfitError(
            "schnetpack is not installed: pip install 'pesfit[painn]', or pip install --no-deps schnetpack==2.1.1 for Python 3.11"
        ) from error
    if found not in _SUPPORTED:
        raise PesfitError(f"schnetpack {found} is installed; expected one of {', '.join(_SUPPORTED)}")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in its docstrings, torch.jit.script in its scatter_add
        if "schnetpack" in sys.modules:
            return _modules()
        try:
            _put_bare_parents()
            return _modules()
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == "schnetpack"]:
                del sys.modules[name]


def _modules() -> SchNetPack:
    return SchNetPack(
        representation=importlib.import_module("schnetpack.representation.painn"), nn=importlib.import_module("schnetpack.nn")
    )


def _put_bare_parents() -> None:
    spec = importlib.util.find_spec("schnetpack")
    if spec is None or spec.origin is None:
        raise PesfitError("schnetpack is installed but cannot be found; is it a namespace package left by an uninstallation?")
    for name in _BARE_PARENTS:
        parent = types.ModuleType(name)
        parent.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = parent
