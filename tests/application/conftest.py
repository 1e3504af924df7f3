"""One process for all of these tests: starting others takes longer than what they do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_worker() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PESFIT_WORKERS", "1")
        yield
