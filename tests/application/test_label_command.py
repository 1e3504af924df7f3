"""`python -m pesfit label`: what it says and writes, and that nothing is written where something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.__main__ import main
from pesfit.data.dataset import ConformerDataset
from pesfit.potentials.gfn2 import Gfn2
from tests.application.label_samples import row, write


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_data_set_is_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = row("CO", 4)
    write(tmp_path / "set", [given])
    assert main(["label", "gfn2", str(tmp_path / "set"), str(tmp_path / "a/new"), "--source", "mine", "--every", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == f"{tmp_path}/a/new: 2 conformers in 1 rows, labelled with GFN2-xTB"
    (found,) = ConformerDataset(tmp_path / "a/new")
    assert (found.source, found.frame.tolist()) == ("mine", [0, 30])
    assert found.energy[1] == Gfn2(given.atomic_numbers, 0).energy_and_forces(given.coords[3]).energy
    assert left_behind(tmp_path / "a") == ["new"]


def test_what_is_left_out_is_said(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "set", [row("CN", 2), row("CO", 4)])
    arguments = ["--max-conformers", "3", "--charges", "gasteiger"]
    assert main(["label", str(network), str(tmp_path / "set"), str(tmp_path / "new"), *arguments]) == 0
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0].endswith(f"new: 2 conformers in 1 rows, labelled with pesfit {network}")
    assert lines[1].startswith(
        f"1 conformers are left out; 1 rows are in {tmp_path}/new/failures.csv, the first: CN: this potential was not trained on N"
    )


def test_the_least_certain_are_taken(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    given = row("CCO", 4)
    given.coords[2] *= 1.4
    write(tmp_path / "set", [given])
    new = tmp_path / "new"
    arguments = ["label", str(network), str(tmp_path / "set"), str(new), "--most-uncertain", "1", "--by", str(smirnoff)]
    assert main(arguments) == 0
    (found,) = ConformerDataset(new)
    np.testing.assert_array_equal(found.coords, given.coords[2:3])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gfn2", "{missing}", "{new}"], 1, "missing does not exist; a data set is a folder such as data/arrow/xtb"),
        (["gfn2", "{empty}", "{new}"], 1, "empty has no state.json"),
        (["gfn2", "{other}", "{new}"], 1, "other lacks the columns id, atomic_numbers"),
        (["{missing}", "{set}", "{new}"], 1, "model {missing} does not exist; expected a folder such as outputs/smirnoff"),
        (["{empty}", "{set}", "{new}"], 1, "has neither force-field.offxml nor config.json"),
        (
            ["{network}", "{nitrogen}", "{new}"],
            1,
            "labels none of the 3 conformers of {nitrogen}; the first failed: CN: this pot",
        ),
        (["gfn2", "{set}", "{empty}"], 2, "{empty} exists already; expected the name of a folder to be made"),
        (["gfn2", "{set}", "{set}/new"], 2, "{set}/new lies in {set}, which is read; expected a folder elsewhere"),
        (["gfn2", "{set}", "{new}", "--every", "0"], 2, "--every 0: at least 1 is needed"),
        (["gfn2", "{set}", "{new}", "--most-uncertain", "2"], 1, "--most-uncertain: gfn2 has no posterior; name a model"),
        (["gfn2", "{set}", "{new}", "--by", "gfn2"], 2, "--by gfn2: only --most-uncertain asks a model"),
        (["gfn2", "{set}", "{new}", "--source", " "], 2, "--source ' ': expected a name that is not empty"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(  # noqa: PLR0917 - two of them are fixtures
    arguments: list[str], status: int, message: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    write(tmp_path / "set", [row("CO")])
    write(tmp_path / "nitrogen", [row("CN")])
    datasets.Dataset.from_dict({"smiles": ["C"], "coords": [[0.0]]}).save_to_disk(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    names = {name: tmp_path / name for name in ("set", "nitrogen", "other", "empty", "missing", "new")} | {"network": network}
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["label", *(argument.format(**names) for argument in arguments)]) == status
    assert message.format(**names) in capsys.readouterr().err
    assert left_behind(tmp_path) == ["empty", "nitrogen", "other", "set"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pesfit.application import label as module

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write(tmp_path / "set", [row("CO")])
    monkeypatch.setattr(module, "write_failures", interrupted)
    assert main(["label", "gfn2", str(tmp_path / "set"), str(tmp_path / "new")]) == 130
    assert left_behind(tmp_path) == ["set"]
