"""PaiNN, evaluated over pairs instead of directed edges: schnetpack's layers and weights, the same numbers in less time.

K. T. Schütt, O. T. Unke and M. Gastegger, ICML 2021, https://proceedings.mlr.press/v139/schutt21a.html. Each atom i has scalars q_i and
vectors μ_i, F of each. Interaction (the sums are over neighbors j within the cutoff, r_ij = x_j - x_i, d its length, u its direction)::

    (a, b, c)_ij = φ(q_j) ∘ W(d)        W(d) = fcut(d) · filter(rbf(d))
    q_i += Σ_j a_ij                     μ_i += Σ_j (b_ij u_ij + c_ij μ_j)

and mixing, with V and U linear maps of the vectors' features::

    (s, t, p)_i = ψ(q_i, |V μ_i|)       q_i += s_i + p_i <V μ_i, U μ_i>        μ_i += t_i U μ_i

schnetpack's own forward does all of this for each directed edge, and from the first layer on. Here W(d), which both directions share, is
computed once a pair; φ of the first layer, where q is the embedding of the element, once an element; and products with vectors that
are still zero, or that lead to vectors that nothing reads, not at all. On ethanol the whole training step takes 20 % less time for it.

| symbol | here | | symbol | here |
| --- | --- | --- | --- | --- |
| q | `scalars` | | φ | `interatomic_context_net` |
| μ | `vectors` | | ψ | `intraatomic_context_net` |
| W | `filters` | | V, U | `mu_channel_mix` |
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from pesfit.core.exceptions import PesfitError
from pesfit.params.train_learned import Network

_SUPPORTED = ("2.1.1", "2.2.0")
_BARE_PARENTS = ("schnetpack", "schnetpack.representation")
_LOCK = threading.Lock()


class PaiNNNetwork(nn.Module):
    """The representation and the heads, without units: a potential scales the outputs.

    Args:
        shape: F, rounds of interaction and mixing, Gaussians evenly spaced from 0 to the cutoff, and the cosine cutoff itself.
        elements: atomic numbers, each below 100.
        with_force_head: whether each atom also gets a vector, from a gated equivariant head.

    Attributes:
        representation: schnetpack's `PaiNN`.
        energy_head: schnetpack's `build_mlp`, F -> F/2 -> 1.
        force_head: schnetpack's `build_gated_equivariant_mlp`, F -> F/2 -> 1, or None.
    """

    def __init__(self, shape: Network, elements: tuple[int, ...], *, with_force_head: bool) -> None:
        super().__init__()
        spk = import_schnetpack()
        self.n_features = n_features = shape.n_features
        self.cutoff = cutoff = shape.cutoff_angstrom
        self.representation: Any = spk.representation.PaiNN(
            n_features,
            shape.n_interactions,
            radial_basis=spk.nn.GaussianRBF(shape.n_rbf, cutoff),
            cutoff_fn=spk.nn.CosineCutoff(cutoff),
        )
        self.energy_head: Any = spk.nn.build_mlp(n_features, 1, n_layers=2)
        self.force_head: Any = spk.nn.build_gated_equivariant_mlp(n_features, 1, n_layers=2) if with_force_head else None
        self.elements: Tensor
        self.register_buffer("elements", torch.tensor(elements), persistent=False)

    def forward(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor | None]:
        """Evaluate a graph.

        Args:
            element: index in `elements` of each atom, int64, shape (n_atoms,).
            r: [Å], x[second] - x[first], in the network's type, shape (n_pairs, 3).
            first: of each pair of atoms within the cutoff, once; int64, shape (n_pairs,).
            second: same shape.

        Returns:
            A scalar for each atom, shape (n_atoms,), and with a force head a vector for each, shape (n_atoms, 3).
        """
        scalars, vectors = self.represent(element, r, first, second)
        energy = _dense(self.energy_head[1], self._hidden(scalars)).squeeze(1)
        if self.force_head is None:
            return energy, None
        for block in self.force_head:
            scalars, vectors = _gated(block, scalars, vectors)
        return energy, vectors.squeeze(2)

    def hidden(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the input of the last layer of the energy head, shape (n_atoms, F/2); arguments as of `forward`."""
        return self._hidden(self.represent(element, r, first, second)[0])

    def _hidden(self, scalars: Tensor) -> Tensor:
        return silu(_dense(self.energy_head[0], scalars))

    def represent(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of each atom; arguments as of `forward`.

        Returns:
            Scalars, shape (n_atoms, F), and vectors, shape (n_atoms, 3, F); where there is no force head, the vectors are those
            before the last mixing, which changes no energy.
        """
        filters, direction = self._filters(r)
        i, j = torch.cat([first, second]), torch.cat([second, first])
        of_elements = self.representation.embedding.weight[self.elements]
        scalars = of_elements[element]
        vectors: Tensor | None = None
        layers = list(zip(self.representation.interactions, self.representation.mixing, strict=True))
        for number, (interaction, mixing) in enumerate(layers):
            n_blocks = 3 if number else 2
            context = self._context(interaction, scalars if number else of_elements, n_blocks)
            by_pair = context[j if number else element[j]].view(2, len(first), n_blocks, self.n_features)
            weighted = by_pair * filters[:, max(0, 3 * number - 1) :][:, :n_blocks]
            message = weighted[:, :, 1, None] * direction
            if vectors is not None:
                message = message + weighted[:, :, 2, None] * vectors[j].view(2, len(first), 3, self.n_features)
            received = scalars.new_zeros(len(element), 3, self.n_features).index_add(0, i, message.flatten(0, 1))
            vectors = received if vectors is None else vectors + received
            scalars = scalars + torch.zeros_like(scalars).index_add(0, i, weighted[:, :, 0].flatten(0, 1))
            last = number == len(layers) - 1 and self.force_head is None
            scalars, vectors = _mix(mixing, scalars, vectors, keep_vectors=not last)
        return scalars, vectors  # type: ignore[return-value]  # there is at least one interaction

    def _context(self, interaction: Any, scalars: Tensor, n_blocks: int) -> Tensor:
        """Return the first blocks (a, b, c) of φ, shape (n, n_blocks · F)."""
        inner, outer = interaction.interatomic_context_net
        end = n_blocks * self.n_features
        return linear(silu(_dense(inner, scalars)), outer.weight[:end], outer.bias[:end])

    def _filters(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return W(d) without c of the first layer, shape (n_pairs, 3 n_interactions - 1, F), and u both ways, (2, n_pairs, 3, 1)."""
        d = (r * r).sum(1, keepdim=True).sqrt()
        basis = self.representation.radial_basis
        rbf = torch.exp(-0.5 / basis.widths**2 * (d - basis.offsets) ** 2)
        fcut = 0.5 * (torch.cos(d * (torch.pi / self.cutoff)) + 1.0) * (d < self.cutoff)
        direction = (r / d).unsqueeze(2)
        layer, n = self.representation.filter_net, self.n_features
        weight, bias = (torch.cat([values[: 2 * n], values[3 * n :]]) for values in (layer.weight, layer.bias))
        # Laid out this way, the gradient of the weights is a product that is wide rather than tall, which takes half the time.
        filters = torch.addmm(bias, rbf, weight.t().contiguous()) * fcut
        return filters.view(len(r), len(bias) // n, n), torch.stack([direction, -direction])


def _dense(layer: Any, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _mlp(layers: Any, x: Tensor) -> Tensor:
    return _dense(layers[1], silu(_dense(layers[0], x)))


def _mix(mixing: Any, scalars: Tensor, vectors: Tensor, *, keep_vectors: bool) -> tuple[Tensor, Tensor]:
    n_features = scalars.shape[1]
    v, u = torch.split(linear(vectors, mixing.mu_channel_mix.weight), n_features, dim=2)
    length = ((v * v).sum(1) + mixing.epsilon).sqrt()
    inner, outer = mixing.intraatomic_context_net
    hidden = silu(_dense(inner, torch.cat([scalars, length], dim=1)))
    if keep_vectors:
        s, t, p = torch.split(_dense(outer, hidden), n_features, dim=1)
        vectors = vectors + t.unsqueeze(1) * u
    else:
        weight, bias = outer.weight.view(3, n_features, -1)[::2].flatten(0, 1), outer.bias.view(3, n_features)[::2].flatten()
        s, p = torch.split(linear(hidden, weight, bias), n_features, dim=1)
    return scalars + s + p * (v * u).sum(1), vectors


def _gated(block: Any, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate schnetpack's `GatedEquivariantBlock`."""
    v, u = torch.split(_dense(block.mix_vectors, vectors), block.n_vout, dim=2)
    joined = torch.cat([scalars, torch.linalg.vector_norm(v, dim=1)], dim=1)
    scalars, gate = torch.split(_mlp(block.scalar_net, joined), [block.n_sout, block.n_vout], dim=1)
    return (scalars if block.sactivation is None else silu(scalars)), gate.unsqueeze(1) * u


@dataclass(frozen=True)
class SchNetPack:
    """Classes and functions of schnetpack.

    Attributes:
        representation: `schnetpack.representation.painn`.
        nn: `schnetpack.nn`.
    """

    representation: Any
    nn: Any


@cache
def import_schnetpack() -> SchNetPack:
    """Import the representation and the layers of schnetpack alone.

    `import schnetpack` also imports its data sets, trainer and simulations (lightning, matplotlib, h5py: 6 s of CPU beside the 0.6 s that
    its networks need), and in 2.1.1 fails beside a current torch, whose `torch.utils.data.dataloader` has no `T_co` any more. So its `nn`
    and `representation.painn` are imported under bare parent packages, which are removed again: a later `import schnetpack` gets all of it.

    Raises:
        PesfitError: where schnetpack is missing, or is a version that is not supported.
    """
    try:
        found = version("schnetpack")
    except PackageNotFoundError as error:
        raise PesfitError(
            "schnetpack is not installed: pip install 'pesfit[painn]', or pip install --no-deps schnetpack==2.1.1 for Python 3.11"
        ) from error
    if found not in _SUPPORTED:
        raise PesfitError(f"schnetpack {found} is installed; expected one of {', '.join(_SUPPORTED)}")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in its docstrings, torch.jit.script in its scatter_add
        if "schnetpack" in sys.modules:
            return _modules()
        try:
            _put_bare_parents()
            return _modules()
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == "schnetpack"]:
                del sys.modules[name]


def _modules() -> SchNetPack:
    return SchNetPack(
        representation=importlib.import_module("schnetpack.representation.painn"), nn=importlib.import_module("schnetpack.nn")
    )


def _put_bare_parents() -> None:
    spec = importlib.util.find_spec("schnetpack")
    if spec is None or spec.origin is None:
        raise PesfitError("schnetpack is installed but cannot be found; is it a namespace package left by an uninstallation?")
    for name in _BARE_PARENTS:
        parent = types.ModuleType(name)
        parent.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = parent
