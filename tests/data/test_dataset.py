"""The Arrow schema: what is written is what is read, by us, by `datasets`, and under descent's column names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import pesfit.data.dataset as module
from pesfit.core.exceptions import DataError, Failure, TooManyFailuresError, check_failed_fraction
from pesfit.data.dataset import SCHEMA, ConformerDataset, DatasetWriter, Record, open_datasets, read_failures, write_failures


def make_record(seed: int = 0, *, n_conformers: int = 3, n_atoms: int = 4, forces: bool = True) -> Record:
    rng = np.random.default_rng(seed)
    shape = (n_conformers, n_atoms, 3)
    return Record(
        id=f"record-{seed}",
        smiles=None if seed % 2 else "[H:1][O:2][O:3][H:4]",
        atomic_numbers=np.array([1, 8, 8, 1][:n_atoms], dtype=np.int32),
        coords=rng.normal(size=shape),
        energy=rng.normal(size=n_conformers) - 1e5,
        forces=rng.normal(size=shape) if forces else None,
        charges=None if seed % 3 else rng.normal(size=n_atoms),
        total_charge=-seed,
        group="OO",
        source="made-up",
        frame=np.arange(n_conformers) * 7,
    )


def write(path: Path, records: list[Record]) -> Path:
    with DatasetWriter(path, {"made-up": "none"}) as writer:
        for record in records:
            writer.write(record)
    return path


def assert_same(a: Record, b: Record) -> None:
    for field in dataclasses.fields(Record):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    records = [make_record(i, forces=i != 2) for i in range(5)]
    data_set = ConformerDataset(write(tmp_path / "a", records))
    assert len(data_set) == 5
    for read, written in zip(data_set, records, strict=True):
        assert_same(read, written)
    assert data_set.metadata["units"]["forces"] == "kcal/mol/angstrom"
    assert data_set.level_of_theory == {"made-up": "none"}


def test_several_files_and_batches_read_as_one_and_bytes_depend_on_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 500)
    monkeypatch.setattr(module, "_FILE_BYTES", 1500)
    records = [make_record(i) for i in range(12)]
    first, second = (write(tmp_path / name, records) for name in "ab")
    names = sorted(path.name for path in first.iterdir())
    assert "data-00000-of-00004.arrow" in names
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]
    for read, written in zip(ConformerDataset(first), records, strict=True):
        assert_same(read, written)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_hugging_face_library_opens_it(tmp_path: Path) -> None:
    import datasets

    record = make_record()
    data_set = datasets.load_from_disk(str(write(tmp_path / "a", [record])))
    assert data_set.column_names == SCHEMA.names
    row = data_set[0]
    np.testing.assert_array_equal(np.reshape(row["coords"], (3, 4, 3)), record.coords)
    np.testing.assert_array_equal(row["energy"], record.energy)
    assert json.loads(data_set.info.description)["units"]["forces"] == "kcal/mol/angstrom"


def test_the_columns_that_descent_reads_have_its_types() -> None:
    import pyarrow as pa

    # https://github.com/openforcefield/descent: descent.targets.energy.DATA_SCHEMA
    floats = pa.list_(pa.float64())
    for name, kind in {"smiles": pa.string(), "coords": floats, "energy": floats, "forces": floats}.items():
        assert SCHEMA.field(name).type == kind


def test_descent_itself_reads_it(tmp_path: Path) -> None:
    energy = pytest.importorskip("descent.targets.energy", reason="descent is not installed")
    import datasets

    data_set = datasets.load_from_disk(str(write(tmp_path / "a", [make_record()])))
    assert energy.extract_smiles(data_set) == ["[H:1][O:2][O:3][H:4]"]


def test_an_empty_data_set_is_a_data_set(tmp_path: Path) -> None:
    assert len(ConformerDataset(write(tmp_path / "a", []))) == 0


def test_select_keeps_frames_with_their_conformers() -> None:
    record = make_record()
    chosen = record.select([2, 0])
    np.testing.assert_array_equal(chosen.frame, [14, 0])
    np.testing.assert_array_equal(chosen.coords, record.coords[[2, 0]])
    np.testing.assert_array_equal(chosen.energy, record.energy[[2, 0]])
    assert chosen.n_atoms == record.n_atoms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": np.array([0.0, np.nan, 0.0])}, r"record-0: energy of conformer 1 \(frame 7\) is nan"),
        ({"charges": np.array([0.0, 0.0, 0.0, np.inf])}, "record-0: charges of atom 3 is inf"),
        ({"forces": np.zeros((3, 5, 3))}, r"record-0: forces has shape \(3, 5, 3\); expected \(3, 4, 3\)"),
        ({"source": "elsewhere"}, "source 'elsewhere' has no level of theory"),
        ({"energy": np.zeros(0)}, "4 atoms and 0 conformers"),
    ],
)
def test_a_malformed_record_is_refused_and_nothing_is_finished(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "a", [make_record(2), dataclasses.replace(make_record(), **changes)])  # type: ignore[arg-type]
    assert not (tmp_path / "a" / "state.json").exists()


def test_a_path_that_is_no_data_set_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ConformerDataset(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no state\.json"):
        ConformerDataset(tmp_path)
    with pytest.raises(DataError, match="holds no data set"):
        open_datasets(tmp_path)
    path = write(tmp_path / "a", [make_record()])
    data = path / "data-00000-of-00001.arrow"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as an Arrow data set"):
        ConformerDataset(path)


def test_failures_survive_a_round_trip_and_too_many_stop_the_stage(tmp_path: Path) -> None:
    failures = [Failure.from_exception(f"m{i}", "convert", ValueError('odd,\n "quoted"')) for i in range(7)]
    write_failures(tmp_path / "failures.csv", failures)
    assert read_failures(tmp_path / "failures.csv") == failures
    check_failed_fraction(failures, 70, 0.1)
    lacking = [Failure(str(i), "rollout", "UnknownElementError", "not trained on N") for i in range(60)]
    check_failed_fraction([*failures, *lacking], 70, 0.1)
    with pytest.raises(TooManyFailuresError, match=r'(?s)7 of 60 molecules failed.*m0: ValueError: odd, "quoted".*2 more'):
        check_failed_fraction(failures, 60, 0.1)
