"""The one Arrow schema all labels flow through: one row is one molecule with its conformers.

A data set is a folder that `datasets.load_from_disk` opens. `smiles`, `coords`, `energy` and `forces` are descent's schema, so
descent and smee read it as it is. Files are Arrow streams, memory-mapped when read; bytes depend on the rows alone.

The `pesfit` key of the table's metadata holds a JSON object: `schema_version`, `units`, and `level_of_theory` (one entry
for each value of the `source` column). `datasets` drops that key and gives the same text as `info.description`; mind that its
`with_format("numpy")` and `with_format("torch")` also turn float64 into float32 unless told otherwise.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pesfit.core.arrays import FloatArray, IntArray, LongArray
from pesfit.core.exceptions import DataError, Failure
from pesfit.core.files import write_json
from pesfit.core.units import INTERNAL_UNITS

SCHEMA_VERSION = 1
MAX_FRAMES_PER_ROW = 1000
"""Long trajectories are cut into rows of at most this many conformers."""

_BATCH_BYTES = 8 * 2**20
_FILE_BYTES = 500 * 2**20

_COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "smiles": pa.string(),
    "atomic_numbers": pa.list_(pa.int32()),
    "coords": pa.list_(pa.float64()),
    "energy": pa.list_(pa.float64()),
    "forces": pa.list_(pa.float64()),
    "charges": pa.list_(pa.float64()),
    "total_charge": pa.int32(),
    "group": pa.string(),
    "source": pa.string(),
    "frame": pa.list_(pa.int64()),
}
SCHEMA = pa.schema(list(_COLUMNS.items()))
"""Arrow types of the columns, in order; `Record` has their meaning."""


@dataclass(frozen=True)
class Record:
    """One row: a molecule with its conformers.

    Attributes:
        id: unique in its data set, such as `gen2-torsion/8` or `ethanol/00003`.
        smiles: mapped, isomeric, all atoms explicit, map number = index + 1; None where no bonds are known.
        atomic_numbers: shape (n_atoms,).
        coords: [Å], shape (n_conformers, n_atoms, 3).
        energy: [kcal/mol], shape (n_conformers,).
        forces: [kcal/mol/Å], -dE/dx, shape (n_conformers, n_atoms, 3); None where the source has none.
        charges: [e], partial charges that come with the data, shape (n_atoms,); None where the source has none.
        total_charge: [e].
        group: identity of the molecule; rows of one molecule share it, and splits by molecule never divide it.
        source: data set and part of it, such as `espaloma/gen2-torsion`, `rmd17` or `xtb/conformers`.
        frame: index of each conformer in the source's own order, shape (n_conformers,).

    Example:
        >>> import numpy, pesfit
        >>> hydrogen = pesfit.Record(
        ...     id="hydrogen",
        ...     smiles="[H:1][H:2]",
        ...     atomic_numbers=numpy.array([1, 1], dtype=numpy.int32),
        ...     coords=numpy.array([[[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]]]),
        ...     energy=numpy.array([-616.2]),
        ...     forces=None,
        ...     charges=None,
        ...     total_charge=0,
        ...     group="hydrogen",
        ...     source="mine",
        ...     frame=numpy.array([0]),
        ... )
        >>> hydrogen.validate()
        >>> hydrogen.n_conformers, hydrogen.n_atoms
        (1, 2)
    """

    id: str
    smiles: str | None
    atomic_numbers: IntArray
    coords: FloatArray
    energy: FloatArray
    forces: FloatArray | None
    charges: FloatArray | None
    total_charge: int
    group: str
    source: str
    frame: LongArray

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    @property
    def n_conformers(self) -> int:
        """Number of conformers."""
        return len(self.energy)

    def select(self, conformers: LongArray | Sequence[int]) -> Record:
        """Return the record with these conformers alone, in this order.

        Args:
            conformers: positions in this record, shape (n_selected,).
        """
        index = np.asarray(conformers, dtype=np.int64)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("coords", "energy", "forces", "frame"):
            values[name] = None if values[name] is None else values[name][index]
        return Record(**values)

    def rows(self) -> Iterator[Record]:
        """Cut a trajectory into rows of at most `MAX_FRAMES_PER_ROW` conformers, with ids `<id>/<number of the row>`."""
        for number, start in enumerate(range(0, self.n_conformers, MAX_FRAMES_PER_ROW)):
            row = self.select(range(start, min(start + MAX_FRAMES_PER_ROW, self.n_conformers)))
            yield replace(row, id=f"{self.id}/{number:05d}")

    def validate(self) -> None:
        """Check shapes and that every label is finite.

        Raises:
            DataError: naming the molecule, the field and the conformer.
        """
        n_conformers, n_atoms = self.n_conformers, self.n_atoms
        shapes: dict[str, tuple[int, ...]] = {
            "coords": (n_conformers, n_atoms, 3),
            "energy": (n_conformers,),
            "forces": (n_conformers, n_atoms, 3),
            "charges": (n_atoms,),
            "frame": (n_conformers,),
        }
        if n_atoms == 0 or n_conformers == 0:
            raise DataError(f"{self.id}: {n_atoms} atoms and {n_conformers} conformers; at least 1 of each is needed")
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name in ("forces", "charges"):
                continue
            if value.shape != shape:
                raise DataError(f"{self.id}: {name} has shape {value.shape}; expected {shape}")
            finite = np.isfinite(value)
            if not finite.all():
                where = np.argwhere(~finite)[0]
                place = f"atom {where[0]}" if name == "charges" else f"conformer {where[0]} (frame {self.frame[where[0]]})"
                raise DataError(f"{self.id}: {name} of {place} is {value[tuple(where)]}; a finite number is needed")


class DatasetWriter:
    """Write records to a data set, a few megabytes in memory at a time.

    Use as a context manager. The folder is complete, and opens with `datasets.load_from_disk`, when the block ends without an
    exception; write to a temporary name and rename where a half-written one must never be seen (`runtime.output_folder`).

    Args:
        path: folder to write; made if it is missing.
        level_of_theory: for each value of the `source` column, such as `{"xtb/conformers": "GFN2-xTB"}`.

    Raises:
        DataError: where a record is malformed, or its source has no level of theory.

    Example:
        >>> import pesfit
        >>> from pathlib import Path
        >>> with pesfit.DatasetWriter(Path("first-ten"), {"xtb/conformers": "GFN2-xTB"}) as writer:
        ...     for i, record in enumerate(pesfit.ConformerDataset("data/arrow/xtb")):
        ...         if i < 10:
        ...             writer.write(record)
    """

    def __init__(self, path: Path, level_of_theory: Mapping[str, str]) -> None:
        self._path = path
        self._levels = dict(sorted(level_of_theory.items()))
        metadata = {"schema_version": SCHEMA_VERSION, "units": INTERNAL_UNITS, "level_of_theory": self._levels}
        self._metadata = json.dumps(metadata, sort_keys=True)
        self._schema = SCHEMA.with_metadata(
            {
                "huggingface": json.dumps({"info": {"features": _features()}}, sort_keys=True),
                "pesfit": self._metadata,
            }
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes_in_rows = 0
        self._files: list[Path] = []
        self._bytes_in_file = 0
        self._stream: pa.RecordBatchStreamWriter | None = None
        self.n_records = 0

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, record: Record) -> None:
        """Append one record."""
        record.validate()
        if record.source not in self._levels:
            raise DataError(f"{record.id}: source {record.source!r} has no level of theory; known: {', '.join(self._levels)}")
        row = {name: getattr(record, name) for name in SCHEMA.names}
        for name in ("coords", "forces"):
            if row[name] is not None:
                row[name] = row[name].reshape(-1)
        self._rows.append(row)
        self._bytes_in_rows += 8 * record.coords.size * (1 if record.forces is None else 2)
        self.n_records += 1
        if self._bytes_in_rows >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows and self._files:
            return
        if self._stream is not None and self._bytes_in_file >= _FILE_BYTES:
            self._stream.close()
            self._stream = None
        if self._stream is None:
            self._files.append(self._path / f"data-{len(self._files):05d}.arrow")
            self._stream = pa.ipc.new_stream(self._files[-1], self._schema)
            self._bytes_in_file = 0
        columns = [pa.array([row[name] for row in self._rows], type=kind) for name, kind in _COLUMNS.items()]
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        self._bytes_in_file += self._bytes_in_rows
        self._rows, self._bytes_in_rows = [], 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        if self._stream is not None:
            self._stream.close()
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        names = [f"data-{i:05d}-of-{len(self._files):05d}.arrow" for i in range(len(self._files))]
        digest = hashlib.sha256()
        for file, name in zip(self._files, names, strict=True):
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(2**20), b""):
                    digest.update(block)
            file.replace(self._path / name)
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": digest.hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": self._metadata, "features": _features(), "homepage": "", "license": ""}
        write_json(self._path / "state.json", state)
        write_json(self._path / "dataset_info.json", info)


def _features() -> dict[str, Any]:
    """Describe the columns as the Hugging Face library does."""

    def feature(kind: pa.DataType) -> dict[str, Any]:
        if pa.types.is_list(kind):
            return {"feature": feature(kind.value_type), "_type": "List"}
        return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}

    return {name: feature(kind) for name, kind in _COLUMNS.items()}


class ConformerDataset:
    """A data set on disk, memory-mapped; rows are read when asked for.

    Args:
        path: folder that `DatasetWriter` wrote.

    Raises:
        DataError: where it is missing, incomplete, or has other columns or another schema version.

    Example:
        >>> import pesfit
        >>> dataset = pesfit.ConformerDataset("data/arrow/xtb")
        >>> dataset.level_of_theory["xtb/conformers"]
        'GFN2-xTB'
        >>> all(record.coords.shape == (record.n_conformers, record.n_atoms, 3) for record in dataset)
        True
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        state = self.path / "state.json"
        if not state.is_file():
            what = "has no state.json" if self.path.is_dir() else "is not a folder" if self.path.exists() else "does not exist"
            raise DataError(f"{self.path} {what}; a data set is a folder such as data/arrow/xtb")
        try:
            names = [entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
            tables = [pa.ipc.open_stream(pa.memory_map(str(self.path / name))).read_all() for name in names]
            self.table = pa.concat_tables(tables)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read as an Arrow data set: {error}") from error
        missing = [name for name in SCHEMA.names if name not in self.table.schema.names]
        if missing:
            raise DataError(f"{self.path} lacks the columns {', '.join(missing)}; expected {', '.join(SCHEMA.names)}")
        self.metadata: dict[str, Any] = json.loads((self.table.schema.metadata or {}).get(b"pesfit", b"{}"))
        if self.metadata.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{self.path} has schema version {self.metadata.get('schema_version')}; this version reads {SCHEMA_VERSION}"
            )

    @property
    def level_of_theory(self) -> dict[str, str]:
        """Level of theory of each source in the data set."""
        return dict(self.metadata["level_of_theory"])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Record]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, index: int) -> Record:
        row = {name: self.table.column(name)[index] for name in SCHEMA.names}

        def array(name: str) -> Any:
            scalar = row[name]
            return scalar.values.to_numpy() if scalar.is_valid else None

        atomic_numbers, energy = array("atomic_numbers"), array("energy")
        shape = (len(energy), len(atomic_numbers), 3)
        forces = array("forces")
        return Record(
            id=row["id"].as_py(),
            smiles=row["smiles"].as_py(),
            atomic_numbers=atomic_numbers,
            coords=array("coords").reshape(shape),
            energy=energy,
            forces=None if forces is None else forces.reshape(shape),
            charges=array("charges"),
            total_charge=row["total_charge"].as_py(),
            group=row["group"].as_py(),
            source=row["source"].as_py(),
            frame=array("frame"),
        )


def open_datasets(folder: Path | str) -> dict[str, ConformerDataset]:
    """Open every data set in a folder such as `data/arrow`, by name, in alphabetical order.

    Raises:
        DataError: where there is none.

    Example:
        >>> import pesfit
        >>> datasets = pesfit.open_datasets("data/arrow")
        >>> list(datasets)
        ['xtb']
        >>> datasets["xtb"][0].source
        'xtb/conformers'
    """
    folder = Path(folder)
    found = {path.parent.name: ConformerDataset(path.parent) for path in sorted(folder.glob("*/state.json"))}
    if not found:
        raise DataError(f"{folder} holds no data set; run the stage that writes it, or look at `sources` in params.yaml")
    return found


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Write a stage's failures as CSV: id, stage, class, message."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "stage", "class", "message"])
        writer.writerows([failure.id, failure.stage, failure.kind, failure.message] for failure in failures)


def read_failures(path: Path) -> list[Failure]:
    """Read what `write_failures` wrote."""
    with path.open(newline="") as stream:
        return [Failure(row["id"], row["stage"], row["class"], row["message"]) for row in csv.DictReader(stream)]
