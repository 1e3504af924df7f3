"""The wheel: what it declares fits what requirements.lock pins, and it holds what the package reads besides Python."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pesfit.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line) for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in lines
]


def pinned() -> dict[str, str]:
    lock = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    torch = re.search(r"^TORCH := torch==(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    assert "torch" not in lock
    return lock | {"torch": torch[1]}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_declared_ranges_accept_what_is_pinned(requirement: Requirement) -> None:
    assert pinned()[canonicalize_name(requirement.name)] in requirement.specifier


def test_whatever_is_imported_is_declared() -> None:
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    optional = {"pesfit", "smee"}
    brought_along = {"cycler": "matplotlib", "pydantic_core": "pydantic"}
    declared = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    distributions = packages_distributions()
    for name in sorted(imported - set(sys.stdlib_module_names) - optional):
        known = {canonicalize_name(each) for each in distributions[brought_along.get(name, name)]}
        assert known & declared, f"{name}, of {known}, is imported, but pyproject.toml does not name it"


def test_the_wheel_holds_data_types_and_the_command(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("pesfit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("pesfit/")}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "pesfit = pesfit.__main__:main" in archive.read(entry_points).decode()
    files = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/pesfit").rglob("*") if path.is_file()}
    assert held == {file for file in files if "__pycache__" not in file}


def test_the_command_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("pesfit ")
