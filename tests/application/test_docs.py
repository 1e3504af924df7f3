"""The examples of docs/using.md, run as they stand where the pipeline has left its outputs."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import ase.io
import pytest

from pesfit.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "using.md"


def test_every_example_runs(
    smirnoff: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs/learned").mkdir(parents=True)
    (tmp_path / "outputs/smirnoff").symlink_to(smirnoff)
    (tmp_path / "outputs/learned/conservative").symlink_to(network)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    commands = [line for language, block in blocks if language == "sh" for line in block.splitlines()]
    for line in commands:
        assert line.startswith("python -m pesfit ")
        arguments = shlex.split(line)[3:]
        assert main(arguments) == 0, (line, capsys.readouterr().err)
    assert len(ase.io.read("traj.extxyz", index=":")) == 21
    scripts = [block for language, block in blocks if language == "python"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other programs'
        for script in scripts:
            exec(compile(script, str(PAGE), "exec"), {})
    assert (len(commands), len(scripts)) == (5, 2)
    assert "kJ/mol" in capsys.readouterr().out
