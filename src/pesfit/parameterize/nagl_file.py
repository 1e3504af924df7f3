"""Read the published NAGL charge model from its file, which is a pickle, without letting the pickle run anything.

`openff-gnn-am1bcc-1.0.0.pt` (CC-BY-4.0) comes with the package `openff-nagl-models`. It is what `torch.save` writes: a zip archive
with a pickle, `data.pkl`, and one file of raw little-endian numbers for each array. The pickle names classes of openff-nagl,
PyTorch Lightning, torch and numpy; the ones in this file are known by name and are replaced by inert stand-ins, and any other
name is refused.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError

MODEL_NAME = "openff-gnn-am1bcc-1.0.0.pt"
MODEL_SHA256 = "7981e7f5b0b1e424c9e10a40d9e7606d96dcd3dd2b095cb4eeff6829f92238ee"
_PACKAGE = "openff.nagl_models"
_READOUT = "am1bcc_charges"

Float32Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TableEntry:
    """Charges that OpenEye computed (AM1-BCC ELF10) for one molecule of the lookup table.

    Attributes:
        mapped_smiles: all atoms explicit, map number = index + 1.
        charges: [e], shape (n_atoms,).
    """

    mapped_smiles: str
    charges: FloatArray


@dataclass(frozen=True)
class ModelFile:
    """Content of the file.

    Attributes:
        config: architecture and atom features, as openff-nagl wrote them; activation functions are names such as `ReLU`.
        state: the network's arrays by name.
        allowed_elements: atomic numbers the network was trained on.
        forbidden_patterns: SMARTS of bonds it was not trained on.
        table: charges by InChI (fixed hydrogens).
    """

    config: dict[str, Any]
    state: dict[str, Float32Array]
    allowed_elements: frozenset[int]
    forbidden_patterns: tuple[str, ...]
    table: dict[str, TableEntry]


def model_path() -> Path:
    """Return where the model lies in the installed package.

    Raises:
        DataError: if the package is not installed or lacks the file.
    """
    try:
        package = importlib.util.find_spec(_PACKAGE)
    except ModuleNotFoundError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise DataError(f"the Python package openff-nagl-models is not installed; charges by `nagl` need {MODEL_NAME} from it")
    path = Path(package.submodule_search_locations[0]) / "models" / "am1bcc" / MODEL_NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist; openff-nagl-models 2025.9.0 or newer has it")
    return path


def check_model(path: Path) -> bytes:
    """Return the content of the published model's file.

    Raises:
        DataError: if its sha256 is not the published one.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != MODEL_SHA256:
        raise DataError(f"{path}: sha256 is {digest}, expected {MODEL_SHA256} ({MODEL_NAME} as published)")
    return content


def read_model(path: Path) -> ModelFile:
    """Read the published model.

    Raises:
        DataError: if the file's sha256 is not the published one; nothing of it has been interpreted then.
    """
    saved = load_torch_file(check_model(path))
    parameters = saved["hyperparameters"]
    domain = parameters["chemical_domain"]
    entries = parameters["lookup_tables"][_READOUT]["properties"].values()
    return ModelFile(
        config=parameters["config"],
        state=dict(saved["state_dict"]),
        allowed_elements=frozenset(domain["allowed_elements"]),
        forbidden_patterns=tuple(domain["forbidden_patterns"]),
        table={
            entry.fields["inchi"]: TableEntry(entry.fields["mapped_smiles"], np.array(entry.fields["property_value"]))
            for entry in entries
        },
    )


def load_torch_file(content: bytes) -> Any:
    """Return what `torch.save` wrote, tensors as read-only numpy arrays.

    Raises:
        DataError: if it is not such an archive, or its pickle names a class or function that is not one of those known here.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        data = archive.read(name)
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"not a file that torch.save wrote: {error}") from error
    collecting = gc.isenabled()
    # Some 10^5 small objects come into being at once; without the collector looking at them again and again it is 3 times faster.
    gc.disable()
    try:
        return _RestrictedUnpickler(data, archive, name.removesuffix("data.pkl")).load()
    except Exception as error:  # a pickle that was tampered with can make any of the stand-ins fail in any way
        raise DataError(f"{name}: {error}") from error
    finally:
        if collecting:
            gc.enable()


class _Fields:
    """Stands for an object of pydantic's: keeps its fields, knows no behavior."""

    __slots__ = ("fields",)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.fields: dict[str, Any] = state["__dict__"]


class _StateDict(OrderedDict[str, Any]):
    """Stands for the ordered dictionary of arrays; attributes that torch attaches (versions of its modules) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Float64:
    """Stands for the dtype of the table's numbers."""

    def __init__(self, kind: str, *_: object) -> None:
        if kind != "f8":
            raise pickle.UnpicklingError(f"numpy.dtype({kind!r}) is not allowed, only 'f8'")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError(f"numbers of byte order {state[1]!r} are not allowed, only '<'")


def _scalar(_: _Float64, value: bytes) -> float:
    return float(struct.unpack("<d", value)[0])


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"_codecs.encode(..., {encoding!r}) is not allowed, only 'latin1'")
    return text.encode("latin1")


def _tensor(storage: Float32Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Float32Array:
    n_values = int(np.prod(size))
    if stride != tuple(int(np.prod(size[axis + 1 :])) for axis in range(len(size))) or offset + n_values > len(storage):
        raise pickle.UnpicklingError(
            f"a tensor of shape {size} and strides {stride} is not one block of its {len(storage)} numbers"
        )
    return storage[offset : offset + n_values].reshape(size)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _StateDict,
    ("numpy", "dtype"): _Float64,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("openff.nagl.lookups", "AtomPropertiesLookupTableEntry"): _Fields,
    ("openff.nagl.lookups", "PropertyProvenance"): _Fields,
    ("openff.nagl.nn.activation", "ActivationFunction"): str,
    ("pytorch_lightning.utilities.parsing", "AttributeDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}
_KNOWN_NAMES = {
    ("torch", "FloatStorage"): "FloatStorage",
    ("torch.nn.modules.activation", "ReLU"): "ReLU",
    ("torch.nn.modules.activation", "Sigmoid"): "Sigmoid",
}
"""Classes that the pickle only mentions and never calls: their names do."""


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(data))
        self._archive = archive
        self._prefix = prefix

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name)) or _KNOWN_NAMES.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}, which is not allowed")
        return known

    def persistent_load(self, pid: Any) -> Float32Array:
        kind, storage, key, _, n_values = pid
        if (kind, storage) != ("storage", "FloatStorage"):
            raise pickle.UnpicklingError(f"the pickle refers to {pid!r}; expected 32-bit numbers")
        values = np.frombuffer(self._archive.read(f"{self._prefix}data/{key}"), dtype="<f4")
        if len(values) != n_values:
            raise pickle.UnpicklingError(f"data/{key} holds {len(values)} numbers, expected {n_values}")
        return values
