"""Stage 02 from archives to data sets: what is written, what is counted, what stops it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from pesfit.core.exceptions import ArchiveError, DataError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, read_failures
from pesfit.data.sources import MERGED_SUBSET
from pesfit.params.preparation import Convert, ConvertMD17, ConvertXtb, Sources
from pesfit.sources.convert import convert_sources
from tests.sources.synthetic import Frames, entry_files, espaloma_files, make_frames, tar_bytes
from tests.sources.test_md17 import rmd17_files, write_md17, write_rmd17

SMILES = ("CCO", "CO", "C[C@H](O)F", "CC(=O)[O-]", "C/C=C/C", "c1ccccc1")
ESPALOMA = Sources(espaloma=("gen2-opt",), xtb=False)


def make_raw(folder: Path) -> Path:
    """Raw data of all three sources, made up."""
    files: dict[str, bytes] = {}
    for i, smiles in enumerate(SMILES):
        files |= entry_files(f"gen2-opt/{i}", espaloma_files(make_frames(smiles, 8 + i, seed=i)))
    files |= entry_files("gen2-opt/77", espaloma_files(make_frames("CF", 3)))
    for name in ("espaloma", "rmd17", "md17"):
        (folder / name).mkdir(parents=True)
    (folder / "espaloma" / "gen2-opt.tar.gz").write_bytes(tar_bytes(files))
    write_rmd17(folder / "rmd17", rmd17_files())
    write_md17(folder / "md17")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_raw(tmp_path / "raw")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "arrow"
    folder.mkdir()
    return folder


def test_all_sources_are_written_and_counted(raw: Path, output: Path) -> None:
    sources = Sources(espaloma=("gen2-opt",), rmd17=("ethanol",), md17=("ethanol",), xtb=False)
    metrics = convert_sources(raw, sources, Convert(md17=ConvertMD17(max_frames=20)), output)
    assert sorted(path.name for path in output.iterdir()) == ["espaloma", "md17", "rmd17"]
    espaloma = metrics["espaloma"]["espaloma/gen2-opt"]
    assert espaloma["molecules"] == espaloma["rows"] == 6
    assert espaloma["conformers"] == sum(8 + i for i in range(6))
    assert (espaloma["conformers_read"], espaloma["conformers_left_out"], espaloma["entries_left_out"]) == (66, 3, 1)
    assert (espaloma["failures"], espaloma["molecules_published"]) == (0, 1024)
    assert espaloma["physical_check"]["slope"] == pytest.approx(1.0, abs=0.05)
    assert metrics["md17"]["md17"]["conformers"] == 20
    assert metrics["rmd17"]["rmd17"]["atoms_in_conformers"] == 25 * 9
    assert json.loads((output / "rmd17" / "splits.json").read_text())["5"]["train"] == [20, 21, 22]
    json.dumps(metrics, allow_nan=False)
    data = ConformerDataset(output / "espaloma")
    assert [record.id for record in data] == [f"gen2-opt/{i}" for i in range(6)]
    assert data.level_of_theory["espaloma/gen2-opt"] == "B3LYP-D3BJ/DZVP"
    assert ConformerDataset(output / "rmd17").level_of_theory == {"rmd17": "PBE/def2-SVP"}
    assert read_failures(output / "espaloma" / "failures.csv") == []


def test_hugging_face_opens_what_descent_reads(raw: Path, output: Path) -> None:
    convert_sources(raw, ESPALOMA, Convert(), output)
    data = datasets.load_from_disk(str(output / "espaloma"))
    assert len(data) == 6
    descent = {
        "smiles": pa.string(),
        "coords": pa.list_(pa.float64()),
        "energy": pa.list_(pa.float64()),
        "forces": pa.list_(pa.float64()),
    }
    assert {name: data.data.schema.field(name).type for name in descent} == descent
    frames = make_frames(SMILES[2], 10, seed=2)
    row = data.with_format("numpy")[2]
    np.testing.assert_allclose(np.reshape(row["coords"], frames.coords.shape), frames.coords, atol=1e-5)
    np.testing.assert_allclose(np.reshape(row["forces"], frames.forces.shape), frames.forces, atol=1e-3)
    np.testing.assert_allclose(row["energy"], frames.energy)


def test_descent_summarises_our_data(raw: Path, output: Path) -> None:
    energy = pytest.importorskip("descent.targets.energy", reason="needs descent, which is on conda-forge only")
    convert_sources(raw, ESPALOMA, Convert(), output)
    data = datasets.load_from_disk(str(output / "espaloma"))
    assert energy.extract_smiles(data) == sorted(set(data["smiles"]))


@pytest.mark.usefixtures("worker_pool")
def test_bytes_do_not_depend_on_the_number_of_workers(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for workers in ("1", "2"):
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        output = tmp_path / workers
        output.mkdir()
        metrics = convert_sources(raw, ESPALOMA, Convert(), output)
        written.append((metrics, {path.name: path.read_bytes() for path in (output / "espaloma").iterdir()}))
    assert written[0] == written[1]


def test_failures_are_rows_and_stop_only_when_they_are_many(raw: Path, output: Path) -> None:
    files = espaloma_files(make_frames("CC", 20))
    molecule = json.loads(json.loads(files["mol.json"]))
    molecule["atoms"][0]["formal_charge"] = 3
    files["mol.json"] = json.dumps(molecule).encode()
    entries = {**entry_files("gen2-opt/1", files), **entry_files("gen2-opt/2", espaloma_files(make_frames("CC", 20)))}
    (raw / "espaloma" / "gen2-opt.tar.gz").write_bytes(tar_bytes(entries))
    with pytest.raises(TooManyFailuresError, match=r"convert: 1 of 2 molecules failed.*\n  gen2-opt/1: MoleculeError: "):
        convert_sources(raw, ESPALOMA, Convert(), output)
    metrics = convert_sources(raw, ESPALOMA, Convert(max_failed_fraction=0.5), output)
    assert metrics["espaloma"]["failures"] == metrics["espaloma"]["espaloma/gen2-opt"]["failures"] == 1
    assert [failure.id for failure in read_failures(output / "espaloma" / "failures.csv")] == ["gen2-opt/1"]
    assert [record.id for record in ConformerDataset(output / "espaloma")] == ["gen2-opt/2"]


def test_gradients_taken_for_forces_stop_a_source(raw: Path, output: Path) -> None:
    """Each entry has too few near conformers to be judged alone; together they have enough."""
    entries: dict[str, bytes] = {}
    for i in range(8):
        frames = make_frames("CCO", 5, seed=i)
        flipped = Frames(frames.mol, frames.coords, frames.energy, -frames.forces)
        entries |= entry_files(f"gen2-opt/{i}", espaloma_files(flipped))
    (raw / "espaloma" / "gen2-opt.tar.gz").write_bytes(tar_bytes(entries))
    with pytest.raises(DataError, match="espaloma/gen2-opt: forces have the wrong sign"):
        convert_sources(raw, ESPALOMA, Convert(), output)


def test_gradients_taken_for_forces_stop_md17(raw: Path, output: Path) -> None:
    frames = make_frames("CCO", 25)
    write_md17(raw / "md17", F=-frames.forces)
    with pytest.raises(DataError, match="md17: ethanol/00000: forces have the wrong sign"):
        convert_sources(raw, Sources(md17=("ethanol",), xtb=False), Convert(), output)


def test_filter_that_leaves_nothing_is_refused(raw: Path, output: Path) -> None:
    params = Convert(espaloma=Convert().espaloma.model_copy(update={"min_conformers": 1000}))
    with pytest.raises(DataError, match="espaloma: none of 7 molecules is left"):
        convert_sources(raw, ESPALOMA, params, output)


def test_no_source_is_refused(raw: Path, output: Path) -> None:
    with pytest.raises(DataError, match="no source is asked for"):
        convert_sources(raw, Sources(xtb=False), Convert(), output)


def test_archive_truncated_or_changed_at_random_is_refused(raw: Path, output: Path) -> None:
    path = raw / "espaloma" / "gen2-opt.tar.gz"
    content = path.read_bytes()
    rng = random.Random(2666)
    for i in range(20):
        damaged = bytearray(content)
        if i % 2:
            del damaged[rng.randrange(len(content)) :]
        else:
            damaged[rng.randrange(10, len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"gen2-opt\.tar\.gz|gen2-opt/"):
            convert_sources(raw, ESPALOMA, Convert(max_failed_fraction=1.0), output)
        assert not (output / "espaloma" / "state.json").exists()


def test_real_mirror_converts(real_data: Path, output: Path) -> None:
    sources = Sources(
        espaloma=(MERGED_SUBSET, "gen2-torsion", "protein-torsion", "rna-diverse"),
        rmd17=("ethanol", "aspirin"),
        md17=("ethanol",),
        xtb=False,
    )
    metrics = convert_sources(real_data / "mirror", sources, Convert(), output)
    assert metrics["espaloma"]["failures"] == metrics["rmd17"]["failures"] == metrics["md17"]["failures"] == 0
    checks = {
        name: part["physical_check"] for source in metrics.values() for name, part in source.items() if name != "failures"
    }
    assert {name for name, check in checks.items() if check["energy_against_forces"] == "passed"} == {
        "espaloma/gen2-torsion",
        "espaloma/protein-torsion",
        "rmd17",
        "md17",
    }
    assert all(check["slope"] == pytest.approx(1.0, abs=0.05) for check in checks.values() if check["slope"] is not None)
    shares = {record.id: record.group for record in ConformerDataset(output / "espaloma")}
    assert shares[f"{MERGED_SUBSET}/1/gen2-torsion/3-30"] == shares["gen2-torsion/3"]
    assert len(ConformerDataset(output / "rmd17")) == 20


def test_real_bad_archive_is_refused(real_data: Path, raw: Path, output: Path) -> None:
    content = (real_data / "mirror" / "bad" / "protein-torsion-without-u_qm.tar.gz").read_bytes()
    (raw / "espaloma" / "protein-torsion.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"protein-torsion/0/heterograph\.bin: the entry has no u_qm"):
        convert_sources(raw, Sources(espaloma=("gen2-opt", "protein-torsion"), xtb=False), Convert(), output)


def test_set_built_here(output: Path, tmp_path: Path) -> None:
    xtb = ConvertXtb(
        n_molecules=2, n_conformers=1, n_samples=5, sample_interval_fs=2.0, n_trajectory_frames=30, trajectory_interval_fs=1.0
    )
    small = xtb.model_copy(update={"equilibration_fs": 5.0, "trajectory_equilibration_fs": 5.0})
    metrics = convert_sources(tmp_path, Sources(xtb=True), Convert(xtb=small), output)
    assert metrics["xtb"]["xtb/trajectory"]["conformers"] == 30
    check = metrics["xtb"]["xtb/trajectory"]["physical_check"]
    assert check["energy_against_forces"] == "passed"
    assert check["slope"] == pytest.approx(1.0, abs=0.02)
    assert metrics["xtb"]["xtb/conformers"]["molecules"] == 2
