"""How a stage starts: under an interpreter that lacks the packages, it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_an_interpreter_without_the_packages_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "stages/01_download.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "lacks pesfit's packages; use `make repro`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_imports_its_own_checkout(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "src/pesfit").mkdir(parents=True)
    (tmp_path / "src/pesfit/__init__.py").touch()
    (tmp_path / "stages/_start.py").write_text((ROOT / "stages/_start.py").read_text())
    code = "import _start, pesfit; print(pesfit.__file__)"
    script = tmp_path / "stages/probe.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "src/pesfit/__init__.py")
