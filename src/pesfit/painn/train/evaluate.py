"""Residuals of a network on conformers, and errors and loss on a whole split, computed by all processes together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import LongArray
from pesfit.core.process_group import ProcessGroup
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import TrainingData
from pesfit.painn.train.step import chunks, loss_of, relative_energy_and_forces
from pesfit.params.train_learned import LearnedObjective
from pesfit.statistics.errors import Errors, numbers_of

_PIECE = 64
"""Conformers a process takes at a time; constant, so that results do not depend on the number of processes."""
_N_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Residuals:
    """Predictions minus labels.

    Attributes:
        energy: [kcal/mol], float64, shape (n_conformers,).
        forces: [kcal/mol/Å], 0 where there are no labels, float64, shape (n_atoms, 3).
        conformer: position of the conformer that each atom belongs to, int64, shape (n_atoms,).
    """

    energy: Tensor
    forces: Tensor
    conformer: Tensor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors and loss on a split.

    Attributes:
        errors: of each conformer.
        loss: the objective, with means over the whole split, and with ΔE' of `statistics.errors` for energies, which the arbitrary
            energy zeros of molecules that are not in training do not dominate. The best weights are those of the lowest loss.
    """

    errors: Errors
    loss: float


def evaluate_split(
    potential: PaiNNPotential, data: TrainingData, objective: LearnedObjective, group: ProcessGroup
) -> Evaluation:
    """Evaluate a split.

    Args:
        potential: with the weights to evaluate.
        data: the split.
        objective: for the loss.
        group: of processes, each of which gets the result.
    """
    pieces = np.split(np.arange(len(data)), range(_PIECE, len(data), _PIECE))
    results = [_evaluate_piece(potential, data, piece, objective) for piece in group.share_of(pieces)]
    like = torch.zeros((_PIECE, _N_COLUMNS), dtype=torch.float64, device=data.device)
    table = torch.cat(group.gather(results, len(pieces), like))[: len(data)].cpu().numpy()
    force_abs, force_sq, force_loss, energy = table.T.copy()
    sources, source = np.unique([row.source for row in data.rows], return_inverse=True)
    errors = Errors.of_conformers(
        molecule=numbers_of([(row.dataset, row.group) for row in data.rows])[data.row],
        source=source[data.row],
        sources=sources.tolist(),
        energy=energy,
        n_components=3 * data.n_atoms * data.has_forces,
        force_sq=force_sq,
        force_abs=force_abs,
        n_atoms=data.n_atoms,
    )
    relative = errors.relative_energy / (data.n_atoms if objective.energy_per == "atom" else 1)
    energy_loss = loss_of(objective, "energy", torch.from_numpy(relative))
    per_energy = objective.energy_weight / len(data)
    per_component = objective.force_weight / max(1, int(errors.n_components.sum()))
    return Evaluation(errors, float(per_energy * energy_loss.sum() + per_component * force_loss.sum()))


def _evaluate_piece(potential: PaiNNPotential, data: TrainingData, piece: LongArray, objective: LearnedObjective) -> Tensor:
    """Return Σ|ΔF|, ΣΔF², forces' loss and ΔE of each conformer, shape (_PIECE, _N_COLUMNS), padded with 0."""
    found = residuals(potential, data, piece)
    absolute, square = found.forces.abs(), found.forces**2
    of_atoms = torch.stack([values.sum(1) for values in (absolute, square, loss_of(objective, "force", found.forces))], dim=1)
    table = torch.zeros((_PIECE, _N_COLUMNS), dtype=torch.float64, device=data.device)
    table[:, :3].index_add_(0, found.conformer, of_atoms)
    table[: len(piece), 3] = found.energy
    return table


def residuals(potential: PaiNNPotential, data: TrainingData, conformers: LongArray) -> Residuals:
    """Evaluate any number of conformers without keeping what gradients would need.

    Args:
        potential: the network.
        data: with neighbors within the potential's cutoff.
        conformers: indices in the data, at least one.
    """
    data = data.relative_to(potential.element_index, potential.atomrefs)
    energies, forces = [], []
    with torch.no_grad():
        for chunk in chunks(data, conformers):
            graph = data.gather(chunk)
            energy, force = relative_energy_and_forces(potential, graph, keep_graph=False)
            energies.append((energy - graph.energy)[:-1])
            forces.append((force - graph.forces) * graph.force_weight)
    n_atoms = torch.from_numpy(data.n_atoms[conformers]).to(data.device)
    conformer = torch.repeat_interleave(torch.arange(len(conformers), device=data.device), n_atoms)
    return Residuals(torch.cat(energies), torch.cat(forces), conformer)
