"""Frames of MD17 and rMD17 become rows; files that are not theirs are refused."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import ArchiveError, DataError
from pesfit.params.preparation import ConvertMD17
from pesfit.sources.md17 import RMD17Archive, read_md17, read_npz
from tests.sources.synthetic import make_frames, npz_bytes, tar_bytes

ALL = ConvertMD17()
FRAMES = make_frames("CCO", 25)
SPLITS = {
    f"rmd17/splits/index_{part}_0{number}.csv": "\n".join(
        str(5 * number - 5 + i + 20 * (part == "test")) for i in range(3)
    ).encode()
    for number in range(1, 6)
    for part in ("train", "test")
}


def md17_arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {"E": FRAMES.energy[:, None], "F": FRAMES.forces, "R": FRAMES.coords, "z": FRAMES.atomic_numbers.astype(np.uint8)}
    return {**arrays, **changes}


def rmd17_arrays() -> dict[str, np.ndarray]:
    old = {"old_indices": np.arange(25), "old_energies": FRAMES.energy, "old_forces": FRAMES.forces}
    names = {"nuclear_charges": "z", "coords": "R", "forces": "F"}
    return {**{name: md17_arrays()[key] for name, key in names.items()}, "energies": FRAMES.energy, **old}


def rmd17_files() -> dict[str, bytes]:
    return {"rmd17/npz_data/rmd17_ethanol.npz": npz_bytes(rmd17_arrays()), **SPLITS}


def write_md17(folder: Path, name: str = "md17_ethanol.npz", **changes: np.ndarray) -> Path:
    (folder / name).write_bytes(npz_bytes(md17_arrays(**changes)))
    return folder


def write_rmd17(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "rmd17.tar.bz2"
    path.write_bytes(tar_bytes(files, "w:bz2"))
    return path


def test_rows_hold_all_frames_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pesfit.sources.md17.MAX_FRAMES_PER_ROW", 10)
    records = list(read_md17(write_md17(tmp_path), ["ethanol"], ALL))
    assert [record.id for record in records] == ["ethanol/00000", "ethanol/00001", "ethanol/00002"]
    assert [record.n_conformers for record in records] == [10, 10, 5]
    for record in records:
        record.validate()
        assert (record.source, record.group, record.total_charge, record.charges) == ("md17", "CCO", 0, None)
    np.testing.assert_array_equal(np.concatenate([record.energy for record in records]), FRAMES.energy)
    np.testing.assert_array_equal(np.concatenate([record.coords for record in records]), FRAMES.coords)
    np.testing.assert_array_equal(
        np.concatenate([record.forces for record in records if record.forces is not None]), FRAMES.forces
    )
    np.testing.assert_array_equal(np.concatenate([record.frame for record in records]), np.arange(25))


def test_first_frames_alone(tmp_path: Path) -> None:
    (record,) = read_md17(write_md17(tmp_path), ["ethanol"], ConvertMD17(max_frames=7))
    np.testing.assert_array_equal(record.frame, np.arange(7))


def test_files_with_other_names(tmp_path: Path) -> None:
    frames = make_frames("c1ccccc1", 6)
    changes = {"E": frames.energy, "F": frames.forces, "R": frames.coords, "z": frames.atomic_numbers}
    (record,) = read_md17(write_md17(tmp_path, "md17_benzene2017.npz", **changes), ["benzene"], ALL)
    assert (record.id, record.group) == ("benzene/00000", "c1ccccc1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"R": FRAMES.coords[:, :8]}, r"R has shape \(25, 8, 3\); expected \(frames, 9, 3\)"),
        ({"R": FRAMES.coords[:0]}, r"R has shape \(0, 9, 3\)"),
        ({"F": FRAMES.forces[:5]}, r"F has shape \(5, 9, 3\); expected \(25, 9, 3\)"),
        ({"E": FRAMES.energy[:5]}, r"E has shape \(5,\); expected \(25,\) or \(25, 1\)"),
        ({"z": np.array([6, 6, 8, 1, 1, 1, 1, 1, 0])}, "does not hold atomic numbers"),
        ({"z": np.array([6, 6, 7, 1, 1, 1, 1, 1, 1])}, "frame 0 has the atoms H6 C2 N1"),
        ({"R": FRAMES.coords[:, ::-1]}, "frame 0: the atoms that are neighbors"),
        ({"E": np.array(["a"] * 25)}, "E: has type <U1"),
    ],
)
def test_wrong_arrays_are_named_with_their_file(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=rf"md17_ethanol\.npz: .*{message}"):
        list(read_md17(write_md17(tmp_path, **changes), ["ethanol"], ALL))


def test_missing_files_and_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"md17_toluene\.npz is missing; stage 01_download"):
        list(read_md17(tmp_path, ["toluene"], ALL))
    arrays = md17_arrays()
    del arrays["F"]
    (tmp_path / "md17_ethanol.npz").write_bytes(npz_bytes(arrays))
    with pytest.raises(ArchiveError, match=r"md17_ethanol\.npz: has no F; its keys are E, R, z"):
        list(read_md17(tmp_path, ["ethanol"], ALL))


def test_archive_gives_rows_and_splits(tmp_path: Path) -> None:
    files = {**rmd17_files(), "rmd17/readme.txt": b"", "rmd17/npz_data/rmd17_toluene.npz": b"not asked for, never opened"}
    archive = RMD17Archive(write_rmd17(tmp_path, files), ["ethanol"], ALL)
    (record,) = archive.records()
    np.testing.assert_array_equal(record.energy, FRAMES.energy)
    assert (record.id, record.source) == ("ethanol/00000", "rmd17")
    assert list(archive.splits) == ["1", "2", "3", "4", "5"]
    assert archive.splits["2"] == {"train": [5, 6, 7], "test": [25, 26, 27]}


def test_archive_without_a_molecule_is_refused(tmp_path: Path) -> None:
    archive = RMD17Archive(write_rmd17(tmp_path, rmd17_files()), ["ethanol", "aspirin"], ALL)
    with pytest.raises(DataError, match=r"does not hold aspirin; of the molecules asked for it holds \['ethanol'\]"):
        list(archive.records())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"lacks index_train_03\.csv of the published splits"),
        (b"1\n2.5\n", r"index_train_03\.csv: '2.5' is not the index of a frame"),
        (b"1\n-2\n", r"index_train_03\.csv: '-2' is not"),
        (b"", r"index_train_03\.csv is empty"),
        (b"1\n1\n", r"index_train_03\.csv: an index is there twice"),
        (b"1\n30\n", "split 3 has frame 30 both in train and in test"),
    ],
)
def test_wrong_splits_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    files = rmd17_files()
    name = "rmd17/splits/index_train_03.csv"
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(ArchiveError, match=message):
        list(RMD17Archive(write_rmd17(tmp_path, files), ["ethanol"], ALL).records())


def test_damaged_npz_in_a_whole_archive_is_named(tmp_path: Path) -> None:
    files = rmd17_files()
    files["rmd17/npz_data/rmd17_ethanol.npz"] = files["rmd17/npz_data/rmd17_ethanol.npz"][:-50]
    with pytest.raises(ArchiveError, match=r"rmd17\.tar\.bz2: rmd17/npz_data/rmd17_ethanol\.npz: truncated or corrupted"):
        list(RMD17Archive(write_rmd17(tmp_path, files), ["ethanol"], ALL).records())


@pytest.mark.slow
def test_real_archive(real_data: Path, rmd17: Path) -> None:
    archive = RMD17Archive(real_data / "mirror" / "rmd17" / "rmd17.tar.bz2", ["ethanol"], ALL)
    records = list(archive.records())
    assert [record.n_conformers for record in records] == [1000] * 9 + [633]
    arrays = np.load(rmd17 / "npz_data/rmd17_ethanol.npz")
    expected = [int(row[0]) for row in csv.reader((rmd17 / "splits/index_test_04.csv").read_text().splitlines())]
    assert records[3].forces is not None
    np.testing.assert_array_equal(records[3].energy, arrays["energies"][3000:4000])
    np.testing.assert_array_equal(records[3].forces, arrays["forces"][3000:4000])
    np.testing.assert_array_equal(records[3].coords, arrays["coords"][3000:4000])
    assert archive.splits["4"]["test"] == expected
    assert all(len(split["train"]) == len(split["test"]) == 1000 for split in archive.splits.values())


def test_real_file(real_data: Path) -> None:
    records = list(read_md17(real_data / "mirror" / "md17", ["ethanol"], ALL))
    assert [record.n_conformers for record in records] == [1000, 1000]
    assert records[0].group == "CCO"


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
