"""Minima with Hessians, and relaxed torsion scans: what the stage `minima` writes, and fits and benchmarks read.

A folder such as `data/minima` holds

- `minima/`: a data set (`data.dataset`), one row for each molecule, its conformers being its minima, lowest first;
- `scans/`: a data set, one row for each scan, its conformers being relaxed points in the order of their dihedral angles;
- `hessians.arrow`: `id` as in `minima/`, and `hessian` [kcal/mol/Å²], flat (n_minima * 3 n_atoms * 3 n_atoms), row-major;
- `dihedrals.arrow`: `id` as in `scans/`, `molecule` (its id in `data/arrow`), `atoms`, flat (n_dihedrals * 4), and `angles` [rad]
  held, flat (n_points * n_dihedrals);
- `failures.csv`.

`dataset` and `molecule` name the row of `data/arrow` the molecule comes from, under which `data/parameterized` has its topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record

MINIMA, SCANS = "minima", "scans"
_HESSIANS, _DIHEDRALS = "hessians.arrow", "dihedrals.arrow"
_HESSIAN_SCHEMA = pa.schema([("id", pa.string()), ("dataset", pa.string()), ("hessian", pa.list_(pa.float64()))])
_DIHEDRAL_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("dataset", pa.string()),
        ("molecule", pa.string()),
        ("atoms", pa.list_(pa.int32())),
        ("angles", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True, eq=False)
class MoleculeMinima:
    """The minima of one molecule.

    Attributes:
        record: conformers are minima, lowest first; its id is that of the molecule in `data/arrow`.
        dataset: name of the data set in `data/arrow` that has the molecule.
        hessians: [kcal/mol/Å²], shape (n_minima, 3 n_atoms, 3 n_atoms); None where there are none.
    """

    record: Record
    dataset: str
    hessians: FloatArray | None


@dataclass(frozen=True, eq=False)
class TorsionScan:
    """One relaxed scan of a dihedral, or of several.

    Attributes:
        record: conformers are the relaxed points; `frame` numbers them.
        dataset, molecule: data set and id of the molecule in `data/arrow`.
        atoms: of the dihedrals that were held, those that vary first, shape (n_dihedrals, 4).
        angles: [rad] they were held at while the rest relaxed, shape (n_points, n_dihedrals).
    """

    record: Record
    dataset: str
    molecule: str
    atoms: LongArray
    angles: FloatArray


@dataclass(frozen=True, eq=False)
class Landscapes:
    """All minima and scans of a folder, in memory: thousands of molecules at most.

    Attributes:
        minima: one for each molecule that has any.
        scans: any number for each molecule.
        level_of_theory: by source.
    """

    minima: tuple[MoleculeMinima, ...]
    scans: tuple[TorsionScan, ...]
    level_of_theory: Mapping[str, str]

    def by_molecule(self) -> Iterator[tuple[MoleculeMinima, tuple[TorsionScan, ...]]]:
        """Yield the minima of each molecule, with its scans; then molecules that have scans alone, with no conformer among the minima."""
        scans: dict[tuple[str, str], list[TorsionScan]] = {}
        for scan in self.scans:
            scans.setdefault((scan.dataset, scan.molecule), []).append(scan)
        for minima in self.minima:
            yield minima, tuple(scans.pop((minima.dataset, minima.record.id), ()))
        for (dataset, molecule), alone in scans.items():
            yield MoleculeMinima(replace(alone[0].record.select([]), id=molecule), dataset, None), tuple(alone)

    def write(self, folder: Path) -> None:
        """Write the folder; the same content gives the same bytes."""
        for name, records in (
            (MINIMA, [each.record for each in self.minima]),
            (SCANS, [each.record for each in self.scans]),
        ):
            with DatasetWriter(folder / name, self.level_of_theory) as writer:
                for record in records:
                    writer.write(record)
        hessians = [
            {"id": each.record.id, "dataset": each.dataset, "hessian": None if each.hessians is None else each.hessians.ravel()}
            for each in self.minima
        ]
        dihedrals = [
            {
                "id": scan.record.id,
                "dataset": scan.dataset,
                "molecule": scan.molecule,
                "atoms": scan.atoms.ravel(),
                "angles": scan.angles.ravel(),
            }
            for scan in self.scans
        ]
        _write_table(folder / _HESSIANS, hessians, _HESSIAN_SCHEMA)
        _write_table(folder / _DIHEDRALS, dihedrals, _DIHEDRAL_SCHEMA)

    @classmethod
    def open(cls, folder: Path | str) -> Landscapes:
        """Read what `write` wrote.

        Raises:
            DataError: where the folder or a file of it is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        minima, scans = (ConformerDataset(folder / name) for name in (MINIMA, SCANS))
        hessians, dihedrals = (
            _read_table(folder / _HESSIANS, _HESSIAN_SCHEMA),
            _read_table(folder / _DIHEDRALS, _DIHEDRAL_SCHEMA),
        )
        for dataset, table, name in ((minima, hessians, _HESSIANS), (scans, dihedrals, _DIHEDRALS)):
            if dataset.table.column("id").to_pylist() != table.column("id").to_pylist():
                raise DataError(f"{folder / name} does not have the rows of {dataset.path}; run the stage minima again")
        molecules = []
        for record, row in zip(minima, hessians.to_pylist(), strict=True):
            size = 3 * record.n_atoms
            flat = None if row["hessian"] is None else np.array(row["hessian"])
            if flat is not None and flat.size != record.n_conformers * size * size:
                raise DataError(
                    f"{folder / _HESSIANS}: {record.id} has {flat.size} numbers; {record.n_conformers * size * size} expected"
                )
            shaped = None if flat is None else flat.reshape(record.n_conformers, size, size)
            molecules.append(MoleculeMinima(record, row["dataset"], shaped))
        found = []
        for record, row in zip(scans, dihedrals.to_pylist(), strict=True):
            atoms, angles = np.array(row["atoms"], dtype=np.int64), np.array(row["angles"])
            n_dihedrals = len(atoms) // 4
            if not n_dihedrals or len(atoms) % 4 or len(angles) != record.n_conformers * n_dihedrals:
                raise DataError(f"{folder / _DIHEDRALS}: {record.id} has {len(atoms)} atoms and {len(angles)} angles")
            held = atoms.reshape(n_dihedrals, 4), angles.reshape(record.n_conformers, n_dihedrals)
            found.append(TorsionScan(record, row["dataset"], row["molecule"], *held))
        return cls(tuple(molecules), tuple(found), minima.level_of_theory | scans.level_of_theory)


def _write_table(path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> None:
    columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in schema]
    with pa.ipc.new_stream(path, schema) as stream:
        stream.write_batch(pa.record_batch(columns, schema=schema))


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if table.schema != schema:
        raise DataError(f"{path} has the columns {', '.join(table.schema.names)}; expected {', '.join(schema.names)}")
    return table
