"""The command line: what it prints and writes, and that nothing is written where something is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch

from pesfit.__main__ import main
from pesfit.application import md as md_module
from pesfit.application.geometries import embedded
from pesfit.application.md import run_md
from pesfit.application.predict import predict
from pesfit.core.units import EV
from pesfit.data.dataset import ConformerDataset
from pesfit.models.open import open_model
from pesfit.potentials.gfn2 import Gfn2
from pesfit.uncertainty.calibration import Calibration
from tests.application.label_samples import row, write


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_predict_prints_a_table(smirnoff: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(smirnoff), "CO"]) == 0
    captured = capsys.readouterr()
    (expected,) = predict(open_model(smirnoff), [embedded("CO", "CO", 0)])
    assert expected.std is not None
    lines = captured.out.splitlines()
    assert f"energy           {expected.energy:.4f} ± {expected.std.energy:.4f}" in lines
    atoms = [line.split() for line in lines[5:]]
    assert [row[0] for row in atoms] == ["C", "O", "H", "H", "H", "H"]
    values = np.array([row[1:] for row in atoms], dtype=float)
    np.testing.assert_allclose(values[:, 3:6], expected.forces, atol=6e-5)
    np.testing.assert_allclose(values[:, 6:], expected.std.forces, atol=6e-5)
    assert captured.err == "CO: conformer by ETKDG, seed 0, not relaxed\n"


def test_predict_writes_extxyz_that_can_be_read_again(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.extxyz"
    assert main(["predict", str(smirnoff), "CCO", "CO", "--output", str(output)]) == 0
    first, second = ase.io.read(output, index=":")
    (expected,) = predict(open_model(smirnoff), [embedded("CCO", "CCO", 0)])
    assert expected.std is not None
    assert first.get_potential_energy() == pytest.approx(expected.energy / EV, abs=1e-7)
    np.testing.assert_allclose(first.get_forces(), expected.forces / EV, atol=1e-7)
    np.testing.assert_allclose(first.arrays["forces_std"], expected.std.forces / EV, atol=1e-7)
    assert first.info["energy_std"] == pytest.approx(expected.std.energy / EV)
    assert second.info["relative_energy"] == 0.0
    assert expected.charges is not None
    np.testing.assert_allclose(first.calc.results["charges"], expected.charges, atol=1e-8)
    assert main(["predict", str(smirnoff), str(output), "--output", str(tmp_path / "again.extxyz")]) == 0
    again = ase.io.read(tmp_path / "again.extxyz", index=0)
    assert again.get_potential_energy() == pytest.approx(first.get_potential_energy(), abs=1e-6)
    assert main(["predict", str(network), str(output), "--output", str(tmp_path / "learned.xyz")]) == 0
    assert "forces_std" not in ase.io.read(tmp_path / "learned.xyz", index=0).arrays
    assert left_behind(tmp_path) == ["again.extxyz", "learned.xyz", "out.extxyz"]


def test_energies_by_term_add_up(smirnoff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (expected,) = predict(open_model(smirnoff), [embedded("CCO", "CCO", 0)], by_term=True)
    assert sum(expected.by_term.values()) == pytest.approx(expected.energy, abs=1e-9)
    assert list(expected.by_term) == ["Bonds", "Angles", "ProperTorsions", "ImproperTorsions", "vdW", "Electrostatics"]
    assert main(["predict", str(smirnoff), "CCO", "--by-term"]) == 0
    assert f"  {'Angles':<18}{expected.by_term['Angles']:12.4f}" in capsys.readouterr().out.splitlines()
    assert main(["predict", str(smirnoff), "CCO", "--by-term", "--output", str(tmp_path / "out.extxyz")]) == 0
    assert ase.io.read(tmp_path / "out.extxyz").info["energy_vdW"] == pytest.approx(expected.by_term["vdW"] / EV)


def test_md_writes_frames(smirnoff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["md", str(smirnoff), "CCO", "--steps", "40", "--every", "20", "--seed", "3", "--temperature", "400"]
    for name in ("a.extxyz", "b.extxyz"):
        assert main([*arguments, "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.extxyz").read_bytes() == (tmp_path / "b.extxyz").read_bytes()
    frames = ase.io.read(tmp_path / "a.extxyz", index=":")
    assert [frame.info["step"] for frame in frames] == [0, 20, 40]
    assert frames[-1].get_temperature() == pytest.approx(frames[-1].info["temperature_kelvin"], rel=1e-5)
    assert "forces_std" in frames[-1].arrays
    assert "40/40" in capsys.readouterr().err
    assert (
        main(["md", str(smirnoff), str(tmp_path / "a.extxyz"), "--nve", "--steps", "2", "--output", str(tmp_path / "c.xyz")])
        == 0
    )
    assert "starts here" in capsys.readouterr().err


def test_what_is_outside_of_the_training_domain_is_said(
    smirnoff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "smirnoff"
    shutil.copytree(smirnoff, folder)
    geometries = [embedded(smiles, smiles, 0) for smiles in ("CC", "CSC")]  # the fit has seen no sulfur
    near, far = (np.linalg.norm(of.std.forces, axis=1).max() for of in predict(open_model(smirnoff), geometries))  # type: ignore[union-attr]
    Calibration(domain_threshold=0.5 * (near + far)).write(folder)
    assert main(["predict", str(folder), "CC", "CSC", "--output", str(tmp_path / "out.extxyz")]) == 0
    assert [atoms.info["outside_domain"] for atoms in ase.io.read(tmp_path / "out.extxyz", index=":")] == [False, True]
    for smiles, is_outside in (("CC", False), ("CSC", True)):
        assert main(["predict", str(folder), smiles]) == 0
        assert ("outside of the training domain" in capsys.readouterr().out) == is_outside
    assert main(["md", str(folder), "CSC", "--steps", "2", "--every", "1", "--output", str(tmp_path / "md.extxyz")]) == 0
    assert "at 0 fs first outside of the training domain" in capsys.readouterr().err


def test_md_keeps_frames_when_it_ends_early(
    smirnoff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.extxyz"
    arguments = ["md", str(smirnoff), "CCO", "--every", "1", "--output", str(output)]
    assert main([*arguments, "--steps", "2000", "--timestep", "12"]) == 1
    assert "flown apart" in capsys.readouterr().err
    assert len(ase.io.read(output, index=":")) >= 1

    def interrupted(*arguments: Any) -> Any:
        for number, frame in enumerate(run_md(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(md_module, "run_md", interrupted)
    assert main([*arguments, "--steps", "10"]) == 130
    assert "the frames so far are kept" in capsys.readouterr().err
    assert len(ase.io.read(output, index=":")) == 3
    assert left_behind(tmp_path) == ["a.extxyz"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "{smirnoff}", "{water}"], 1, "has no bonds"),
        (["predict", "{smirnoff}", "CCO", "[SiH4]"], 1, "[SiH4]: {smirnoff} cannot be assigned: no Bonds parameter"),
        (["predict", "{network}", "CCO", "CN"], 1, "CN: this potential was not trained on N; it knows H, C, O"),
        (["predict", "{smirnoff}", "missing.sdf"], 1, "missing.sdf does not exist"),
        (["predict", "{empty}", "CCO"], 1, "has neither force-field.offxml nor config.json"),
        (["predict", "{smirnoff}", "{water}", "--smiles", "CO"], 1, "has the atoms H2 O1; CO needs H4 C1 O1"),
        (["md", "{smirnoff}", "{water}", "--steps", "5"], 1, "has no bonds"),
        (["md", "{network}", "CN", "--steps", "5"], 1, "not trained on N"),
        (["md", "{network}", "CO", "--steps", "0"], 2, "n_steps = 0; at least 1 is needed"),
        (["md", "{network}", "CO", "--steps", "5", "--every", "0"], 2, "--every 0: at least 1 is needed"),
        (["predict", "{network}", "CO", "--by-term"], 2, "--by-term: {network} is no SMIRNOFF force field"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(  # noqa: PLR0917 - three of them are fixtures
    arguments: list[str],
    status: int,
    message: str,
    smirnoff: Path,
    network: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n")
    names = {"smirnoff": smirnoff, "network": network, "water": tmp_path / "water.xyz", "empty": tmp_path / "empty"}
    output = tmp_path / "out" / "frames.extxyz"
    output.write_text("before")
    assert main([*(argument.format(**names) for argument in arguments), "--output", str(output)]) == status
    captured = capsys.readouterr()
    assert message.format(**names) in captured.err
    assert captured.out == ""
    assert output.read_text() == "before"
    assert left_behind(tmp_path / "out") == ["frames.extxyz"]


def test_outputs_that_cannot_be_written_are_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the model is opened, so it need not exist."""
    water = tmp_path / "water.xyz"
    water.write_text("1\n\nO 0 0 0\n")
    for output, message in (
        (tmp_path / "a.csv", "expected a name that ends in .xyz or .extxyz"),
        (tmp_path / "no" / "a.xyz", "does not exist"),
        (water, "is an input"),
    ):
        assert main(["predict", "model", str(water), "--output", str(output)]) == 2
        assert message in capsys.readouterr().err
    assert water.read_text() == "1\n\nO 0 0 0\n"


def test_the_command_line_itself_is_light() -> None:
    """`pesfit --help` answers at once."""
    code = """
import contextlib, io, sys
import pesfit.__main__
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    pesfit.__main__.main(["md", "-h"])
print(sorted({"torch", "rdkit", "ase", "numpy"} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_data_set_is_labeled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = row("CO", 4)
    write(tmp_path / "set", [given])
    assert main(["label", "gfn2", str(tmp_path / "set"), str(tmp_path / "a/new"), "--source", "mine", "--every", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == f"{tmp_path}/a/new: 2 conformers in 1 rows, labeled with GFN2-xTB"
    (found,) = ConformerDataset(tmp_path / "a/new")
    assert (found.source, found.frame.tolist()) == ("mine", [0, 30])
    assert found.energy[1] == Gfn2(given.atomic_numbers, 0).energy_and_forces(given.coords[3]).energy
    assert left_behind(tmp_path / "a") == ["new"]


def test_a_trajectory_of_md_is_labeled(smirnoff: Path, tmp_path: Path) -> None:
    """It becomes a data set that `sources.own` takes, with the groups by which splits know its molecules."""
    text = ""
    for smiles in ("CO", "CC(=O)[O-]"):
        file = tmp_path / "one.extxyz"
        assert main(["md", str(smirnoff), smiles, "--steps", "4", "--every", "2", "--output", str(file)]) == 0
        text += file.read_text("utf-8")
    (tmp_path / "all.extxyz").write_text(text, "utf-8")
    assert main(["label", "gfn2", str(tmp_path / "all.extxyz"), str(tmp_path / "new")]) == 0
    found = ConformerDataset(tmp_path / "new")
    assert found.level_of_theory == {"labeled/all": "GFN2-xTB"}
    assert [(row.id, row.group, row.total_charge, row.n_conformers) for row in found] == [
        ("all/0000/00000", "CO", 0, 3),
        ("all/0001/00000", "CC(=O)[O-]", -1, 3),
    ]
    frame = ase.io.read(tmp_path / "all.extxyz", index=5)
    np.testing.assert_allclose(found[1].coords[2], frame.positions, rtol=0, atol=1e-7)
    assert found[1].energy[2] == Gfn2(found[1].atomic_numbers, -1).energy_and_forces(found[1].coords[2]).energy


def test_label_reports_what_is_left_out(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "set", [row("CN", 2), row("CO", 4)])
    arguments = ["--max-conformers", "3", "--charges", "gasteiger"]
    assert main(["label", str(network), str(tmp_path / "set"), str(tmp_path / "new"), *arguments]) == 0
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0].endswith(f"new: 2 conformers in 1 rows, labeled with pesfit {network}")
    assert lines[1].startswith(
        f"1 conformers are left out; 1 rows are in {tmp_path}/new/failures.csv, the first: CN: this potential was not trained on N"
    )


def test_the_most_uncertain_are_taken(smirnoff: Path, network: Path, tmp_path: Path) -> None:
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
        (["gfn2", "{bare}", "{new}"], 1, "{bare} has no SMILES, which says what molecule it is"),
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
def test_label_what_is_wrong_is_said_and_nothing_is_written(  # noqa: PLR0917 - two of them are fixtures
    arguments: list[str], status: int, message: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    write(tmp_path / "set", [row("CO")])
    write(tmp_path / "nitrogen", [row("CN")])
    datasets.Dataset.from_dict({"smiles": ["C"], "coords": [[0.0]]}).save_to_disk(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare.xyz").write_text("1\n\nHe 0.0 0.0 0.0\n", "utf-8")
    names = {name: tmp_path / name for name in ("set", "nitrogen", "other", "empty", "missing", "new")}
    names |= {"network": network, "bare": tmp_path / "bare.xyz"}
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["label", *(argument.format(**names) for argument in arguments)]) == status
    assert message.format(**names) in capsys.readouterr().err
    assert left_behind(tmp_path) == ["bare.xyz", "empty", "nitrogen", "other", "set"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_label_leaves_nothing_where_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pesfit.application import label_dataset as module

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write(tmp_path / "set", [row("CO")])
    monkeypatch.setattr(module, "write_failures", interrupted)
    assert main(["label", "gfn2", str(tmp_path / "set"), str(tmp_path / "new")]) == 130
    assert left_behind(tmp_path) == ["set"]


def test_export_writes_what_smee_loads(
    smirnoff: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smee = pytest.importorskip("smee", reason="needs smee, which is optional and not on PyPI")
    output, methanol = tmp_path / "ff.pt", "[C:2]([O:1][H:6])([H:3])([H:4])[H:5]"
    assert main(["export", "smee", str(smirnoff), str(output), "CCO", methanol]) == 0
    force_field, topologies = torch.load(output, weights_only=False)
    assert list(topologies)[1] == methanol
    geometry = embedded(next(iter(topologies)), "CCO", 0)
    (expected,) = predict(open_model(smirnoff), [geometry])
    energy = smee.compute_energy(topologies[geometry.smiles], force_field, torch.tensor(geometry.coords))
    assert float(energy) == pytest.approx(expected.energy, abs=2e-4)
    stored = smirnoff.parent / "parameterized"
    assert main(["export", "smee", str(smirnoff), str(output), "--molecules", str(stored)]) == 0
    assert "topologies of 3 molecules" in capsys.readouterr().out
    assert main(["export", "smee", str(network), str(output)]) != 0


def test_export_without_smee_says_how_to_get_it(
    smirnoff: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "smee", None)
    assert main(["export", "smee", str(smirnoff), str(tmp_path / "ff.pt"), "CCO"]) != 0
    assert "install it from conda-forge" in capsys.readouterr().err
    assert not left_behind(tmp_path)
