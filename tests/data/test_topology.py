"""The folder of parameterized molecules: round trip, bytes, damage."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import DataError
from pesfit.data.topology import COLUMNS, ForceField, ParameterizedSet, ParameterTable, Topology
from pesfit.parameterize.stage import ParameterizedSetWriter

N_PARAMETERS = {"Bonds": 5, "Angles": 3, "ProperTorsions": 300, "ImproperTorsions": 2, "vdW": 4}
SHAPES = {"connectivity": 2, "bonds": 2, "angles": 3, "propers": 4, "impropers": 4}


def _force_field(seed: int = 0) -> ForceField:
    random = np.random.default_rng(seed)
    tables = {
        handler: ParameterTable(
            handler=handler,
            ids=tuple(f"p{i}" if i else "" for i in range(n)),
            smirks=tuple(f"[#{i + 1}:1]" for i in range(n)),
            mult=np.arange(n, dtype=np.int32) % 3,
            values=random.normal(size=(n, len(COLUMNS[handler]))),
            uses=np.zeros(n, dtype=np.int64),
        )
        for handler, n in N_PARAMETERS.items()
    }
    return ForceField("made.offxml", '<SMIRNOFF note="Å"/>\n', tables, 0.5, 1 / 1.2)


def _topology(n_atoms: int, n_terms: int, seed: int = 0) -> Topology:
    random = np.random.default_rng(seed)

    def indices(high: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        return random.integers(0, high, shape).astype(np.int32)

    return Topology(
        smiles=f"[{seed}:1]",
        connectivity=indices(n_atoms, n_terms, 2),
        bonds=indices(n_atoms, n_terms, 2),
        bond_parameters=indices(N_PARAMETERS["Bonds"], n_terms),
        angles=indices(n_atoms, n_terms, 3),
        angle_parameters=indices(N_PARAMETERS["Angles"], n_terms),
        propers=indices(n_atoms, 2 * n_terms, 4),
        proper_parameters=indices(N_PARAMETERS["ProperTorsions"], 2 * n_terms),
        impropers=indices(n_atoms, n_terms // 2, 4),
        improper_parameters=indices(N_PARAMETERS["ImproperTorsions"], n_terms // 2),
        vdw_parameters=indices(N_PARAMETERS["vdW"], n_atoms),
        charges=random.normal(size=n_atoms),
        charge_method="nagl",
    )


def _assert_same(one: Topology, other: Topology | None) -> None:
    assert other is not None
    for field in fields(Topology):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert ours == theirs


def _write(path: Path, topologies: list[Topology]) -> None:
    with ParameterizedSetWriter(path, _force_field()) as writer:
        for i, topology in enumerate(topologies):
            index = writer.add(topology)
            writer.assign("set", f"one/{i}", index)
            writer.assign("other set", f"{i}", index)


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(0, 90)), max_size=6))
def test_what_is_written_is_read(sizes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("set")
    topologies = [_topology(*size, seed) for seed, size in enumerate(sizes)]
    _write(path, topologies)
    stored = ParameterizedSet.open(path)
    assert len(stored) == len(topologies)
    for i, topology in enumerate(topologies):
        _assert_same(topology, stored.topology("set", f"one/{i}"))
        _assert_same(topology, stored.topology("other set", f"{i}"))
        assert stored.index("set", f"one/{i}") == i
    assert stored.topology("set", "nothing") is None
    assert len(stored.molecules) == 2 * len(topologies)


def test_more_topologies_than_one_batch_holds(tmp_path: Path) -> None:
    topologies = [_topology(3, 2, seed) for seed in range(600)]
    _write(tmp_path, topologies)
    stored = ParameterizedSet.open(tmp_path)
    for i in (0, 255, 256, 599):
        _assert_same(topologies[i], stored[i])


def test_force_field_comes_back_with_its_uses_counted(tmp_path: Path) -> None:
    topologies = [_topology(20, 30, seed) for seed in range(3)]
    _write(tmp_path, topologies)
    stored, force_field = ParameterizedSet.open(tmp_path).force_field, _force_field()
    assert (stored.name, stored.offxml) == (force_field.name, force_field.offxml)
    assert (stored.vdw_scale_14, stored.electrostatics_scale_14) == (0.5, 1 / 1.2)
    for handler, table in force_field.tables.items():
        found = stored.tables[handler]
        assert (found.ids, found.smirks, found.columns) == (table.ids, table.smirks, table.columns)
        np.testing.assert_array_equal(found.mult, table.mult)
        np.testing.assert_array_equal(found.values, table.values)
        used = np.concatenate([topology.parameters(handler) for topology in topologies])
        np.testing.assert_array_equal(found.uses, [(used == row).sum() for row in range(len(table.ids))])


def test_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _write(tmp_path / name, [_topology(9, 8, seed)])
    content = {name: {file.name: file.read_bytes() for file in sorted((tmp_path / name).iterdir())} for name in "abc"}
    assert content["a"] == content["b"]
    assert content["a"]["topologies.arrow"] != content["c"]["topologies.arrow"]
    assert str(tmp_path).encode() not in b"".join(content["a"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bond_parameters": np.array([5], dtype=np.int32)}, "Bonds parameter 5; the force field has 5"),
        ({"bonds": np.array([[0, 70000]], dtype=np.int32)}, "bonds from 0 to 70000; allowed are 0 to 65535"),
        ({"angles": np.array([[0, -1, 2]], dtype=np.int32)}, "angles from -1 to 2; allowed are 0 to 65535"),
    ],
)
def test_indices_that_cannot_be_are_refused(
    change: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int32]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message), ParameterizedSetWriter(tmp_path, _force_field()) as writer:
        writer.add(replace(_topology(3, 1), **change))
    assert not (tmp_path / "force-field.json").exists()


def test_a_folder_that_is_no_parameterized_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist; expected what the stage parameterize writes"):
        ParameterizedSet.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no force-field\.json"):
        ParameterizedSet.open(tmp_path)


@pytest.mark.parametrize("name", ["force-field.json", "topologies.arrow", "molecules.arrow", "force-field.offxml"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_damaged_files_are_refused(name: str, damage: str, tmp_path: Path) -> None:
    _write(tmp_path, [_topology(9, 8)])
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2 if damage == "truncated" else 0])
    with pytest.raises(DataError, match=str(tmp_path)):
        ParameterizedSet.open(tmp_path)


def test_a_stream_that_ends_between_batches_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "short", [_topology(3, 2, seed) for seed in range(256)])
    _write(tmp_path / "long", [_topology(3, 2, seed) for seed in range(257)])
    (tmp_path / "long" / "topologies.arrow").write_bytes((tmp_path / "short" / "topologies.arrow").read_bytes())
    with pytest.raises(DataError, match=r"topologies\.arrow has 256 rows; 257 were written"):
        ParameterizedSet.open(tmp_path / "long")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 1', '"schema_version": 9', "schema version 9; this version reads 1"),
        ("kcal/mol/radian", "kJ/mol/radian", "Angles has the units"),
    ],
)
def test_other_versions_and_units_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    _write(tmp_path, [_topology(9, 8)])
    path = tmp_path / "force-field.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        ParameterizedSet.open(tmp_path)
