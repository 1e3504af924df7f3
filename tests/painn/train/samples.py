"""Small data sets with exact labels: atoms of three elements in a Morse potential."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.params.train_learned import Batching, LearningRate, Network, Optimizer, TrainLearned

TINY = TrainLearned(
    network=Network(n_features=8, n_interactions=2, n_rbf=6, cutoff_angstrom=4.0),
    batching=Batching(size=6, n_shards=3),
    learning_rate=LearningRate(peak=5e-3, warmup_epochs=1.0),
    optimizer=Optimizer(ema_decay=0.9),
    num_epochs=4,
    early_stopping_patience=None,
    compile="never",
)
"""Parameters for a run of a second or two."""


def morse(coords: torch.Tensor, atomic_numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return energies [kcal/mol], shape (n_conformers,), and forces of E = Σ_pairs 20 (1 - exp(r0 - r))² + Σ_atoms 100 Z."""
    coords = coords.detach().requires_grad_()
    first, second = torch.triu_indices(len(atomic_numbers), len(atomic_numbers), 1)
    r = (coords[:, first] - coords[:, second]).norm(dim=2)
    r0 = 0.9 + 0.03 * (atomic_numbers[first] + atomic_numbers[second])
    pairs = (20.0 * (1.0 - torch.exp(r0 - r)) ** 2).sum(1)
    (gradient,) = torch.autograd.grad(pairs.sum(), coords)
    return (pairs + 100.0 * atomic_numbers.sum()).detach(), -gradient


def record(
    name: str, source: str, atomic_numbers: list[int], n_conformers: int, seed: int, *, with_forces: bool = True
) -> Record:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.tensor(atomic_numbers)
    start = 1.3 * torch.tensor([[i % 2, (i // 2) % 2, i // 4] for i in range(len(numbers))], dtype=torch.float64)
    coords = start + 0.12 * torch.randn(n_conformers, len(numbers), 3, generator=generator, dtype=torch.float64)
    energy, forces = morse(coords, numbers)
    return Record(
        id=name,
        smiles=None,
        atomic_numbers=np.array(atomic_numbers, dtype=np.int32),
        coords=coords.numpy(),
        energy=energy.numpy(),
        forces=forces.numpy() if with_forces else None,
        charges=None,
        total_charge=0,
        group=name.split("/", maxsplit=1)[0],
        source=source,
        frame=np.arange(n_conformers),
    )


def small_data(folder: Path, *, extra: tuple[Record, ...] = ()) -> tuple[dict[str, ConformerDataset], Splits]:
    """Write a data set of two sources: three molecules with forces, one of them in two rows, and one without."""
    records = [
        record("a/0", "toy/one", [6, 1, 1, 8], 10, seed=1),
        record("b/0", "toy/one", [6, 6, 1, 1, 1], 10, seed=2),
        record("b/1", "toy/one", [6, 6, 1, 1, 1], 10, seed=3),
        record("c/0", "toy/two", [8, 1, 1], 10, seed=4),
        record("d/0", "toy/two", [6, 8], 10, seed=5, with_forces=False),
        *extra,
    ]
    with DatasetWriter(folder / "toy", {"toy/one": "Morse", "toy/two": "Morse"}) as writer:
        for one in records:
            writer.write(one)
    split = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 2], dtype=np.uint8)
    rows = [SplitRow("toy", one.id, one.group, np.resize(split, one.n_conformers)) for one in records]
    return {"toy": ConformerDataset(folder / "toy")}, Splits(rows)
