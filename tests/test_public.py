"""The names that `import pesfit` gives: they are what the stub declares, and the examples in their docstrings run."""

from __future__ import annotations

import ast
import doctest
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pesfit
from pesfit.data.dataset import DatasetWriter
from pesfit.data.splits import SplitRow, write_splits
from tests.application.label_samples import row

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipeline(smirnoff: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `dvc repro` leaves there, as far as examples use it."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "outputs/learned").mkdir(parents=True)
    (folder / "outputs/smirnoff").symlink_to(smirnoff)
    (folder / "outputs/learned/conservative").symlink_to(network)
    shutil.copy(ROOT / "params.yaml", folder)
    record = replace(row("CCO", 6, source="xtb/conformers"), id="ethanol")
    with DatasetWriter(folder / "data/arrow/xtb", {"xtb/conformers": "GFN2-xTB"}) as writer:
        writer.write(record)
    (folder / "data/clustered").symlink_to(folder / "data/arrow")
    (folder / "data/splits").mkdir()
    split = np.zeros(record.n_conformers, dtype=np.uint8)
    write_splits(folder / "data/splits/splits.arrow", [SplitRow("xtb", record.id, record.group, split)])
    return folder


@pytest.mark.parametrize("name", dir(pesfit))
def test_each_public_name_has_an_example_that_runs(name: str, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pipeline)
    found = doctest.DocTestFinder(recurse=False).find(getattr(pesfit, name), name, globs={})
    assert found[0].examples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other programs'
        assert doctest.DocTestRunner().run(found[0]).failed == 0


def test_the_stub_declares_the_public_names() -> None:
    tree = ast.parse((ROOT / "src/pesfit/__init__.pyi").read_text())
    declared = {
        alias.asname: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(filter(None, declared)) == dir(pesfit)
    assert declared == {name: (getattr(pesfit, name).__module__, name) for name in dir(pesfit)}
    with pytest.raises(AttributeError, match="has no attribute 'open_modle'"):
        _ = pesfit.open_modle  # type: ignore[attr-defined]


def test_importing_pesfit_imports_nothing_else() -> None:
    code = "import sys; import pesfit; print(sorted(name for name in sys.modules if name.split('.')[0] in {'pesfit', 'torch', 'numpy'}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert result.stdout.strip() == "['pesfit']"
