"""Processes that work together, as one of them sees them: its share of the work, and results gathered in a fixed order."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from pesfit.core.exceptions import LostProcessError

Item = TypeVar("Item")
Arguments = ParamSpec("Arguments")


class ProcessGroup:
    """This process among those that work together. Every process makes the same calls in the same order.

    Each call raises a `LostProcessError` where another process has ended.

    Args:
        rank: of this process, from 0.
        size: number of processes.
        device: what this process computes on.
        folder: a folder for memory that all processes share, where all are on this machine and compute on its CPU. Three to four
            megabytes of gradients take 0.6 ms there and 6 ms through gloo's sockets (two processes, two cores).
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = torch.device(device)
        self._folder = folder
        self._shared: dict[tuple[torch.Size, torch.dtype], _SharedMemory] = {}
        self._n_shared = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that logs and writes."""
        return self.rank == 0

    def share_of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items that are this process's: every `size`-th, from `rank` on."""
        return items[self.rank :: self.size]

    def shares_of(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Return the items of each process."""
        return [items[rank :: self.size] for rank in range(self.size)]

    def gather(self, mine: Sequence[Tensor], n_items: int, like: Tensor) -> list[Tensor]:
        """Give every process all items, in their order.

        Args:
            mine: this process's results, in the order of `share_of`.
            n_items: of all processes together.
            like: a tensor of the shape, type and device that each has.

        Returns:
            `n_items` tensors, to be read before the next call.
        """
        if self.size == 1:
            return list(mine)
        if self._folder is not None:
            return self._shared_memory(n_items, like).exchange(mine, n_items)
        block = torch.zeros((-(-n_items // self.size), *like.shape), dtype=like.dtype, device=like.device)
        for row, item in zip(block, mine, strict=False):
            row.copy_(item)
        blocks = [torch.empty_like(block) for _ in range(self.size)]
        with_others(distributed.all_gather, blocks, block)
        return [blocks[i % self.size][i // self.size] for i in range(n_items)]

    def gather_in_first(self, mine: Tensor, n_items: int) -> Tensor:
        """Give the first process all items, in their order.

        Args:
            mine: this process's results, in the order of `share_of`, on the CPU, shape (n_mine, ...).
            n_items: of all processes together.

        Returns:
            Shape (n_items, ...); in the others, where it means nothing, (0, ...).
        """
        if self.size == 1:
            return mine
        block = torch.zeros((-(-n_items // self.size), *mine.shape[1:]), dtype=mine.dtype)  # all send as many
        block[: len(mine)] = mine
        blocks = [torch.empty_like(block) for _ in range(self.size)] if self.is_first else None
        with_others(distributed.gather, block, blocks, dst=0)
        items = mine.new_empty((n_items if self.is_first else 0, *mine.shape[1:]))
        for rank, of_one in enumerate(blocks or []):
            places = items[rank :: self.size]
            places.copy_(of_one[: len(places)])
        return items

    def gather_objects_in_first(self, mine: Sequence[Item], n_items: int) -> list[Item]:
        """Give the first process all objects, which are pickled, in their order; the others get an empty list."""
        blocks: list[Any] = [mine] * self.size
        if self.size > 1:
            with_others(distributed.gather_object, mine, blocks if self.is_first else None, dst=0)
        return [blocks[i % self.size][i // self.size] for i in range(n_items)] if self.is_first else []

    def deal(self, objects: Sequence[Item] | None) -> Item:
        """Send each process its own of the objects that the first has, which are pickled.

        Args:
            objects: one for each process; None in all but the first.
        """
        received: list[Any] = [None] if objects is None else [objects[0]]
        if self.size > 1:
            with_others(distributed.scatter_object_list, received, None if objects is None else list(objects), src=0)
        item: Item = received[0]
        return item

    def copy_from_first(self, tensor: Tensor) -> None:
        """Overwrite a tensor by that of the first process."""
        if self.size > 1:
            with_others(distributed.broadcast, tensor.detach(), src=0)

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first process run a block before the others do, which then find what it left in a cache."""
        if self.size > 1 and not self.is_first:
            with_others(distributed.barrier)
        yield
        if self.size > 1 and self.is_first:
            with_others(distributed.barrier)

    def _shared_memory(self, n_items: int, like: Tensor) -> _SharedMemory:
        key = (like.shape, like.dtype)
        memory = self._shared.get(key)
        if self._folder is not None and (memory is None or memory.capacity < n_items):
            memory = self._shared[key] = _SharedMemory(self, self._folder / f"shared-{self._n_shared}", n_items, like)
            self._n_shared += 1
        if memory is None:
            raise RuntimeError("shared memory needs a folder")
        return memory


class _SharedMemory:
    """Memory in a file that all processes map; each writes its items into their places.

    There are two copies, used in turn: a process that is ahead writes into one while others still read the other, and gets no
    further, because a barrier ends each exchange.
    """

    def __init__(self, group: ProcessGroup, path: Path, capacity: int, like: Tensor) -> None:
        self.capacity = capacity
        self._group = group
        n_numbers = 2 * capacity * math.prod(like.shape)
        if group.is_first:
            with path.open("wb") as file:  # a full disk is an error here, and a bus error later if the file had holes
                os.posix_fallocate(file.fileno(), 0, max(1, n_numbers * like.element_size()))
        with_others(distributed.barrier)
        self._places = torch.from_file(str(path), shared=True, size=n_numbers, dtype=like.dtype).view(2, capacity, *like.shape)
        with_others(distributed.barrier)
        if group.is_first:
            path.unlink()  # what is mapped stays until the last process ends, however that comes about
        self._turn = 0

    def exchange(self, mine: Sequence[Tensor], n_items: int) -> list[Tensor]:
        places = self._places[self._turn]
        self._turn = 1 - self._turn
        for place, item in zip(self._group.share_of(range(n_items)), mine, strict=True):
            places[place].copy_(item)
        with_others(distributed.barrier)
        return [places[i] for i in range(n_items)]


def with_others(call: Callable[Arguments, object], /, *arguments: Arguments.args, **options: Arguments.kwargs) -> None:
    """Call a collective operation of torch.

    Raises:
        LostProcessError: where another process has ended.
    """
    try:
        call(*arguments, **options)
    except RuntimeError as error:
        raise LostProcessError(f"no connection to another process ({' '.join(str(error).split())[:200]})") from error
