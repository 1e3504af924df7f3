"""Names: a class name means one thing, and a package's `__init__.py` tells what is in it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src/pesfit"
PACKAGES = sorted(path.parent for path in SOURCE.rglob("__init__.py"))


def test_no_class_name_is_defined_in_two_packages() -> None:
    """But for the implementations of one interface, and private ones, which are known in their module alone."""
    found: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                package = path.relative_to(SOURCE).parts[0]
                found[node.name].setdefault(package, set()).update(ast.unparse(base) for base in node.bases)
    meanings = {name: packages for name, packages in found.items() if len(packages) > 1}
    assert {name: list(packages) for name, packages in meanings.items() if not set.intersection(*packages.values())} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(SOURCE.parent)))
def test_a_package_is_described_and_its_init_file_holds_no_code(package: Path) -> None:
    """So nothing runs on import, and no stage depends on it; `pesfit` itself gives public names, and is a dependency of every stage."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a docstring: what is in the package, and in which order to read it"
    assert package == SOURCE or len(tree.body) == 1
