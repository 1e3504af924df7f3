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

from pesfit.__main__ import main
from pesfit.application import md as md_module
from pesfit.application.geometries import embedded
from pesfit.application.predict import predict
from pesfit.core.units import EV
from pesfit.models.open import open_model
from pesfit.uncertainty.calibration import Calibration


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_predict_prints_a_table(smirnoff: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(smirnoff), "CO"]) == 0
    captured = capsys.readouterr()
    (expected,) = predict(open_model(smirnoff), [embedded("CO", "CO", 0)])
    assert expected.deviations is not None
    lines = captured.out.splitlines()
    assert f"energy           {expected.energy:.4f} ± {expected.deviations.energy:.4f}" in lines
    atoms = [line.split() for line in lines[5:]]
    assert [row[0] for row in atoms] == ["C", "O", "H", "H", "H", "H"]
    values = np.array([row[1:] for row in atoms], dtype=float)
    np.testing.assert_allclose(values[:, 3:6], expected.forces, atol=6e-5)
    np.testing.assert_allclose(values[:, 6:], expected.deviations.forces, atol=6e-5)
    assert captured.err == "CO: conformer by ETKDG, seed 0, not relaxed\n"


def test_predict_writes_extxyz_that_can_be_read_again(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.extxyz"
    assert main(["predict", str(smirnoff), "CCO", "CO", "--output", str(output)]) == 0
    first, second = ase.io.read(output, index=":")
    (expected,) = predict(open_model(smirnoff), [embedded("CCO", "CCO", 0)])
    assert expected.deviations is not None
    assert first.get_potential_energy() == pytest.approx(expected.energy / EV, abs=1e-7)
    np.testing.assert_allclose(first.get_forces(), expected.forces / EV, atol=1e-7)
    np.testing.assert_allclose(first.arrays["forces_std"], expected.deviations.forces / EV, atol=1e-7)
    assert first.info["energy_std"] == pytest.approx(expected.deviations.energy / EV)
    assert second.info["relative_energy"] == 0.0
    assert expected.charges is not None
    np.testing.assert_allclose(first.calc.results["charges"], expected.charges, atol=1e-8)
    assert main(["predict", str(smirnoff), str(output), "--output", str(tmp_path / "again.extxyz")]) == 0
    again = ase.io.read(tmp_path / "again.extxyz", index=0)
    assert again.get_potential_energy() == pytest.approx(first.get_potential_energy(), abs=1e-6)
    assert main(["predict", str(network), str(output), "--output", str(tmp_path / "learned.xyz")]) == 0
    assert "forces_std" not in ase.io.read(tmp_path / "learned.xyz", index=0).arrays
    assert left_behind(tmp_path) == ["again.extxyz", "learned.xyz", "out.extxyz"]


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
    near, far = (np.linalg.norm(of.deviations.forces, axis=1).max() for of in predict(open_model(smirnoff), geometries))  # type: ignore[union-attr]
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

    frames = md_module.Simulation.frames

    def interrupted(self: Any, advanced: Any) -> Any:
        for number, frame in enumerate(frames(self, advanced)):
            if number == 3:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(md_module.Simulation, "frames", interrupted)
    assert main([*arguments, "--steps", "10"]) == 130
    assert "the frames so far are kept" in capsys.readouterr().err
    assert len(ase.io.read(output, index=":")) == 3
    assert left_behind(tmp_path) == ["a.extxyz"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "{smirnoff}", "{water}"], 1, "says nothing of bonds"),
        (["predict", "{smirnoff}", "CCO", "[SiH4]"], 1, "[SiH4]: {smirnoff} cannot be assigned: no Bonds parameter"),
        (["predict", "{network}", "CCO", "CN"], 1, "CN: this potential was not trained on N; it knows H, C, O"),
        (["predict", "{smirnoff}", "missing.sdf"], 1, "missing.sdf does not exist"),
        (["predict", "{empty}", "CCO"], 1, "has neither force-field.offxml nor config.json"),
        (["predict", "{smirnoff}", "{water}", "--smiles", "CO"], 1, "has the atoms H2 O1; CO needs H4 C1 O1"),
        (["md", "{smirnoff}", "{water}", "--steps", "5"], 1, "says nothing of bonds"),
        (["md", "{network}", "CN", "--steps", "5"], 1, "not trained on N"),
        (["md", "{network}", "CO", "--steps", "0"], 2, "n_steps = 0; at least 1 is needed"),
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
        (water, "is what is read"),
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
