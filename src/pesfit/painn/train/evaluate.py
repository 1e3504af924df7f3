"""Errors of a network on all conformers of a split, found by all processes together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import LongArray
from pesfit.core.process_group import ProcessGroup
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.graphs import TrainingData
from pesfit.painn.train.step import evaluate, loss_of
from pesfit.params.train_learned import LearnedObjective
from pesfit.statistics.errors import Errors, numbers_of

_PIECE = 64
"""Conformers a process takes at a time. It is fixed, so that results do not depend on the number of processes."""
_N_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found on a split.

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
    found = evaluate(potential, data, piece)
    energy = found.energy - found.energy_target
    forces = (found.forces - found.forces_target) * found.has_forces.to(energy)[found.conformer, None]
    of_atoms = torch.stack([forces.abs().sum(1), (forces**2).sum(1), loss_of(objective, "force", forces).sum(1)], dim=1)
    table = torch.zeros((_PIECE, _N_COLUMNS), dtype=torch.float64, device=energy.device)
    table[:, :3].index_add_(0, found.conformer, of_atoms)
    table[: len(piece), 3] = energy
    return table
