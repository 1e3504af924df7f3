"""dvc.yaml against the code: DVC does not follow imports, so every stage declares the modules and parameters it uses."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from pesfit.params.load import Params
from tests.pipeline.conftest import Checkout, clone_to

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")
STAGES = {name: stage.get("do", stage) for name, stage in DOCUMENT["stages"].items()}
VARIANTS = ("conservative", "direct")


def script(stage: str) -> Path:
    return ROOT / STAGES[stage]["cmd"].split()[2]


def test_stages_declare_the_code_they_are_made_of() -> None:
    """`make deps` writes the lists."""
    check = subprocess.run([sys.executable, ROOT / "stages/_deps.py", "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_lists_of_code_are_written_between_markers_alone() -> None:
    spec = importlib.util.spec_from_file_location("_deps", ROOT / "stages/_deps.py")
    assert spec is not None
    assert spec.loader is not None
    deps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deps)
    text = (ROOT / "dvc.yaml").read_text()
    emptied = re.sub(r"(# code \(`make deps`\)\n).*?( *# end of code)", r"\1\2", text, flags=re.DOTALL)
    assert len(emptied) < 0.5 * len(text)
    assert deps.with_code(emptied) == text
    for broken in (text.replace(deps.END, "#", 1), text.replace("cmd: exec python", "cmd: sh", 1)):
        with pytest.raises(SystemExit, match=r"dvc\.yaml: .*code \(`make deps`\)"):
            deps.with_code(broken)


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
    outside = {"profile", "initial_weights"}  # of profiles
    expected = {section for name in used - outside for section in (name, f"profiles.${{profile}}.{name}")} | used & outside
    if "foreach" in DOCUMENT["stages"][stage]:
        expected = {"initial_weights.${key}" if name == "initial_weights" else name for name in expected}
    assert set(STAGES[stage]["params"]) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_metrics_carry_its_name_and_its_script_is_thin(stage: str) -> None:
    name = stage.partition("_")[2] or stage
    (metrics,) = (next(iter(entry)) for entry in STAGES[stage]["metrics"])
    text = script(stage).read_text()
    if "${key}" in metrics:
        assert metrics == f"outputs/metrics/{name}-${{key}}.json"
        assert f'run_stage(f"{name}-{{' in text
    else:
        assert metrics == f"outputs/metrics/{name}.json"
        assert f'run_stage("{name}"' in text
    assert len(text.splitlines()) <= 60


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone with a file for each output, and a dvc.lock that fits: as after `dvc repro`, but nothing was computed."""
    checkout = clone_to(tmp_path_factory.mktemp("committed") / "clone")
    for stage in STAGES.values():
        for out in (*stage["outs"], *(name for metrics in stage["metrics"] for name in metrics)):
            for variant in VARIANTS:
                path = checkout.path / out.replace("${key}", variant)
                path = path if path.suffix else path / "file"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
    checkout.run("dvc", "commit", "--force")
    assert status(checkout) == {}
    yield checkout
    shutil.rmtree(checkout.path.parent, ignore_errors=True)


def status(checkout: Checkout) -> dict[str, set[str]]:
    """Return the changed dependencies of each stage that would run."""
    stages = json.loads(checkout.run("dvc", "status", "--json"))
    changes = {name: [change.get("changed deps", {}) for change in found] for name, found in stages.items()}
    return {name: {dependency for change in found for dependency in change} for name, found in changes.items()}


@pytest.mark.slow
def test_a_changed_module_reruns_the_stages_that_import_it_and_no_other(committed: Checkout) -> None:
    """All modules change at once, since DVC names those that each stage reruns for; an independent program knows the imports."""
    graph = grimp.build_graph("pesfit", exclude_type_checking_imports=True, cache_dir=None)
    files = {name: ROOT / "src" / Path(*name.split(".")) for name in graph.modules}
    modules = {name: path.with_suffix(".py") for name, path in files.items() if path.with_suffix(".py").is_file()}
    for path in modules.values():
        (committed.path / path.relative_to(ROOT)).write_text(path.read_text() + "# changed\n")
    found = status(committed)
    for path in modules.values():
        shutil.copy(path, committed.path / path.relative_to(ROOT))
    expected: dict[str, set[str]] = {}
    for stage in STAGES:
        imported = {
            node.module or "" for node in ast.walk(ast.parse(script(stage).read_text())) if isinstance(node, ast.ImportFrom)
        }
        code = {name for module in imported & graph.modules for name in (module, *graph.find_upstream_modules(module))}
        declared = {str(modules[name].relative_to(ROOT)) for name in code & set(modules)}
        expected |= dict.fromkeys(
            [f"{stage}@{v}" for v in VARIANTS] if "foreach" in DOCUMENT["stages"][stage] else [stage], declared
        )
    assert found == expected
    packages = {Path(file).parts[2] for files in found.values() for file in files}
    assert len(packages) > 12
    assert "application" not in packages  # no stage needs it


@pytest.mark.slow
def test_files_of_the_users_own_are_tracked_by_content(committed: Checkout, tmp_path: Path) -> None:
    inputs = committed.path / "inputs"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("one")
    links = [inputs / name for name in ("datasets/mine/state.json", "force-fields/mine.offxml", "mirror/md17/md17_ethanol.npz")]
    expected = {"01_download": {"inputs/datasets", "inputs/mirror"}, "03_parameterize": {"inputs/force-fields"}}
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(elsewhere)
    assert status(committed) == expected
    committed.run("dvc", "commit", "--force", *expected)
    elsewhere.write_text("another")
    assert status(committed) == expected
    committed.run("dvc", "commit", "--force", *expected)


@pytest.mark.slow
def test_a_network_that_starts_from_another_is_trained_after_it(committed: Checkout) -> None:
    params = committed.path / "params.yaml"
    params.write_text(params.read_text().replace("conservative: inputs/random-weights", "conservative: outputs/learned/direct"))
    assert '"07_train_learned@direct" -> "07_train_learned@conservative"' in committed.run("dvc", "dag", "--dot")
    committed.run("dvc", "commit", "--force", "07_train_learned@conservative", "09_analyse")
    (committed.path / "outputs/learned/direct/file").write_text("other weights")
    assert status(committed)["07_train_learned@conservative"] == {"outputs/learned/direct"}
