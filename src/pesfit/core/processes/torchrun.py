"""What torchrun told this process, which it does through the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pesfit.core.exceptions import ParamsError


@dataclass(frozen=True)
class Place:
    """A process among those that torchrun started.

    Attributes:
        rank: of this process, from 0.
        size: number of processes, on all machines.
        local_rank: among those on this machine.
    """

    rank: int
    size: int
    local_rank: int


def torchrun_place() -> Place | None:
    """Return this process's place among those that torchrun started; None where it did not, which leaves `RANK` or `WORLD_SIZE` unset.

    Raises:
        ParamsError: where `RANK`, `WORLD_SIZE` or `LOCAL_RANK` is not a whole number, or there are fewer processes than the rank says.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    place = Place(_number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0)
    if place.rank >= place.size:
        raise ParamsError(f"RANK = {place.rank}: expected less than WORLD_SIZE = {place.size}, as torchrun sets it")
    return place


def is_helper() -> bool:
    """Tell whether torchrun started this process as one that helps another, which alone writes outputs.

    Raises:
        ParamsError: see `torchrun_place`.
    """
    place = torchrun_place()
    return place is not None and place.rank > 0


def _number(name: str) -> int:
    value = os.environ[name]
    if not (value.isascii() and value.isdigit()):
        raise ParamsError(f"{name} = {value!r}: expected a whole number, as torchrun sets it")
    return int(value)
