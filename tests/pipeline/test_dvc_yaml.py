"""dvc.yaml against the code: DVC does not follow imports, so every stage declares the modules and parameters it uses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pesfit.params.load import Params

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage.get("do", stage)  # of `foreach`
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}


def script(stage: str) -> Path:
    return ROOT / STAGES[stage]["cmd"].split()[1]


def test_stages_declare_the_code_they_are_made_of() -> None:
    """`make deps` writes the lists."""
    check = subprocess.run([sys.executable, ROOT / "stages/_deps.py", "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_it_reads(stage: str) -> None:
    tree = ast.parse(script(stage).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    handed_on = any(
        isinstance(argument, ast.Name) and argument.id == "params"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
    )
    used |= set(Params.model_fields) if handed_on else set()
    expected = {section for name in used - {"profile"} for section in (name, f"profiles.${{profile}}.{name}")}
    assert set(STAGES[stage]["params"]) == expected | (used & {"profile"})


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_metrics_carry_its_name_and_its_script_is_thin(stage: str) -> None:
    name = stage.partition("_")[2]
    (metrics,) = (next(iter(entry)) for entry in STAGES[stage]["metrics"])
    text = script(stage).read_text()
    if "${item}" in metrics:
        assert metrics == f"outputs/metrics/{name}-${{item}}.json"
        assert f'run_stage(f"{name}-{{' in text
    else:
        assert metrics == f"outputs/metrics/{name}.json"
        assert f'run_stage("{name}"' in text
    assert len(text.splitlines()) <= 40


def test_init_files_hold_a_docstring_alone() -> None:
    """So nothing runs, and no result depends on them; `pesfit` itself gives public names, and is a dependency of every stage."""
    top = ROOT / "src/pesfit/__init__.py"
    for path in (ROOT / "src").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert path == top or all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path
