"""Entries of Espaloma's archives become records with the right units, signs and order of axes."""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openff.toolkit import Molecule
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.exceptions import ArchiveError, DataError, MoleculeError
from pesfit.data.sources import MERGED_SUBSET
from pesfit.params.preparation import ConvertEspaloma
from pesfit.sources.espaloma import (
    SUBSETS,
    ArchiveEntry,
    build_molecule,
    convert_entry,
    convert_espaloma,
    read_entries,
    read_openff_json,
)
from tests.sources.synthetic import Frames, entry_files, espaloma_files, make_frames, openff_json, tar_bytes

PARAMS = ConvertEspaloma()
FRAMES = make_frames("C[C@H](O)C(=O)[O-]", 12)


def entry(frames: Frames = FRAMES, **changes: object) -> ArchiveEntry:
    return ArchiveEntry("gen2-torsion/8", "gen2-torsion", "raw/gen2-torsion.tar.gz", espaloma_files(frames, **changes))  # type: ignore[arg-type]


def write_archive(folder: Path, subset: str, entries: dict[str, bytes]) -> Path:
    path = folder / f"{subset}.tar.gz"
    path.write_bytes(tar_bytes(entries))
    return path


def test_record_has_our_units_signs_and_axes() -> None:
    record = convert_entry(entry(), PARAMS).record
    assert record is not None
    record.validate()
    np.testing.assert_allclose(record.energy, FRAMES.energy, rtol=1e-14)
    np.testing.assert_allclose(record.coords, FRAMES.coords, atol=1e-5)
    np.testing.assert_allclose(record.forces, FRAMES.forces, atol=1e-3)
    np.testing.assert_array_equal(record.atomic_numbers, FRAMES.atomic_numbers)
    np.testing.assert_array_equal(record.frame, np.arange(12))
    assert record.charges is not None
    assert record.charges.sum() == pytest.approx(-1.0, abs=1e-6)
    assert record.total_charge == -1
    assert (record.id, record.source, record.group) == ("gen2-torsion/8", "espaloma/gen2-torsion", "C[C@H](O)C(=O)[O-]")


def test_real_forces_are_minus_the_slope_of_the_energy(real_data: Path) -> None:
    """Along a real torsion scan the energy must rise against the forces: the sign is that of the data, not of a convention."""
    path = real_data / "mirror" / "espaloma" / "gen2-torsion.tar.gz"
    records = {item.id: convert_entry(item, PARAMS).record for item in read_entries(path, "gen2-torsion")}
    record = records["gen2-torsion/943"]
    assert record is not None
    assert record.forces is not None
    n_steps = 0
    for left in range(record.n_conformers):
        for right in range(left):
            step = record.coords[right] - record.coords[left]
            if np.sqrt((step**2).sum(axis=1).mean()) < 0.12:  # the scan keeps its frame: near conformers need no alignment
                n_steps += 1
                rise = record.energy[right] - record.energy[left]
                work = -0.5 * ((record.forces[left] + record.forces[right]) * step).sum()
                assert work == pytest.approx(rise, abs=0.1 * abs(rise) + 0.05)
    assert n_steps >= 5


def test_real_archives_convert(real_data: Path) -> None:
    counts = {}
    for subset in ("gen2-torsion", "protein-torsion", "rna-diverse", MERGED_SUBSET):
        for item in read_entries(real_data / "mirror" / "espaloma" / f"{subset}.tar.gz", subset):
            converted = convert_entry(item, PARAMS)
            assert converted.record is not None
            assert converted.n_other_bonds == 0
            counts[item.id] = (converted.n_conformers_read, converted.record.n_conformers)
    assert counts == {
        "gen2-torsion/3": (24, 24),
        "gen2-torsion/105": (24, 24),
        "gen2-torsion/943": (24, 24),
        "gen2-torsion/92": (13, 13),
        "protein-torsion/2": (576, 576),
        "protein-torsion/0": (576, 576),
        "rna-diverse/14": (61, 53),
        "rna-diverse/15": (58, 58),
        f"{MERGED_SUBSET}/1/gen2-torsion/3-30": (24, 24),
    }


def test_golden_entries_have_the_golden_labels(real_data: Path) -> None:
    from pesfit.core.units import BOHR, HARTREE

    folder = real_data / "golden" / "dgl" / "gen2-opt" / "12"
    files = {name: (folder / name).read_bytes() for name in ("heterograph.bin", "homograph.bin", "mol.json")}
    record = convert_entry(ArchiveEntry("gen2-opt/12", "gen2-opt", "a", files), PARAMS).record
    golden = np.load(folder / "arrays.npz")
    assert record is not None
    assert record.forces is not None
    np.testing.assert_array_equal(record.atomic_numbers, golden["Z"])
    np.testing.assert_allclose(record.energy, golden["g/u_qm"][0] * HARTREE, rtol=1e-15)
    np.testing.assert_allclose(record.coords[3, 5], golden["n1/xyz"][5, 3].astype(float) * BOHR, rtol=1e-15)
    np.testing.assert_allclose(record.forces[3, 5], -golden["n1/u_qm_prime"][5, 3].astype(float) * HARTREE / BOHR, rtol=1e-15)


def test_filter_keeps_the_window_and_leaves_out_small_entries() -> None:
    narrow = ConvertEspaloma(energy_window_hartree=float(np.ptp(FRAMES.energy)) / 627.5 / 2, min_conformers=1)
    converted = convert_entry(entry(), narrow)
    expected = np.flatnonzero(FRAMES.energy <= FRAMES.energy.min() + np.ptp(FRAMES.energy) / 2)
    assert converted.record is not None
    np.testing.assert_array_equal(converted.record.frame, expected)
    assert 0 < len(expected) < 12
    assert converted.n_conformers_read == 12
    left_out = convert_entry(entry(), ConvertEspaloma(min_conformers=13))
    assert (left_out.record, left_out.failure, left_out.n_conformers_read) == (None, None, 12)


def test_real_entry_without_u_qm_is_refused_by_name(real_data: Path) -> None:
    path = real_data / "mirror" / "bad" / "protein-torsion-without-u_qm.tar.gz"
    (item,) = read_entries(path, "protein-torsion")
    with pytest.raises(
        ArchiveError, match=r"without-u_qm\.tar\.gz: protein-torsion/0/heterograph\.bin: .* no u_qm .*it has .*u_ref"
    ):
        convert_entry(item, PARAMS)


@pytest.mark.parametrize("key", ["u_qm", "xyz", "u_qm_prime"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ArchiveError, match=rf"gen2-torsion\.tar\.gz: gen2-torsion/8/heterograph\.bin: the entry has no {key} "):
        convert_entry(entry(leave_out=[key]), PARAMS)


def test_charges_may_be_missing_but_not_wrong() -> None:
    record = convert_entry(entry(leave_out=["q_ref"]), PARAMS).record
    assert record is not None
    assert record.charges is None
    n = len(FRAMES.atomic_numbers)
    failure = convert_entry(entry(q_ref=np.zeros((n, 1))), PARAMS).failure
    assert failure is not None
    assert failure.message == "its charges add up to 0.000 e, its formal charges to -1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u_qm": np.zeros((1, 11))}, r"n1/xyz has shape \(11, 12, 3\); expected \(atoms, conformers, 3\) = \(11, 11, 3\)"),
        ({"u_qm": np.zeros((12, 1))}, r"g/u_qm has shape"),
        ({"xyz": np.zeros((11, 12, 3), dtype=np.int64)}, "n1/xyz has type int64"),
    ],
)
def test_wrong_shapes_and_types_are_named(changes: dict[str, np.ndarray], message: str) -> None:
    if "u_qm" in changes and changes["u_qm"].shape[0] != 1:
        changes = {"u_qm": np.zeros((1, 0))}
    with pytest.raises(ArchiveError, match=message):
        convert_entry(entry(**changes), PARAMS)


def test_labels_that_are_not_numbers_are_refused() -> None:
    energy = (FRAMES.energy / 627.5)[None].copy()
    energy[0, 3] = np.nan
    with pytest.raises(DataError, match="gen2-torsion/8: energy of conformer 3"):
        convert_entry(entry(u_qm=energy), PARAMS)


def test_molecule_in_another_order_than_its_graph_is_refused() -> None:
    files = espaloma_files(FRAMES)
    molecule = json.loads(json.loads(files["mol.json"]))
    for bond in molecule["bonds"]:  # the last two hydrogens change places
        for end in ("atom1", "atom2"):
            bond[end] = {3: 10, 10: 3}.get(bond[end], bond[end])
    files["mol.json"] = json.dumps(json.dumps(molecule)).encode()
    with pytest.raises(ArchiveError, match=r"mol\.json: its bonds are not those of heterograph\.bin"):
        convert_entry(ArchiveEntry("gen2-opt/1", "gen2-opt", "a", files), PARAMS)
    molecule["atoms"].reverse()
    files["mol.json"] = json.dumps(molecule).encode()
    with pytest.raises(ArchiveError, match=r"mol\.json: has the elements"):
        convert_entry(ArchiveEntry("gen2-opt/1", "gen2-opt", "a", files), PARAMS)


def test_what_rdkit_refuses_is_a_failure() -> None:
    files = espaloma_files(FRAMES)
    molecule = json.loads(json.loads(files["mol.json"]))
    molecule["bonds"][0]["bond_order"] = 3
    files["mol.json"] = json.dumps(molecule).encode()
    converted = convert_entry(ArchiveEntry("gen2-opt/1", "gen2-opt", "a", files), PARAMS)
    assert converted.record is None
    assert converted.failure is not None
    assert (converted.failure.id, converted.failure.stage, converted.failure.kind) == ("gen2-opt/1", "convert", "MoleculeError")
    assert "RDKit refuses the molecule" in converted.failure.message


def test_wrong_sign_is_a_failure() -> None:
    frames = make_frames("CCO", 40)
    flipped = Frames(frames.mol, frames.coords, frames.energy, -frames.forces)
    failure = convert_entry(entry(flipped), PARAMS).failure
    assert failure is not None
    assert failure.kind == "PhysicsError"
    assert "wrong sign" in failure.message


def test_coordinates_in_another_unit_are_a_failure() -> None:
    frames = make_frames("CCO", 8)
    failure = convert_entry(entry(Frames(frames.mol, frames.coords * 1.89, frames.energy, frames.forces)), PARAMS).failure
    assert failure is not None
    assert failure.kind == "BondsError"


FILES = espaloma_files(make_frames("CO", 6))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_damaged_entries_are_refused_or_do_no_harm(name: str, place: float, change: int) -> None:
    content = bytearray(FILES[name])
    content[int(place * len(content))] ^= change
    damaged = ArchiveEntry("gen2-opt/1", "gen2-opt", "a", {**FILES, name: bytes(content)})
    with contextlib.suppress(DataError):
        converted = convert_entry(damaged, PARAMS)
        assert converted.record is None or np.isfinite(converted.record.coords).all()


@pytest.mark.parametrize(
    ("subset", "folder", "expected", "source"),
    [
        ("gen2-torsion", "gen2-torsion/8", "gen2-torsion/8", "espaloma/gen2-torsion"),
        ("gen2-opt", "./gen2/8", "gen2-opt/8", "espaloma/gen2-opt"),
        ("pepconf-opt", "pepconf-dlc/8", "pepconf-opt/8", "espaloma/pepconf-opt"),
        (MERGED_SUBSET, f"{MERGED_SUBSET}/1/gen2/8-9", f"{MERGED_SUBSET}/1/gen2-opt/8-9", "espaloma/gen2-opt"),
    ],
)
def test_names_of_folders(tmp_path: Path, subset: str, folder: str, expected: str, source: str) -> None:
    path = write_archive(tmp_path, subset, {**entry_files(folder, FILES), f"{subset}/README": b"", f"{subset}/._8": b""})
    (item,) = read_entries(path, subset)
    assert (item.id, item.source) == (expected, source)
    assert item.files == FILES


def test_files_of_entries_may_come_in_any_order(tmp_path: Path) -> None:
    names = [f"gen2-opt/{i}/{name}" for i in range(4) for name in FILES]
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    path = write_archive(tmp_path, "gen2-opt", {name: FILES[name.rpartition("/")[2]] for name in names})
    entries = list(read_entries(path, "gen2-opt"))
    assert {item.id for item in entries} == {f"gen2-opt/{i}" for i in range(4)}
    assert all(item.files == FILES for item in entries)


def test_archives_without_entries_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path, "gen2-opt", entry_files("gen2-torsion/8", FILES))
    with pytest.raises(DataError, match=r"gen2-opt\.tar\.gz holds no entry: no gen2-opt/<number>/ with heterograph\.bin"):
        list(read_entries(path, "gen2-opt"))


def test_incomplete_and_repeated_entries_are_refused(tmp_path: Path) -> None:
    files = entry_files("gen2-opt/8", FILES)
    path = write_archive(tmp_path, "gen2-opt", dict(list(files.items())[:2]))
    with pytest.raises(ArchiveError, match=r"gen2-opt/8 lacks mol\.json"):
        list(read_entries(path, "gen2-opt"))
    path = write_archive(tmp_path, "gen2-opt", {**files, **entry_files("gen2/8", FILES)})
    with pytest.raises(ArchiveError, match=r"gen2-opt/8/heterograph\.bin is there twice"):
        list(read_entries(path, "gen2-opt"))


def test_files_that_wait_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pesfit.sources.espaloma._MAX_WAITING_BYTES", 3 * len(FILES["heterograph.bin"]))
    path = write_archive(tmp_path, "gen2-opt", {f"gen2-opt/{i}/{name}": FILES[name] for name in FILES for i in range(5)})
    with pytest.raises(ArchiveError, match="lie too far apart"):
        list(read_entries(path, "gen2-opt"))


def test_entries_of_one_merged_molecule_share_their_group(tmp_path: Path) -> None:
    one, other = espaloma_files(make_frames("C[C@H](O)F", 6)), espaloma_files(make_frames("CC(O)F", 6))
    files = {
        **entry_files(f"{MERGED_SUBSET}/7/gen2/1", one),
        **entry_files(f"{MERGED_SUBSET}/7/spice-pubchem/2", other),
        **entry_files(f"{MERGED_SUBSET}/9/gen2/4", other),
    }
    write_archive(tmp_path, MERGED_SUBSET, files)
    records = [converted.record for converted in convert_espaloma(tmp_path, [MERGED_SUBSET], PARAMS)]
    assert [(record.source, record.group) for record in records if record] == [
        ("espaloma/gen2-opt", "C[C@H](O)F"),
        ("espaloma/spice-pubchem", "C[C@H](O)F"),
        ("espaloma/gen2-opt", "CC(O)F"),
    ]


def test_missing_archive_is_named_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rna-diverse\.tar\.gz is missing; stage 01_download"):
        next(convert_espaloma(tmp_path, ["rna-diverse"], PARAMS))
    assert "rna-diverse" in SUBSETS


STEREO = (
    "C/C=C/C",
    r"C/C=C\C",
    r"F/C(Cl)=C(/F)Br",
    r"CC(/C=C/C)=C\C",
    "C[C@@H](O)[C@H](O)[C@@H](O)C",
    "C[C@H](O)[C@H](O)[C@@H](O)C",
    "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",
    "C[S@](=O)CC",
    "C[N+](C)(C)[C@@H](C)F",
    "C[P@](=O)(O)OCC",
    "c1ccc(/N=N/c2ccccc2)cc1",
    r"C1CC/C=C\CCC1",
    "C[C@H]1CC[C@@H](C)CC1",
    r"C/C=C/C=C\C(F)=C/F",
    "C[C@@H]1C[C@@H]1/C=C/Cl",
    r"C/C(=N\O)/CC",
    "[H]/N=C(/N)C",
    "C[C@H](Cl)/C=C/[C@@H](C)Cl",
    "O=[N+]([O-])c1ccccc1",
    "NC(N)=[NH2+]",
)


def canonical(smiles: str) -> str:
    params = Chem.SmilesParserParams()
    params.removeHs = False
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles, params)))


def toolkit_molecule(values: dict[str, Any]) -> Molecule:
    """Read the JSON of version 0.10 with the toolkit: it needs what later versions added or renamed."""
    values = {**values, "hierarchy_schemes": {}}
    values["partial_charge_unit"] = values.pop("partial_charges_unit")
    return Molecule.from_dict(values)


def assert_same(content: bytes, name: str) -> None:
    expected = toolkit_molecule(json.loads(json.loads(content)))
    smiles = mapped_smiles(build_molecule(read_openff_json(content, name)))
    assert canonical(smiles) == canonical(expected.to_smiles(mapped=True)), name
    found = Molecule.from_mapped_smiles(smiles, allow_undefined_stereo=True)
    assert Molecule.are_isomorphic(found, expected)[0], name
    assert [atom.atomic_number for atom in found.atoms] == [atom.atomic_number for atom in expected.atoms]


def real_molecules(real_data: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((real_data / "golden" / "dgl").rglob("mol.json")):
        yield str(path), path.read_bytes()
    for path in sorted((real_data / "mirror").glob("*/*.tar.gz")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith("mol.json"):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield member.name, stream.read()


def test_every_real_molecule_is_the_toolkits(real_data: Path) -> None:
    molecules = list(real_molecules(real_data))
    assert len(molecules) == 9 + 10
    for name, content in molecules:
        assert_same(content, name)


def test_molecules_of_other_golden_files_are_the_toolkits(real_data: Path) -> None:
    smiles = np.load(real_data / "golden" / "nagl-am1bcc-1.0.0.npz")["smiles"]
    assert len(smiles) > 100
    for one in smiles:
        mol = Chem.AddHs(Chem.MolFromSmiles(str(one)))
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(0)
        assert_same(json.dumps(json.dumps(openff_json(mol))).encode(), str(one))


@pytest.mark.parametrize("smiles", STEREO)
def test_stereo_is_the_toolkits(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert_same(json.dumps(json.dumps(openff_json(mol))).encode(), smiles)


def test_a_center_that_hangs_on_double_bonds_is_kept() -> None:
    """The toolkit loses this one: the atom is a center only once both double bonds have their stereo."""
    mol = Chem.AddHs(Chem.MolFromSmiles(r"C/C=C/[C@H](O)/C=C\C"))
    found = build_molecule(read_openff_json(json.dumps(openff_json(mol)).encode(), "name"))
    assert Chem.MolToSmiles(Chem.RemoveHs(found)) == Chem.CanonSmiles(r"C/C=C/[C@H](O)/C=C\C")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"{}"', b"\xff\xfe", b'{"atoms": [3], "bonds": []}', b'{"atoms": 3}'])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"^set/3/mol\.json: is not the JSON of an OpenFF molecule"):
        read_openff_json(content, "set/3/mol.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bonds": [{"atom1": 0, "atom2": 9, "bond_order": 1, "stereochemistry": None}]}, "joins atoms 0 and 9 of 5"),
        ({"bonds": [{"atom1": 0, "atom2": 1, "bond_order": 7, "stereochemistry": None}]}, "order 7"),
        ({"bonds": 2 * [{"atom1": 0, "atom2": 1, "bond_order": 1, "stereochemistry": None}]}, "two bonds join atoms 0 and 1"),
        ({"atoms": [{"atomic_number": 0, "formal_charge": 0, "stereochemistry": None}], "bonds": []}, "atomic number 0"),
        ({"bonds": [{"atom1": 0, "atom2": i, "bond_order": 2, "stereochemistry": None} for i in range(1, 5)]}, "RDKit refuses"),
        ({"bonds": [{"atom1": 0, "atom2": 1, "bond_order": 1, "stereochemistry": "E"}]}, "cannot have stereo"),
    ],
)
def test_impossible_molecules_are_failures(change: dict[str, Any], message: str) -> None:
    methane = openff_json(Chem.AddHs(Chem.MolFromSmiles("C")))
    content = json.dumps({**methane, **change}).encode()
    with pytest.raises(MoleculeError, match=message):
        build_molecule(read_openff_json(content, "name"))


def test_impossible_stereo_is_a_failure() -> None:
    molecule = openff_json(Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)F")))
    molecule["atoms"][1]["stereochemistry"] = "Q"
    with pytest.raises(MoleculeError, match=r"no handedness gives the stereo codes of atom 1 \(Q\)"):
        build_molecule(read_openff_json(json.dumps(molecule).encode(), "name"))
