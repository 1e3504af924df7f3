"""One case for each implementation of `Potential`."""

from __future__ import annotations

import pytest

from tests.contract.registry import CASES, Case


@pytest.fixture(scope="session", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """An implementation of `Potential` with molecules to ask it about."""
    return CASES[request.param]()
