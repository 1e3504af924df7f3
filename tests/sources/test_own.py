"""Data sets of the user's own: what is taken, what becomes of it, and what is refused before or while it is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pesfit.chemistry.smiles import group_of, mapped_smiles
from pesfit.core.exceptions import DataError, TooManyFailuresError
from pesfit.data.dataset import MAX_FRAMES_PER_ROW, ConformerDataset, DatasetWriter, Record, read_failures
from pesfit.params.preparation import Convert, Download, OwnData, Sources
from pesfit.sources.convert import convert_sources
from pesfit.sources.download.stage import download_sources
from tests.sources.synthetic import Frames, make_frames

SMILES = ("CCO", "CC(=O)[O-]", "C[C@H](O)F")


def descent_rows(frames: list[Frames]) -> dict[str, list[Any]]:
    """What descent keeps of some molecules."""
    return {
        "smiles": [mapped_smiles(of.mol) for of in frames],
        "coords": [of.coords.ravel().tolist() for of in frames],
        "energy": [of.energy.tolist() for of in frames],
        "forces": [of.forces.ravel().tolist() for of in frames],
    }


def save(folder: Path, rows: dict[str, list[Any]]) -> Path:
    datasets.Dataset.from_dict(rows).save_to_disk(folder)
    return folder


def ours(folder: Path, records: list[Record], levels: dict[str, str]) -> Path:
    with DatasetWriter(folder, levels) as writer:
        for record in records:
            writer.write(record)
    return folder


def record(molecule: str, **changes: Any) -> Record:
    frames = make_frames(molecule, 6)
    charge = sum(atom.GetFormalCharge() for atom in frames.mol.GetAtoms())
    given = {"id": molecule, "smiles": mapped_smiles(frames.mol), "total_charge": charge, "group": group_of(frames.mol)}
    return frames.record(**{**given, **changes})


def through_both_stages(folder: Path, tmp_path: Path, level: str | None = None, failing: float = 0.0) -> dict[str, Any]:
    """Stages 01 and 02 on one data set called `mine`; the result is in `arrow/mine`."""
    sources = Sources(xtb=False, own=(OwnData(name="mine", path=str(folder), level_of_theory=level),))
    for name in ("raw", "arrow"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / name).mkdir()
    listed = download_sources(sources, Download(), tmp_path / "raw")
    assert set(listed["sources"]) == {"mine"}
    return convert_sources(tmp_path / "raw", sources, Convert(max_failed_fraction=failing), tmp_path / "arrow")["mine"]


def test_descents_columns_become_ours(tmp_path: Path) -> None:
    frames = [make_frames(smiles, 6 + i) for i, smiles in enumerate(SMILES)]
    folder = save(tmp_path / "set", descent_rows(frames))
    metrics = through_both_stages(folder, tmp_path, "B3LYP/DZVP")
    assert metrics["failures"] == 0
    assert (metrics["mine"]["molecules"], metrics["mine"]["conformers"]) == (3, 21)
    data = ConformerDataset(tmp_path / "arrow" / "mine")
    assert data.level_of_theory == {"mine": "B3LYP/DZVP"}
    for row, (found, of, smiles) in enumerate(zip(data, frames, SMILES, strict=True)):
        assert (found.id, found.source, found.group, found.total_charge) == (str(row), "mine", smiles, -(smiles == SMILES[1]))
        np.testing.assert_array_equal(found.atomic_numbers, of.atomic_numbers)
        np.testing.assert_array_equal(found.coords, of.coords)
        np.testing.assert_array_equal(found.energy, of.energy)
        np.testing.assert_array_equal(found.forces, of.forces)
        assert found.frame.tolist() == list(range(6 + row))
    manifest = json.loads((tmp_path / "raw" / "manifest.json").read_text())
    assert [file["path"] for file in manifest["files"]] == [
        "own/mine/state.json",
        "own/mine/dataset_info.json",
        "own/mine/data-00000-of-00001.arrow",
    ]


def test_our_own_columns_are_kept_and_the_source_gets_the_name(tmp_path: Path) -> None:
    charges = np.linspace(-0.2, 0.2, 9)
    rows = [
        record("CCO", charges=charges, frame=np.arange(6) * 7),
        record("CC", smiles=None, group="unknown", forces=None),
    ]
    folder = ours(tmp_path / "set", rows, {"made-up": "GFN2-xTB"})
    through_both_stages(folder, tmp_path)
    data = ConformerDataset(tmp_path / "arrow" / "mine")
    assert data.level_of_theory == {"mine": "GFN2-xTB"}
    for found, given in zip(data, rows, strict=True):
        assert (found.id, found.smiles, found.group, found.source) == (given.id, given.smiles, given.group, "mine")
        for name in ("coords", "energy", "forces", "charges", "frame"):
            np.testing.assert_array_equal(getattr(found, name), getattr(given, name))


def test_several_sources_are_kept_apart_also_after_the_hugging_face_library_has_saved_them(tmp_path: Path) -> None:
    levels = {"a": "GFN2-xTB", "b/c": "B3LYP/DZVP", "absent": "HF"}
    folder = ours(tmp_path / "set", [record("CCO", source="a"), record("CC", source="b/c")], levels)
    datasets.load_from_disk(str(folder)).save_to_disk(tmp_path / "again")
    through_both_stages(tmp_path / "again", tmp_path)
    data = ConformerDataset(tmp_path / "arrow" / "mine")
    assert data.level_of_theory == {"mine/a": "GFN2-xTB", "mine/b/c": "B3LYP/DZVP"}
    assert [found.source for found in data] == ["mine/a", "mine/b/c"]


def test_single_precision_is_taken_and_long_rows_are_cut(tmp_path: Path) -> None:
    frames = make_frames("O", MAX_FRAMES_PER_ROW + 10)
    number = datasets.List(datasets.Value("float32"))
    features = datasets.Features({"smiles": datasets.Value("string"), "coords": number, "energy": number, "forces": number})
    energy = frames.energy + 50_000.0
    rows = descent_rows([Frames(frames.mol, frames.coords, energy, frames.forces)])
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    through_both_stages(tmp_path / "set", tmp_path, "HF")
    first, second = ConformerDataset(tmp_path / "arrow" / "mine")
    assert (first.id, first.n_conformers, second.id, second.n_conformers) == ("0/00000", 1000, "0/00001", 10)
    assert second.frame.tolist() == list(range(1000, 1010))
    np.testing.assert_array_equal(second.coords, frames.coords[1000:].astype(np.float32))


def test_molecules_that_cannot_be_read_are_failures(tmp_path: Path) -> None:
    frames = [make_frames(smiles, 6) for smiles in ("CCO", "CC", "CO", "C")]
    rows = descent_rows(frames)
    rows["smiles"][1:] = ["[CH3:1][CH3:2]", "not a SMILES", rows["smiles"][3]]
    folder = save(tmp_path / "set", rows)
    metrics = through_both_stages(folder, tmp_path, "HF", failing=0.5)
    assert metrics["failures"] == metrics["mine"]["failures"] == 2
    table = read_failures(tmp_path / "arrow" / "mine" / "failures.csv")
    assert [(failure.id, failure.kind) for failure in table] == [("1", "MoleculeError"), ("2", "MoleculeError")]
    assert "expected map numbers 1 to 8, hydrogens included" in table[0].message
    assert [found.id for found in ConformerDataset(tmp_path / "arrow" / "mine")] == ["0", "3"]
    with pytest.raises(TooManyFailuresError, match="2 of 4 molecules failed"):
        through_both_stages(folder, tmp_path, "HF", failing=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomic_numbers": np.array([6, 8, 6, 1, 1, 1, 1, 1, 1], dtype=np.int32)}, "its atomic numbers are"),
        ({"total_charge": 1}, r"its total charge is \+1; the formal charges of its SMILES give \+0"),
    ],
)
def test_a_smiles_of_another_molecule_is_a_failure(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = ours(tmp_path / "set", [record("CCO", **changes), record("CC")], {"made-up": "HF"})
    assert through_both_stages(folder, tmp_path, failing=0.5)["failures"] == 1
    (failure,) = read_failures(tmp_path / "arrow" / "mine" / "failures.csv")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failure.message)


def spoiled(name: str, row: int, value: Any) -> dict[str, list[Any]]:
    rows = descent_rows([make_frames(smiles, 6) for smiles in SMILES])
    rows[name][row] = value(rows[name][row])
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (spoiled("energy", 1, lambda old: [float("nan"), *old[1:]]), "1: energy of conformer 0 .* is nan"),
        (spoiled("coords", 2, lambda old: [*old[:-1], None]), r"2: coords of conformer 5 \(frame 5\) is nan"),
        (spoiled("coords", 1, lambda old: old[:-1]), "mine: row 1: coords has 125 numbers; 6 energies and 7 atoms need 126"),
        (spoiled("forces", 0, lambda old: old[:9]), "mine: row 0: forces has 9 numbers"),
        (spoiled("energy", 0, lambda _: []), "0 atoms|9 atoms and 0 conformers|0 energies"),
        (spoiled("smiles", 2, lambda _: None), "mine: row 2: smiles is null"),
        (spoiled("energy", 2, lambda _: None), "mine: row 2: energy is null"),
    ],
)
def test_what_makes_the_data_set_doubtful_stops_it(rows: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        through_both_stages(save(tmp_path / "set", rows), tmp_path, "HF", failing=1.0)
    assert not (tmp_path / "arrow" / "mine" / "state.json").exists()


def test_forces_that_are_gradients_stop_it(tmp_path: Path) -> None:
    """Few conformers of a molecule are judged together with those of the others, many by themselves."""
    for n_frames, error, message in (
        (5, DataError, "mine: forces have the wrong sign"),
        (20, TooManyFailuresError, r"8 of 8 molecules failed.*\n  0: PhysicsError: forces have the wrong sign"),
    ):
        frames = [make_frames("CCO", n_frames, seed=i) for i in range(8)]
        flipped = [Frames(of.mol, of.coords, of.energy, -of.forces) for of in frames]
        folder = save(tmp_path / f"set-{n_frames}", descent_rows(flipped))
        with pytest.raises(error, match=message):
            through_both_stages(folder, tmp_path, "HF")
    with pytest.raises(DataError, match="mine: none of 8 molecules is left; the first failed: forces have the wrong sign"):
        through_both_stages(folder, tmp_path, "HF", failing=1.0)


def test_an_id_that_is_there_twice_stops_it(tmp_path: Path) -> None:
    folder = ours(tmp_path / "set", [record("CCO"), record("CCO")], {"made-up": "HF"})
    with pytest.raises(DataError, match=r"mine: row 1 \(CCO\): the id 'CCO' is there twice"):
        through_both_stages(folder, tmp_path)


def broken_folders(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    rows = descent_rows([make_frames("CCO", 6)])
    whole = save(tmp_path / "whole", rows)
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "dict")
    for name in ("truncated", "lacking", "outside"):
        shutil.copytree(whole, tmp_path / name)
    data = "data-00000-of-00001.arrow"
    (tmp_path / "truncated" / data).write_bytes((whole / data).read_bytes()[:-2000])
    (tmp_path / "lacking" / data).unlink()
    state = json.loads((whole / "state.json").read_text())
    state["_data_files"] = [{"filename": f"../whole/{data}"}]
    (tmp_path / "outside" / "state.json").write_text(json.dumps(state))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    return {
        "missing": (tmp_path / "missing", "does not exist; expected a folder"),
        "file": (tmp_path / "file", "is not a folder"),
        "empty": (tmp_path / "empty", r"has no state\.json"),
        "dict": (tmp_path / "dict", r"holds several data sets \(train\); expected one of them"),
        "truncated": (tmp_path / "truncated", "cannot be read as Arrow streams|has no rows"),
        "lacking": (tmp_path / "lacking", f"lacks {data}, which its state.json lists"),
        "outside": (tmp_path / "outside", "expected names of files beside it"),
        "columns": (
            save(tmp_path / "columns", {name: rows[name] for name in ("smiles", "coords", "energy")}),
            "lacks the columns forces; expected smiles, coords, energy, forces, or id",
        ),
        "types": (
            save(tmp_path / "types", {**rows, "energy": [["-1.0"]]}),
            "column energy is of type .*string.*; expected list<double>",
        ),
        "level": (whole, "does not state the level of theory; give it as `level_of_theory` beside the path"),
        "none": (ours(tmp_path / "none", [], {"made-up": "HF"}), "has no rows"),
    }


def test_folders_that_cannot_be_taken_are_refused_by_stage_01_before_anything_is_copied(tmp_path: Path) -> None:
    good = OwnData(name="good", path=str(ours(tmp_path / "good", [record("CCO")], {"made-up": "HF"})))
    for name, (folder, message) in broken_folders(tmp_path).items():
        output = tmp_path / f"raw-{name}"
        output.mkdir()
        sources = Sources(xtb=False, own=(good, OwnData(name=name, path=str(folder))))
        with pytest.raises(DataError, match=f"sources.own {name}: {folder}.*({message})"):
            download_sources(sources, Download(), output)
        assert not list(output.iterdir()), name


def test_metadata_that_say_something_else_are_refused(tmp_path: Path) -> None:
    folder = ours(tmp_path / "set", [record("CCO")], {"made-up": "GFN2-xTB"})
    with pytest.raises(DataError, match=r"states the level of theory 'GFN2-xTB'; params\.yaml says 'HF'"):
        through_both_stages(folder, tmp_path, "HF")
    (file,) = folder.glob("*.arrow")
    content = file.read_bytes()
    for old, new, message in (
        (b'"schema_version": 1', b'"schema_version": 9', "has schema version 9; this version reads 1"),
        (b'"energy": "kcal/mol"', b'"energy": "hartrees"', "has the units .*hartrees.*; expected"),
    ):
        assert content.count(old) == 1
        file.write_bytes(content.replace(old, new))
        with pytest.raises(DataError, match=message):
            through_both_stages(folder, tmp_path)


def test_stage_02_says_where_the_copy_should_have_come_from(tmp_path: Path) -> None:
    sources = Sources(xtb=False, own=(OwnData(name="mine", path="my/data"),))
    with pytest.raises(DataError, match="own/mine is missing; stage 01_download copies it from my/data"):
        convert_sources(tmp_path, sources, Convert(), tmp_path)


@pytest.mark.usefixtures("worker_pool")
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "set", descent_rows([make_frames(smiles, 6) for smiles in SMILES]))
    written = []
    for workers in ("1", "2"):
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        through_both_stages(folder, tmp_path, "HF")
        written.append({path.name: path.read_bytes() for path in (tmp_path / "arrow" / "mine").iterdir()})
    assert written[0] == written[1]
