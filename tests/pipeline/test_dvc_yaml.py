"""dvc.yaml against the code: DVC does not follow imports, so every stage declares the modules and parameters it uses."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pesfit.params.load import Params

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage.get("do", stage)  # of `foreach`
    for name, stage in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}

NOT_DECLARED = {
    # Validation, messages, names and the running of processes: a change here changes no result.
    "src/pesfit/arrays.py",
    "src/pesfit/errors.py",
    "src/pesfit/parallel.py",
    "src/pesfit/runtime.py",
    *(str(path.relative_to(ROOT)) for path in (ROOT / "src/pesfit/params").glob("*.py")),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "src/pesfit").rglob("__init__.py")),
}


def module_file(name: str) -> Path | None:
    path = ROOT / "src" / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports(file: Path) -> frozenset[Path]:
    """Project files that one file imports anywhere in it, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: a relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(path for name in names if name.startswith("pesfit") if (path := module_file(name)))
    return frozenset(found)


def closure(file: Path) -> set[str]:
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        for path in imports(waiting.pop()) - seen:
            seen.add(path)
            waiting.append(path)
    return {str(path.relative_to(ROOT)) for path in seen}


def script(stage: str) -> Path:
    return ROOT / STAGES[stage]["cmd"].split()[1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_modules_it_imports(stage: str) -> None:
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/") and dep.endswith(".py")}
    used = closure(script(stage)) - NOT_DECLARED
    assert declared == used, f"missing: {sorted(used - declared)}; not used: {sorted(declared - used)}"
    assert str(script(stage).relative_to(ROOT)) in STAGES[stage]["deps"]


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


def test_packages_have_empty_init_files() -> None:
    """But for `pesfit.calculator`, which imports nothing before it is asked for; so no result depends on these files."""
    top = ROOT / "src/pesfit/__init__.py"
    assert not [path for path in (ROOT / "src").rglob("__init__.py") if path != top and path.read_text().strip()]
    assert not imports(top)
    body = [node for node in ast.parse(top.read_text()).body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)]
    assert [node.name for node in body if isinstance(node, ast.FunctionDef)] == ["__getattr__"]
    assert len(body) == 1
