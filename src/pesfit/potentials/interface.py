"""The interface of potentials: a batch of conformers as one graph in, energies and forces out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.potentials.neighbors import Edges, SkinnedEdges
from pesfit.potentials.terms import Terms, join_terms

_SKIN = 1.0
"""[Å]; atoms of a molecule at 500 K move by half of it in some 50 fs."""


@dataclass(frozen=True, eq=False)
class Conformers:
    """Conformers of one molecule, to be joined into batches.

    Attributes:
        atomic_numbers: int64, shape (n_atoms,).
        coords: [Å], float64, shape (n_conformers, n_atoms, 3).
        terms: the molecule's SMIRNOFF terms, or None for potentials that need none.
        total_charge: [e].

    Example:
        >>> import pesfit, torch
        >>> coords = torch.tensor([[[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.80, 0.0, 0.0]]], dtype=torch.float64)
        >>> hydrogen = pesfit.Conformers(atomic_numbers=torch.tensor([1, 1]), coords=coords)
        >>> hydrogen.total_charge
        0
    """

    atomic_numbers: Tensor
    coords: Tensor
    terms: Terms | None = None
    total_charge: int = 0

    def at(self, coords: FloatArray) -> Conformers:
        """Return the molecule with other conformers; a copy of coords [Å], shape (n_conformers, n_atoms, 3)."""
        return replace(self, coords=torch.from_numpy(np.array(coords, dtype=np.float64)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Conformers of any number of molecules as one graph, of which each conformer is a disjoint subgraph; nothing is padded.

    The order is molecule, conformer, atom. One molecule is a batch of one. Replicas of a simulation are conformers of one
    molecule: make the batch once and give it new positions by `with_coords`.

    Attributes:
        coords: [Å], float64, shape (n_atoms, 3).
        atomic_numbers: int64, shape (n_atoms,).
        conformer: the conformer each atom belongs to, ascending from 0, int64, shape (n_atoms,).
        sizes: for each molecule, the number of its conformers and the number of its atoms.
        terms: the SMIRNOFF terms of the whole graph; None where the molecules came without.
        edges: neighbors within a cutoff; None until a potential that needs them makes them.
        total_charges: [e], of each molecule; empty where all are neutral.

    Example:
        >>> import pesfit, torch
        >>> coords = torch.tensor([[[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.80, 0.0, 0.0]]], dtype=torch.float64)
        >>> hydrogen = pesfit.Conformers(atomic_numbers=torch.tensor([1, 1]), coords=coords)
        >>> batch = pesfit.collate([hydrogen])
        >>> batch.n_conformers, batch.n_atoms
        (2, 4)
        >>> [tuple(of_molecule.shape) for of_molecule in batch.split_atoms(batch.coords)]
        [(2, 2, 3)]
    """

    coords: Tensor
    atomic_numbers: Tensor
    conformer: Tensor
    sizes: tuple[tuple[int, int], ...]
    terms: Terms | None = None
    edges: Edges | None = None
    total_charges: tuple[int, ...] = ()

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all conformers."""
        return len(self.coords)

    @property
    def n_conformers(self) -> int:
        """Number of conformers of all molecules."""
        return sum(n_conformers for n_conformers, _ in self.sizes)

    def with_coords(self, coords: Tensor) -> Batch:
        """Return the same graph at other positions, without neighbors, since these have moved.

        Args:
            coords: [Å], shape (n_atoms, 3).

        Raises:
            DataError: if the shape is another.
        """
        if coords.shape != self.coords.shape:
            raise DataError(f"coords have shape {tuple(coords.shape)}; this batch needs {tuple(self.coords.shape)}")
        return replace(self, coords=coords, edges=None)

    def split_conformers(self, values: Tensor) -> list[Tensor]:
        """Cut a value per conformer, such as the energy, into molecules.

        Args:
            values: shape (n_conformers, ...).

        Returns:
            For each molecule a view of shape (its n_conformers, ...).
        """
        return list(torch.split(values, [n_conformers for n_conformers, _ in self.sizes]))

    def split_atoms(self, values: Tensor) -> list[Tensor]:
        """Cut a value per atom, such as forces, into molecules.

        Args:
            values: shape (n_atoms, ...).

        Returns:
            For each molecule a view of shape (its n_conformers, its n_atoms, ...).
        """
        blocks = torch.split(values, [n_conformers * n_atoms for n_conformers, n_atoms in self.sizes])
        return [block.reshape(*size, *values.shape[1:]) for block, size in zip(blocks, self.sizes, strict=True)]

    def locate(self, atom: int) -> tuple[int, int, int]:
        """Find the molecule, conformer and atom that an atom of the batch is.

        Args:
            atom: index in `coords`.

        Returns:
            Positions of its molecule in the batch, of its conformer in the molecule, and of the atom in the molecule.

        Raises:
            IndexError: if the batch has no such atom.
        """
        remaining = atom
        for molecule, (n_conformers, n_atoms) in enumerate(self.sizes):
            if 0 <= remaining < n_conformers * n_atoms:
                return molecule, remaining // n_atoms, remaining % n_atoms
            remaining -= n_conformers * n_atoms
        raise IndexError(f"atom {atom} of a batch of {self.n_atoms}")

    def to(self, device: torch.device | str) -> Batch:
        """Copy to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("coords", "atomic_numbers", "conformer")}
        for name in ("terms", "edges"):
            moved[name] = None if getattr(self, name) is None else getattr(self, name).to(device)
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Energies and forces of a batch.

    Attributes:
        energy: [kcal/mol], float64, shape (n_conformers,).
        forces: [kcal/mol/Å], float64, shape (n_atoms, 3).
    """

    energy: Tensor
    forces: Tensor


class Potential(torch.nn.Module, ABC):
    """A function from coordinates to energy and forces.

    Every implementation passes the suite in `tests/contract`: results of one conformer do not depend on what else is in the
    batch; energy does not change when a conformer is moved, turned, or its atoms are renumbered, and forces turn with it;
    molecules far apart have the sum of their energies; inputs are left as they are; the same input gives the same bytes.
    Non-finite coordinates make their own conformer NaN alone.

    Attributes:
        conservative: whether forces are exactly -dE/dx.
        cutoff: [Å], within which it needs neighbors; None where it needs none.
    """

    conservative: ClassVar[bool] = True
    cutoff: float | None = None

    @abstractmethod
    def forward(self, batch: Batch) -> Prediction:
        """Evaluate a batch.

        Raises:
            DataError: if the batch lacks what this potential needs, such as `terms`.
        """

    def __call__(self, batch: Batch) -> Prediction:
        """Evaluate a batch (`forward`, by way of torch's hooks)."""
        prediction: Prediction = super().__call__(batch)
        return prediction

    def bind(self, batch: Batch) -> Callable[[Tensor], Prediction]:
        """Return the potential as a function of positions on a fixed graph, which dynamics calls at each step.

        It keeps no gradients. Parameters that are changed later may not be seen.

        Args:
            batch: whose positions do not matter.

        Returns:
            A function of coords [Å], shape (n_atoms, 3), equal to `forward` of the batch at these positions, to rounding.
        """
        edges = None if self.cutoff is None else SkinnedEdges(batch.sizes, self.cutoff, _SKIN)

        def evaluate(coords: Tensor) -> Prediction:
            with torch.no_grad():
                moved = batch.with_coords(coords)
                return self(moved if edges is None else replace(moved, edges=edges(coords)))

        return evaluate


def collate(molecules: Sequence[Conformers]) -> Batch:
    """Join molecules with their conformers into one graph.

    Args:
        molecules: at least one, each with at least one conformer; with terms all of them, or none.

    Raises:
        DataError: where shapes do not fit together; names the position of the molecule.

    Example:
        >>> import pesfit, torch
        >>> coords = torch.tensor([[[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.80, 0.0, 0.0]]], dtype=torch.float64)
        >>> hydrogen = pesfit.Conformers(atomic_numbers=torch.tensor([1, 1]), coords=coords)
        >>> batch = pesfit.collate([hydrogen, hydrogen])
        >>> prediction = pesfit.open_gfn2().potential(batch)
        >>> [energy.round().tolist() for energy in batch.split_conformers(prediction.energy)]  # kcal/mol
        [[-616.0, -616.0], [-616.0, -616.0]]
    """
    if not molecules:
        raise DataError("a batch of 0 molecules; at least 1 is needed")
    for i, molecule in enumerate(molecules):
        _validate(i, molecule)
    with_terms = [molecule.terms for molecule in molecules if molecule.terms is not None]
    if with_terms and len(with_terms) != len(molecules):
        missing = next(i for i, molecule in enumerate(molecules) if molecule.terms is None)
        raise DataError(f"molecule {missing} of the batch has no SMIRNOFF terms, others have; give all of them or none")

    sizes = tuple((molecule.coords.shape[0], molecule.coords.shape[1]) for molecule in molecules)
    device = molecules[0].coords.device
    atoms_of_conformer = torch.tensor([n_atoms for n_conformers, n_atoms in sizes for _ in range(n_conformers)], device=device)
    n_copies = [n_conformers for n_conformers, _ in sizes]
    return Batch(
        coords=torch.cat([molecule.coords.reshape(-1, 3) for molecule in molecules]),
        atomic_numbers=torch.cat([molecule.atomic_numbers.repeat(n) for molecule, n in zip(molecules, n_copies, strict=True)]),
        conformer=torch.repeat_interleave(torch.arange(sum(n_copies), device=device), atoms_of_conformer),
        sizes=sizes,
        terms=join_terms(list(zip(with_terms, n_copies, strict=True))) if with_terms else None,
        total_charges=tuple(molecule.total_charge for molecule in molecules),
    )


def _validate(i: int, molecule: Conformers) -> None:
    n_atoms = len(molecule.atomic_numbers)
    coords = molecule.coords
    if coords.ndim != 3 or coords.shape[1:] != (n_atoms, 3) or n_atoms == 0 or len(coords) == 0:
        raise DataError(
            f"molecule {i} of the batch has coords of shape {tuple(coords.shape)}; "
            f"expected (n_conformers, {n_atoms}, 3) with at least 1 conformer and 1 atom"
        )
    if coords.dtype != torch.float64:
        raise DataError(f"molecule {i} of the batch has coords of type {coords.dtype}; expected torch.float64")
    if molecule.terms is not None and molecule.terms.n_atoms != n_atoms:
        raise DataError(f"molecule {i} of the batch has {n_atoms} atoms and terms for {molecule.terms.n_atoms}")
