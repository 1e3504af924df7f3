"""Write into dvc.yaml which files each stage's code is made of: `make deps`. DVC does not follow imports, so this does.

A stage's code is its script, every project module that it imports, directly or through others and also inside functions, and the data
files beside these modules. Packages' `__init__.py` that hold a docstring alone are no code. Imports under `if TYPE_CHECKING:` never run.
requirements.lock is not among them: a new release of any package would make everything anew, labels too; `dvc repro --force` does that.
"""

from __future__ import annotations

import argparse
import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "# code (`make deps`)", "# end of code"
PACKAGE_DATA = (".css", ".jinja")


def code_of(script: Path) -> list[str]:
    """Return the files that a stage's code is made of, relative to the checkout, in alphabetical order.

    Args:
        script: of the stage.
    """
    seen = {script}
    waiting = [script]
    while waiting:
        new = _imports(waiting.pop()) - seen
        seen |= new
        waiting += new
    data = {path for folder in {file.parent for file in seen} for path in folder.iterdir() if path.suffix in PACKAGE_DATA}
    return sorted(str(path.relative_to(ROOT)) for path in seen | data)


def with_code(text: str) -> str:
    """Return the text of dvc.yaml with the lists between the markers brought up to date.

    Raises:
        SystemExit: where a marker is missing.
    """
    result: list[str] = []
    script = None
    inside = False
    for line in text.splitlines():
        words = line.split()
        if words[:3] == ["cmd:", "exec", "python"]:
            script = ROOT / words[3]
        if line.strip() == END:
            inside = False
        if not inside:
            result.append(line)
        if line.strip() == BEGIN:
            if script is None:
                raise SystemExit(f"dvc.yaml: {BEGIN} before any `cmd: exec python <script>`")
            if inside:
                break
            inside = True
            indent = line[: line.index("#")]
            result += [f"{indent}- {file}" for file in code_of(script)]
    if inside:
        raise SystemExit(f"dvc.yaml: a list that begins with {BEGIN} does not end with {END}")
    return "\n".join(result) + "\n"


@cache
def _imports(file: Path) -> frozenset[Path]:
    """Return project files with code that one file imports, or whose folder's `__init__.py` runs with it."""
    modules: list[str] = []
    for node in _walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.level:
                raise SystemExit(f"{file}: relative imports are not followed")
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    found = {path for name in modules for path in _files(name)}
    return frozenset(found - {file})


def _walk(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes but those under `if TYPE_CHECKING:`."""
    nodes = []
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            nodes += [child, *_walk(child)]
    return nodes


def _files(module: str) -> list[Path]:
    """Return the files that run when a module is imported: its packages' `__init__.py`, where they hold code, and itself."""
    parts = module.split(".")
    if parts == ["_start"]:
        return [ROOT / "stages/_start.py"]
    if parts[0] != "pesfit":
        return []
    files = [ROOT / "src" / Path(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
    files.append((ROOT / "src" / Path(*parts)).with_suffix(".py"))
    return [file for file in files if file.is_file() and _has_code(file)]


@cache
def _has_code(file: Path) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return file.name != "__init__.py" or any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with status 1 where dvc.yaml is out of date")
    check = parser.parse_args().check
    path = ROOT / "dvc.yaml"
    text = path.read_text(encoding="utf-8")
    new = with_code(text)
    if new != text and check:
        sys.exit("dvc.yaml is out of date: `make deps` brings it up to date")
    if new != text:
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
