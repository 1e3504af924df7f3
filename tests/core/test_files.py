"""Files that are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pesfit.core.files import atomic_write, rounded, write_json
from pesfit.core.plotting import PALETTE, new_figure, save_png


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_when_it_is_whole(sync: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    linked = tmp_path / "cache"
    linked.hardlink_to(path)
    with atomic_write(path, sync=sync) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert linked.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "file.txt"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as new:
            new.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_rounded_to_significant_digits(tmp_path: Path) -> None:
    path = tmp_path / "new/values.json"
    values = {"a": 1234.56789, "b": (1e-12 / 3.0, 7, None, True), 3: {"Å": "x"}}
    write_json(path, values, digits=4)
    assert json.loads(path.read_text()) == {"a": 1235.0, "b": [3.333e-13, 7, None, True], "3": {"Å": "x"}}
    assert path.read_text().isascii()
    write_json(path, values, ascii_only=False, indent=1)
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == 1234.56789
    assert "Å" in path.read_text(encoding="utf-8")
    assert rounded(2.0 / 3.0, 3) == 0.667


def test_numbers_that_are_not_finite_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "values.json", [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "values.json", {"a": float("nan")}, digits=4)
    assert json.loads((tmp_path / "values.json").read_text()) == [1]


def test_a_picture_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        figure = new_figure(2.0, 1.0, "title")
        figure.add_subplot().plot([0.0, 1.0], color=PALETTE[0])
        save_png(figure, tmp_path / name)
    data = (tmp_path / "one.png").read_bytes()
    assert data == (tmp_path / "two.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"Software" not in data
