"""What surrounds a stage: exit status, one run at a time, outputs that are whole or not there."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from pesfit.core.exceptions import DataError
from pesfit.core.runtime import SCRATCH, input_folder, output_folder, run_stage
from pesfit.params.load import Params, load_params


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("profile: small\nprofiles: {small: {}}\n")
    return tmp_path


def test_metrics_are_written_with_the_digits_worth_reading(checkout: Path) -> None:
    run_stage(
        "demo", lambda params: {"third": 1 / 3, "nested": {"n": 3, "seed": params.split.seed}, "list": [0.1 + 0.2]}, load_params
    )
    text = (checkout / "outputs/metrics/demo.json").read_text()
    assert json.loads(text) == {"third": 0.3333333333, "nested": {"n": 3, "seed": 2666}, "list": [0.3]}


def test_a_wrong_parameter_ends_with_status_2_before_any_work(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "params.yaml").write_text("profile: small\nprofiles: {small: {}}\nsplit: {sed: 1}\n")
    done = []
    with pytest.raises(SystemExit) as caught:
        run_stage("demo", lambda _: done.append(1) or {}, load_params)
    assert caught.value.code == 2
    assert not done
    assert "split.sed = 1: unknown key (did you mean seed?)" in capsys.readouterr().err


def test_an_error_is_one_message_and_leaves_what_was_there(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "data/raw").mkdir(parents=True)
    (checkout / "data/raw/precious").touch()

    def fail(_: Params) -> dict[str, object]:
        with output_folder("data/raw") as folder:
            (folder / "half").touch()
            raise DataError("a.tar.gz is truncated")

    with pytest.raises(SystemExit) as caught:
        run_stage("demo", fail, load_params)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "pesfit demo: a.tar.gz is truncated\n"
    assert [path.name for path in (checkout / "data").rglob("*")] == ["raw", "precious"]


def test_an_output_replaces_what_was_there_and_clears_what_a_killed_run_left(checkout: Path) -> None:
    (checkout / "data/raw").mkdir(parents=True)
    (checkout / "data/raw/old").touch()
    (checkout / "data/.raw.new-1").mkdir()
    with output_folder("data/raw") as folder:
        (folder / "new").touch()
    assert sorted(path.name for path in (checkout / "data").rglob("*")) == ["new", "raw"]


def test_ctrl_c_ends_with_130(checkout: Path) -> None:
    def interrupt(_: Params) -> dict[str, object]:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_stage("demo", interrupt, load_params)
    assert caught.value.code == 130


def test_a_second_run_of_the_same_stage_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / SCRATCH).mkdir(parents=True)
    with (checkout / SCRATCH / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            run_stage("demo", lambda _: {}, load_params)
    assert "another run of stage demo is under way" in capsys.readouterr().err
    run_stage("demo", lambda _: {}, load_params)


def test_what_is_no_users_fault_is_not_hidden(checkout: Path) -> None:
    def fail(_: Params) -> dict[str, object]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage("demo", fail, load_params)


def test_a_missing_input_says_how_to_get_it(checkout: Path) -> None:
    with pytest.raises(DataError, match="data/arrow is missing; `dvc repro` runs"):
        input_folder("data/arrow")
