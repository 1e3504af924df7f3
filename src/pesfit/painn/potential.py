"""PaiNN as a potential: atomrefs, units and forces around the network, and its files.

::

    E = Σ_i (e_i + scale · y_i)        conservative: F = -dE/dx        direct: F_i = scale · v_i

y_i and v_i are the outputs of the network for atom i, e_i the atomref of its element. Pair vectors are differences in float64, and sums
over atoms are in float64, so that neither large coordinates nor large energies cost digits; in between the network has its own precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from ase.data import chemical_symbols
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pesfit.core.exceptions import DataError, UnknownElementError
from pesfit.core.files import write_json
from pesfit.painn.network import PaiNNNetwork
from pesfit.params.train_learned import Network
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.neighbors import find_edges

FORMAT = "pesfit-painn"
FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

Variant = Literal["conservative", "direct"]
_MAX_ELEMENT = 99
"""schnetpack's embedding has 100 rows."""


@dataclass(frozen=True)
class PaiNNConfig:
    """A potential but for its numbers.

    Attributes:
        variant: forces as -dE/dx (conservative) or from a head of their own (direct).
        elements: atomic numbers it knows, ascending.
        network: shape and precision.
    """

    variant: Variant
    elements: tuple[int, ...]
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            DataError: naming the field.
        """
        if self.variant not in get_args(Variant):
            raise DataError(f"variant = {self.variant!r}; expected one of {', '.join(get_args(Variant))}")
        ascending = list(self.elements) == sorted(set(self.elements))
        if not self.elements or not ascending or self.elements[0] < 1 or self.elements[-1] > _MAX_ELEMENT:
            raise DataError(f"elements = {self.elements}; expected ascending atomic numbers from 1 to {_MAX_ELEMENT}")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's numbers."""
        return torch.float64 if self.network.precision == "float64" else torch.float32


class PaiNNPotential(Potential):
    """PaiNN with atomrefs and a scale; `ConservativePaiNN` and `DirectPaiNN` are its two kinds, `build_painn` makes either.

    Attributes:
        config: variant, elements and shape.
        network: the trained part.
        atomrefs: [kcal/mol], energy of each element of `config.elements`, float64, shape (n_elements,).
        scale: [kcal/mol] of energies and [kcal/mol/Å] of direct forces for an output of 1; float64, shape ().
    """

    def __init__(self, config: PaiNNConfig) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.network.cutoff_angstrom
        self.network = PaiNNNetwork(config.network, config.elements, with_force_head=not self.conservative).to(config.dtype)
        self.atomrefs: Tensor
        self.scale: Tensor
        self.register_buffer("atomrefs", torch.zeros(len(config.elements), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self._index_of_element: Tensor
        index = torch.full((256,), -1)
        index[list(config.elements)] = torch.arange(len(config.elements))
        self.register_buffer("_index_of_element", index, persistent=False)

    def element_index(self, atomic_numbers: Tensor) -> Tensor:
        """Look elements up in `config.elements`.

        Args:
            atomic_numbers: any integers, shape (n_atoms,).

        Returns:
            int64, shape (n_atoms,).

        Raises:
            UnknownElementError: naming an element that was not in training.
        """
        index = self._index_of_element[atomic_numbers.long().clamp(0, 255)]
        if bool((index < 0).any()):
            numbers = sorted(set(atomic_numbers[index < 0].tolist()))
            raise UnknownElementError(
                f"this potential was not trained on {', '.join(_symbol(number) for number in numbers)}; it knows "
                f"{', '.join(_symbol(number) for number in self.config.elements)}"
            )
        return index

    def forward(self, batch: Batch) -> Prediction:
        """Evaluate a batch.

        The result can be differentiated where `batch.coords` ask for it; otherwise nothing is kept, which takes less time and memory.

        Args:
            batch: its `edges` are used where they have this cutoff, and found otherwise.

        Raises:
            UnknownElementError: naming an element that was not in training.
        """
        element = self.element_index(batch.atomic_numbers)
        cutoff, edges = self.config.network.cutoff_angstrom, batch.edges
        if edges is None or edges.cutoff != cutoff:
            edges = find_edges(batch.coords, batch.sizes, cutoff)
        first, second = edges.pairs()
        keep = torch.is_grad_enabled() and batch.coords.requires_grad
        coords = batch.coords if keep else batch.coords.detach()
        r = coords[second] - coords[first]
        output, forces = self.evaluate(element, r, first, second, keep_graph=keep)
        # Atoms without finite coordinates have no neighbors, but their conformer has no finite energy either.
        nan_where_invalid = 0.0 * coords
        energy = self.atomrefs[element] + self.scale * output + nan_where_invalid.sum(1)
        return Prediction(
            energy=torch.zeros(batch.n_conformers, dtype=torch.float64, device=coords.device).index_add(
                0, batch.conformer, energy
            ),
            forces=forces + nan_where_invalid,
        )

    def evaluate(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor, *, keep_graph: bool) -> tuple[Tensor, Tensor]:
        """Evaluate a graph given as flat tensors, for training and `forward`.

        Args:
            element: index in `config.elements`, int64, shape (n_atoms,).
            r: [Å], x[second] - x[first], float64, shape (n_pairs, 3).
            first: of each pair within the cutoff, once; int64, shape (n_pairs,).
            second: same shape.
            keep_graph: whether results shall be differentiated.

        Returns:
            y of each atom, float64, shape (n_atoms,), and forces [kcal/mol/Å], float64, shape (n_atoms, 3).
        """
        raise NotImplementedError

    def save(self, folder: Path | str) -> None:
        """Write the config as JSON and the numbers as safetensors. Bytes depend on the model alone.

        Args:
            folder: made if it is missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "variant": self.config.variant,
            "elements": self.config.elements,
            "network": self.config.network.model_dump(),
        }
        write_json(folder / CONFIG_FILE, config)
        # The weights may be views of one vector while they are trained, which safetensors refuses.
        save_file({name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}, folder / WEIGHTS_FILE)

    def __reduce__(self) -> tuple[Any, ...]:
        # schnetpack's classes cannot be found by name, see `network.import_schnetpack`.
        return _rebuild, (
            self.config,
            {name: tensor.detach().clone() for name, tensor in self.state_dict().items()},
            self.training,
        )


class ConservativePaiNN(PaiNNPotential):
    """Forces are exactly -dE/dx."""

    def evaluate(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor, *, keep_graph: bool) -> tuple[Tensor, Tensor]:
        """Evaluate; see `PaiNNPotential.evaluate`."""
        with torch.enable_grad():
            r = r.to(self.config.dtype)
            r = r if r.requires_grad else r.requires_grad_()
            output, _ = self.network(element, r, first, second)
            if len(first) == 0:
                slope = torch.zeros_like(r)
            else:
                (slope,) = torch.autograd.grad([output.sum()], [r], create_graph=keep_graph)
        pull = self.scale * slope.double()
        forces = pull.new_zeros(len(element), 3).index_add(0, first, pull).index_add(0, second, -pull)
        return (output if keep_graph else output.detach()).double(), forces


class DirectPaiNN(PaiNNPotential):
    """Forces come from a head of their own: no second backward pass, and no energy that they conserve."""

    conservative: ClassVar[bool] = False

    def evaluate(self, element: Tensor, r: Tensor, first: Tensor, second: Tensor, *, keep_graph: bool) -> tuple[Tensor, Tensor]:
        """Evaluate; see `PaiNNPotential.evaluate`."""
        with torch.set_grad_enabled(keep_graph):
            output, vectors = self.network(element, r.to(self.config.dtype), first, second)
        return output.double(), self.scale * vectors.double()


def build_painn(config: PaiNNConfig, *, atomrefs: Tensor | None = None, scale: float = 1.0, seed: int = 0) -> PaiNNPotential:
    """Make a potential with random weights, which depend on the config and the seed alone.

    Args:
        config: variant, elements and shape.
        atomrefs: [kcal/mol], one for each element; zeros where None.
        scale: [kcal/mol], positive.
        seed: of the weights; torch's global random state is left as it is.

    Raises:
        DataError: where the number of atomrefs is wrong, or the scale is not a positive number.
    """
    if atomrefs is not None and atomrefs.shape != (len(config.elements),):
        raise DataError(f"atomrefs have shape {tuple(atomrefs.shape)}; {len(config.elements)} elements need one each")
    if not 0.0 < scale < float("inf"):
        raise DataError(f"scale = {scale} kcal/mol; a positive number is needed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        potential = _empty(config)
    if atomrefs is not None:
        potential.atomrefs.copy_(atomrefs)
    potential.scale.fill_(scale)
    return potential


def load_painn(folder: Path | str, device: torch.device | str = "cpu") -> PaiNNPotential:
    """Read a potential that `PaiNNPotential.save` wrote; it gives the same numbers.

    Raises:
        DataError: where a file is missing, damaged, or has another format version.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
        found = (values["format"], values["format_version"])
        if found != (FORMAT, FORMAT_VERSION):
            raise DataError(f"{path} has format {found[0]} version {found[1]}; this version reads {FORMAT} {FORMAT_VERSION}")
        config = PaiNNConfig(values["variant"], tuple(values["elements"]), Network(**values["network"]))
        potential = _empty(config)
        potential.load_state_dict(load_file(Path(folder) / WEIGHTS_FILE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder} does not hold a PaiNN potential that can be read: {error}") from error
    return potential.to(device)


def transfer_weights(source: PaiNNPotential, target: PaiNNPotential) -> list[str]:
    """Start one potential from another, of either variant: copy all parameters both have.

    Atomrefs and scale of the target stay, since they belong to its data.

    Returns:
        Names of the target's parameters that the source lacks: those of the force head, or none.

    Raises:
        DataError: where the networks have different shapes.
    """
    theirs, ours = source.config.network, target.config.network
    for name in ("n_features", "n_interactions", "n_rbf", "cutoff_angstrom"):
        if getattr(theirs, name) != getattr(ours, name):
            raise DataError(
                f"cannot start from a network with {name} = {getattr(theirs, name)}; this one has {getattr(ours, name)}"
            )
    available = dict(source.named_parameters())
    missing = []
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name not in available:
                missing.append(name)
            else:
                parameter.copy_(available[name])
    return missing


def _empty(config: PaiNNConfig) -> PaiNNPotential:
    return ConservativePaiNN(config) if config.variant == "conservative" else DirectPaiNN(config)


def _rebuild(config: PaiNNConfig, state: Mapping[str, Tensor], training: bool) -> PaiNNPotential:
    with torch.random.fork_rng(devices=[]):
        potential = _empty(config)
    potential.load_state_dict(state)
    return potential.to(state["scale"].device).train(training)


def _symbol(number: int) -> str:
    return str(chemical_symbols[number]) if 0 < number < len(chemical_symbols) else f"element {number}"
