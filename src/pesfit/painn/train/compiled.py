"""Compilation of a training step as a whole, where it saves time.

Eager training is bound by memory: each product of two tensors is written out and read again. Compiled, the products are fused. It works in
spite of forces being a derivative because the force gradient and the gradient of the weights are both taken inside the one function
(`torch._dynamo.config.trace_autograd_ops`). It needs a C++ compiler, and 20 to 60 s the first time; the result is kept in a
folder of torch's (`TORCHINDUCTOR_CACHE_DIR`).

Sizes are symbols in what is compiled, traced on one small graph that is always the same. A shard that breaks an assumption made there (a
length of 0 or 1, mostly) is evaluated eagerly, never compiled anew: the code that runs must not depend on what ran before.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import LabeledGraph

Compile = Literal["auto", "always", "never"]
StepFunction = Callable[[LabeledGraph, Tensor], tuple[Tensor, Tensor]]

_COMPILE_SECONDS = 60.0
_SECONDS_SAVED_A_CALL = 5e-3
_SECONDS_SAVED_A_PAIR = 1.2e-7
"""For each pair, feature and interaction of a conservative step on one core; ethanol and aspirin at 128 features agree within 20 %."""
_DIRECT_SHARE = 0.4
"""Cost of a direct step relative to a conservative one."""

_TOLERANCE = 1e-4
"""Largest difference between compiled and eager, as a fraction of the largest number; 1e-6 is usual in float32."""
_MIN_LENGTH = 2


@dataclass(frozen=True)
class StepChoice:
    """A step, compiled or eager.

    Attributes:
        function: from a graph and the weights of its loss to gradient and sums.
        compiled: whether it is compiled.
        why: the reason.
    """

    function: StepFunction
    compiled: bool
    why: str


def compiled_or_eager(  # noqa: PLR0913 - the last three are named
    function: StepFunction,
    potential: PaiNNPotential,
    wanted: Compile,
    *,
    n_steps: int,
    calls_a_step: float,
    pairs_a_step: float,
) -> StepChoice:
    """Compile a step, unless it cannot be compiled or would save less time than it takes.

    Args:
        function: the step.
        potential: the one it trains.
        wanted: `compile_step` of `GradientStep`.
        n_steps: in the whole run.
        calls_a_step: calls of the function in each step.
        pairs_a_step: pairs of atoms in all of these calls together.

    Raises:
        Exception: what the compiler raised, where the step is wanted compiled `always`.
    """
    if wanted == "never":
        return StepChoice(function, compiled=False, why="not asked for")
    if wanted == "auto":
        saved = n_steps * _seconds_saved(potential, calls_a_step, pairs_a_step)
        if saved < _COMPILE_SECONDS:
            return StepChoice(function, compiled=False, why=f"it would save {saved:.0f} s, and take {_COMPILE_SECONDS:.0f} s")
        if potential.scale.device.type == "cpu" and not _has_compiler():
            return StepChoice(function, compiled=False, why="there is no C++ compiler")
    try:
        return StepChoice(compile_step(function, potential), compiled=True, why="derivatives and all in one function")
    except Exception as error:  # whatever goes wrong inside a compiler, eager gives the same numbers
        if wanted == "always":
            raise
        message = (str(error).strip().splitlines() or [""])[0]
        return StepChoice(function, compiled=False, why=f"compiling failed with {type(error).__name__}: {message}")


def _seconds_saved(potential: PaiNNPotential, calls: float, pairs: float) -> float:
    shape = potential.config.network
    saved = calls * _SECONDS_SAVED_A_CALL + pairs * shape.n_features * shape.n_interactions * _SECONDS_SAVED_A_PAIR
    return saved * (1.0 if potential.conservative else _DIRECT_SHARE)


def _has_compiler() -> bool:
    """Return whether the compiler that torch would call exists: `CXX`, or g++."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def compile_step(function: StepFunction, potential: PaiNNPotential, backend: str = "inductor") -> StepFunction:
    """Compile a step, and compare it with itself uncompiled on a small graph.

    Args:
        function: the step.
        potential: the one it trains.
        backend: of `torch.compile`; `aot_eager` traces both derivatives but compiles nothing.

    Raises:
        Exception: what the compiler raises, or a `RuntimeError` where compiled and eager results differ.
    """
    import torch._dynamo

    torch._dynamo.config.trace_autograd_ops = True  # noqa: SLF001 - there is no public name for it
    options: dict[str, Any] = {
        "cpp.threads": 1,
        "triton.mix_order_reduction": False,
    }  # the latter asks whether lengths reach 4096
    fast: StepFunction = torch.compile(
        function, fullgraph=True, dynamic=True, backend=backend, options=options if backend == "inductor" else None
    )
    graph, factors = _example(potential)
    gradient, sums = fast(graph, factors)
    expected_gradient, expected_sums = function(graph, factors)
    for name, actual, expected in (("gradient", gradient, expected_gradient), ("sums", sums, expected_sums)):
        error = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        if not error < _TOLERANCE:
            raise RuntimeError(f"compiled {name} differ by {error:.1e} of the largest from eager ones")

    def run(graph: LabeledGraph, factors: Tensor) -> tuple[Tensor, Tensor]:
        if len(graph.first) < _MIN_LENGTH:
            return function(graph, factors)
        with torch.compiler.set_stance("eager_on_recompile"):
            return fast(graph, factors)

    return run


def _example(potential: PaiNNPotential) -> tuple[LabeledGraph, Tensor]:
    """Make five molecules of seven atoms; no two lengths are equal, since equal ones would be taken for one symbol."""
    n_molecules, n_atoms = 5, 7
    device, generator = potential.scale.device, torch.Generator().manual_seed(1)
    grid = 1.2 * torch.tensor(list(itertools.product(range(2), repeat=3))[:n_atoms], dtype=torch.float64)
    coords = (grid + 0.2 * torch.rand(n_molecules, n_atoms, 3, dtype=torch.float64, generator=generator)).reshape(-1, 3)
    pair = torch.combinations(torch.arange(n_atoms))
    first, second = (pair + n_atoms * torch.arange(n_molecules)[:, None, None]).reshape(-1, 2).unbind(1)
    weight = torch.tensor([1.0] * n_molecules + [0.0], dtype=torch.float64)
    graph = LabeledGraph(
        element=torch.arange(len(coords)) % len(potential.config.elements),
        r=coords[second] - coords[first],
        first=first,
        second=second,
        conformer=torch.arange(n_molecules).repeat_interleave(n_atoms),
        n_atoms_of=weight * (n_atoms - 1.0) + 1.0,
        energy=weight,
        weight=weight,
        forces=torch.rand(len(coords), 3, dtype=torch.float64, generator=generator),
        force_weight=torch.ones(len(coords), 1, dtype=torch.float64),
    )
    # Copies, since a view of another tensor is traced with that one, and `gather` gives none.
    moved = LabeledGraph(**{field.name: getattr(graph, field.name).to(device).clone() for field in fields(graph)})
    return moved, torch.tensor([0.2, 0.01], dtype=torch.float64, device=device)
