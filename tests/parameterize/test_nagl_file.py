"""The model's file is a pickle: what is refused, and that nothing in it runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.parameterize import nagl_file
from pesfit.parameterize.nagl_file import MODEL_NAME, load_torch_file, model_path, read_model


def torch_file(data: bytes, members: dict[str, bytes] | None = None) -> bytes:
    """Return an archive as torch.save writes it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data.pkl", data)
        for name, member in (members or {}).items():
            archive.writestr(f"model/{name}", member)
    return content.getvalue()


class Calls:
    """Unpickles into a call of any function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (exec, "builtins.exec"),
        (np.frombuffer, "frombuffer"),
        (pickle.loads, "_pickle.loads"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_refuses_any_other_name(function: Any, named: str, protocol: int) -> None:
    data = pickle.dumps({"state_dict": Calls(function, "1 + 1")}, protocol=protocol, fix_imports=False)
    with pytest.raises(DataError, match=rf"data\.pkl: the pickle names .*{named.rpartition('.')[2]}.* not allowed"):
        load_torch_file(torch_file(data))


def test_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "written by the pickle"
    data = f"cos\nsystem\n(S'touch {victim}'\ntR.".replace("written by the pickle", "victim").encode()
    with pytest.raises(DataError, match=r"names os\.system"):
        load_torch_file(torch_file(data))
    assert list(tmp_path.iterdir()) == []
    pickle.loads(data)
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"cnumpy\ndtype\n(S'O'\nI00\nI01\ntR.", "numpy.dtype"),
        (b"c_codecs\nencode\n(S'abc'\nS'zlib'\ntR.", "zlib"),
        (b"cbuiltins\n__import__\n.", "builtins.__import__"),
        (b"c__builtin__\nset.__class__\n.", "set.__class__"),
        (b"\x80\x02}q\x00", "Ran out of input"),
        (b"", "Ran out of input"),
        (b"(S'storage'\nctorch\nFloatStorage\nS'9'\nS'cpu'\nI1\ntQ.", "data/9"),
        (b"(S'storage'\nS'LongStorage'\nS'0'\nS'cpu'\nI1\ntQ.", "expected 32-bit"),
    ],
)
def test_refuses_what_torch_did_not_write(data: bytes, named: str) -> None:
    with pytest.raises(DataError, match=named):
        load_torch_file(torch_file(data))


def test_refuses_what_is_not_an_archive() -> None:
    with pytest.raises(DataError, match=r"not a file that torch\.save wrote"):
        load_torch_file(b"PK is not enough")


def test_reads_what_torch_saves() -> None:
    torch = pytest.importorskip("torch")
    arrays = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.5])}
    content = io.BytesIO()
    torch.save({"state_dict": OrderedDict(arrays), "names": {"a", "b"}}, content)
    saved = load_torch_file(content.getvalue())
    assert saved["names"] == {"a", "b"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(saved["state_dict"][name], array.numpy())


def test_refuses_arrays_that_are_not_what_they_say() -> None:
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    torch.save({"transposed": torch.arange(6.0).reshape(2, 3).T}, content)
    with pytest.raises(DataError, match="not one block"):
        load_torch_file(content.getvalue())


def test_refuses_another_file(tmp_path: Path) -> None:
    path = tmp_path / MODEL_NAME
    content = bytearray(model_path().read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sha256 is .*, expected 7981e7f5"):
        read_model(path)


@pytest.mark.parametrize("package", ["openff.no_such_package", "no_such_package.models"])
def test_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(nagl_file, "_PACKAGE", package)
    with pytest.raises(DataError, match="openff-nagl-models is not installed"):
        model_path()


def test_says_when_the_package_lacks_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nagl_file, "MODEL_NAME", "openff-gnn-am1bcc-9.0.0.pt")
    with pytest.raises(DataError, match=r"openff-gnn-am1bcc-9\.0\.0\.pt does not exist"):
        model_path()
