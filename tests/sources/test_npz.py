"""Arrays are read as numpy wrote them, or refused."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import ArchiveError
from pesfit.sources.npz import read_npz
from tests.sources.synthetic import npz_bytes

ARRAYS = {
    "E": np.linspace(0, 1, 7)[:, None],
    "R": np.asfortranarray(np.arange(12.0).reshape(2, 6)),
    "z": np.array([6, 1], dtype=np.uint8),
}
KINDS = {"E": "f", "R": "f", "z": "iu"}
FILE = npz_bytes(ARRAYS)


def test_reads_what_numpy_wrote() -> None:
    found = read_npz(io.BytesIO(FILE), "file.npz", KINDS)
    for key, array in ARRAYS.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


def test_missing_key_is_named_with_those_there_are() -> None:
    with pytest.raises(ArchiveError, match=r"file.npz: has no F; its keys are E, R, z"):
        read_npz(io.BytesIO(FILE), "file.npz", {**KINDS, "F": "f"})


def test_wrong_type_is_refused() -> None:
    with pytest.raises(ArchiveError, match=r"file\.npz: z: has type uint8"):
        read_npz(io.BytesIO(FILE), "file.npz", {"z": "f"})


def test_pickles_are_never_loaded() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("a pickle was loaded",))

    stream = io.BytesIO()
    np.savez(stream, E=np.array([Bomb()], dtype=object))
    assert pickle.dumps(Bomb())[:1] == b"\x80"
    with pytest.raises(ArchiveError, match="has type object"):
        read_npz(stream, "file.npz", {"E": "f"})


def test_shape_that_the_file_cannot_hold_is_refused() -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((7, 1)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("E.npy", array.getvalue().replace(b"(7, 1), ", b"(99999,)"))
    with pytest.raises(ArchiveError, match=r"shape \(99999,\)"):
        read_npz(stream, "file.npz", {"E": "f"})


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255), st.booleans())
def test_damage_is_refused_or_does_no_harm(position: int, change: int, cut: bool) -> None:
    damaged = bytearray(FILE)
    damaged[position] ^= change
    try:
        found = read_npz(io.BytesIO(bytes(damaged[:position] if cut else damaged)), "file.npz", KINDS)
    except ArchiveError:
        return
    assert not cut
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)
