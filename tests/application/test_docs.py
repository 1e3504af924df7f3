"""The examples of docs/using.md, run as they stand where the pipeline has left its outputs."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import ase.io
import pytest

from pesfit.__main__ import main
from pesfit.data.dataset import ConformerDataset
from pesfit.params.load import load_params
from tests.application.label_samples import row, write

PAGE = Path(__file__).parents[2] / "docs" / "using.md"


@pytest.mark.slow
def test_every_example_runs(
    smirnoff: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs/learned").mkdir(parents=True)
    (tmp_path / "outputs/smirnoff").symlink_to(smirnoff)
    (tmp_path / "outputs/learned/conservative").symlink_to(network)
    for potential in ("smirnoff", "conservative"):
        trajectory = row("CCO", 6, source=f"rollout/{potential}")
        write(tmp_path / "outputs/rollouts/trajectories" / potential, [trajectory])
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    commands = [line for language, block in blocks if language == "sh" for line in block.splitlines()]
    for line in commands:
        assert line.startswith("pesfit ")
        arguments = shlex.split(line)[1:]
        assert main(arguments) == 0, (line, capsys.readouterr().err)
    assert len(ase.io.read("traj.extxyz", index=":")) == 21
    assert [ConformerDataset(f"inputs/datasets/round-{i}")[0].n_conformers for i in (1, 2)] == [2, 6]
    scripts = [block for language, block in blocks if language == "python"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other programs'
        for script in scripts:
            exec(compile(script, str(PAGE), "exec"), {})
    assert (len(commands), len(scripts)) == (9, 3)
    assert "kJ/mol" in capsys.readouterr().out


def test_every_piece_of_params_yaml_is_allowed(tmp_path: Path) -> None:
    """And every source of one's own that is named has a rule."""
    pieces = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for piece in pieces:
        (tmp_path / "params.yaml").write_text(f"profiles: {{small: {{}}}}\n{piece}")
        params = load_params(tmp_path / "params.yaml")
        assert {own.name for own in params.sources.own} == {rule.source for rule in params.split.rules}
    assert len(pieces) == 2
