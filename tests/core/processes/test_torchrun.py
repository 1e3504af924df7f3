"""What torchrun's environment says of a process."""

from __future__ import annotations

import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.core.processes.torchrun import Place, is_helper, torchrun_place


def test_without_torchrun_no_process_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun_place() is None
    assert not is_helper()


@pytest.mark.parametrize(("rank", "helps"), [("0", False), ("1", True)])
def test_all_but_the_first_help(rank: str, helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert torchrun_place() == Place(int(rank), 2, 0)
    assert is_helper() == helps


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "one", "RANK = 'one': expected a whole number"),
        ("WORLD_SIZE", "-2", "WORLD_SIZE = '-2': expected a whole number"),
        ("LOCAL_RANK", "", "LOCAL_RANK = '': expected a whole number"),
        ("RANK", "2", "RANK = 2: expected less than WORLD_SIZE = 2"),
    ],
)
def test_what_is_no_place_is_refused(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each, good in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(each, good)
    monkeypatch.setenv(name, value)
    with pytest.raises(ParamsError, match=message):
        is_helper()
