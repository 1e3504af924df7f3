r"""The posterior of a trained network's last layer, by the linear-Gaussian regression that the SMIRNOFF fit uses.

Rows are energies and components of forces of the training set, targets the residuals of the network, and x the change of the last layer
(`painn.last_layer`). Energies are not centered, because the network predicts them whole. The prior of all numbers of the last layer is
N(0, σ²/λ): so x has the prior mean -(w, b), and x = 0, where training ended, is near the optimum.

A prior centered at the trained numbers would use the data twice: the residuals then hardly ask for a change, the evidence makes the prior
ever narrower, and the posterior variance vanishes (on rMD17 ethanol with one effective parameter of 33, instead of 33).

λ and the balance of energies and forces maximize the evidence. The noise is estimated from the residuals of the training set, which are
smaller than those of other data, the more so the longer the training. A factor from the validation set corrects standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.process_group import ProcessGroup
from pesfit.painn.last_layer import LastLayerPosterior, features_and_slopes, last_layer
from pesfit.painn.potential import PaiNNPotential
from pesfit.painn.train.datasets import TrainingData
from pesfit.painn.train.step import chunks
from pesfit.params.train_learned import LearnedObjective
from pesfit.statistics.linear_gaussian import GaussianPrior, Posterior, Spectrum, infer, maximize_balance
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations, total
from pesfit.statistics.quadratic import Constraints

N_SHARDS = 64
"""Pieces of a set, whose sums are added in order: at most so many processes share the work."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The posterior with diagnostics.

    Attributes:
        posterior: of the change of the last layer.
        effective_parameters: γ.
        n_conformers: number of training conformers used.
        validation: mean square residuals of the validation set, of energies [(kcal/mol)²] and of forces [(kcal/mol/Å)², None without
            labels], with the last layer as trained and at the posterior mean.
        loss_change: relative change of the validation loss, if it were the mean of squares, from the last layer as trained to the
            posterior mean; -0.01 is a loss smaller by 1 %.
    """

    posterior: LastLayerPosterior
    effective_parameters: float
    n_conformers: int
    validation: tuple[tuple[float, float | None], tuple[float, float | None]]
    loss_change: float

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of the stage."""
        posterior = self.posterior
        force_noise = posterior.force_noise_variance
        summary: dict[str, Any] = {
            "n_features": len(posterior.mean),
            "conformers": self.n_conformers,
            "effective_parameters": self.effective_parameters,
            "prior_strength": posterior.strength,
            "energy_weight_square_angstrom": posterior.energy_weight,
            "energy_noise_kcal_per_mol": math.sqrt(posterior.energy_noise_variance),
            "force_noise_kcal_per_mol_per_angstrom": math.sqrt(force_noise) if force_noise >= 0.0 else None,
            "validation_squared_loss_change_at_posterior_mean": self.loss_change,
        }
        for where, (energy, force) in zip(("as_trained", "at_posterior_mean"), self.validation, strict=True):
            summary[f"validation_total_energy_rmse_kcal_per_mol_{where}"] = math.sqrt(energy)
            summary[f"validation_force_rmse_kcal_per_mol_per_angstrom_{where}"] = None if force is None else math.sqrt(force)
        return summary


def fit_last_layer(
    potential: PaiNNPotential, data: Mapping[str, TrainingData], objective: LearnedObjective, most: int, group: ProcessGroup
) -> LastLayer:
    """Find the posterior of the last layer; the potential stays as it is.

    Args:
        potential: conservative, with the weights it keeps.
        data: with `train` and `validation`.
        objective: weights of the loss.
        most: number of conformers of each set, at least 1; of larger sets evenly spaced ones are used.
        group: of processes, each of which gets the result.
    """
    train = sum_up(potential, data["train"], most, "last layer", group)
    validation = sum_up(potential, data["validation"], most, "last layer, validation", group)
    posterior, weight = infer_last_layer(train, last_layer(potential))
    has_forces = train[FORCES].n_rows > 0.0
    found = LastLayerPosterior(
        mean=posterior.x,
        covariance=posterior.covariance,
        energy_noise_variance=posterior.noise_variance / weight,
        force_noise_variance=posterior.noise_variance if has_forces else math.nan,
        strength=posterior.strength,
        energy_weight=weight,
    )
    before, after = (_mean_squares(validation, x) for x in (np.zeros(len(posterior.x)), posterior.x))
    losses = [objective.energy_weight * energy + objective.force_weight * (force or 0.0) for energy, force in (before, after)]
    return LastLayer(
        posterior=found,
        effective_parameters=posterior.effective_parameters,
        n_conformers=int(train[ENERGIES].n_rows),
        validation=(before, after),
        loss_change=losses[1] / losses[0] - 1.0 if losses[0] > 0.0 else 0.0,
    )


def infer_last_layer(equations: NormalEquations, layer: FloatArray) -> tuple[Posterior, float]:
    """Choose the balance and λ by evidence, and solve.

    Args:
        equations: of the training set, over x.
        layer: (w, b), shape (n_features,).

    Returns:
        The posterior of x, and the weight of a row of energies beside 1 for a row of forces (1 where there are no forces).
    """
    prior = GaussianPrior(-layer, np.ones(len(layer)))
    weight = maximize_balance(equations, prior) if equations[FORCES].n_rows else 1.0
    moments = equations.weighted({ENERGIES: weight, FORCES: 1.0})
    strength = Spectrum.of(moments, prior).maximize_evidence()
    return infer(moments, prior, strength, Constraints.none(len(layer))), weight


def sum_up(potential: PaiNNPotential, data: TrainingData, most: int, label: str, group: ProcessGroup) -> NormalEquations:
    """Accumulate the normal equations of the last layer.

    Args:
        potential: the network.
        data: the conformers.
        most: number of conformers to use, evenly spaced.
        label: of the progress bar.
        group: of processes, each of which gets the result, to the same bytes for any number of them.
    """
    data = data.relative_to(potential.element_index, potential.atomrefs)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), most)).astype(np.int64))
    shards = np.array_split(chosen, min(N_SHARDS, len(chosen)))
    layer = last_layer(potential)
    mine = group.share_of(shards)
    bar = tqdm(mine, desc=label, unit="shard", dynamic_ncols=True, mininterval=0.5, disable=not group.is_first)
    sums = [_packed(_of_shard(potential, data, shard, layer)).to(group.device) for shard in bar]
    n = len(layer)
    like = torch.zeros(2 * (n * n + n + 2), dtype=torch.float64, device=group.device)
    gathered = group.gather(sums, len(shards), like)
    return total((_unpacked(values.cpu().numpy(), n) for values in gathered), n)


def _of_shard(potential: PaiNNPotential, data: TrainingData, shard: LongArray, layer: FloatArray) -> NormalEquations:
    equations = NormalEquations.zeros(len(layer))
    for chunk in chunks(data, shard):
        graph = data.gather(chunk)
        of_atoms, slopes = features_and_slopes(potential, graph.element, graph.r, graph.first, graph.second)
        energy = of_atoms.new_zeros(len(chunk), len(layer)).index_add(0, graph.conformer, of_atoms)
        labeled = graph.force_weight[:, 0] > 0.0
        equations += NormalEquations(
            {
                ENERGIES: _rows(energy, graph.energy[:-1], layer),
                FORCES: _rows(slopes[labeled].reshape(-1, len(layer)), graph.forces[labeled].reshape(-1), layer),
            }
        )
    return equations


def _rows(features: Tensor, labels: Tensor, layer: FloatArray) -> Moments:
    rows = features.cpu().numpy()
    return Moments.from_rows(rows, labels.cpu().numpy() - rows @ layer)


def _packed(equations: NormalEquations) -> Tensor:
    moments = (equations[ENERGIES], equations[FORCES])
    return torch.from_numpy(np.hstack([np.hstack([m.gram.ravel(), m.moment, m.square, m.n_rows]) for m in moments]))


def _unpacked(values: FloatArray, n: int) -> NormalEquations:
    parts = [
        Moments(part[: n * n].reshape(n, n).copy(), part[n * n : -2].copy(), float(part[-2]), float(part[-1]))
        for part in np.split(values, 2)
    ]
    return NormalEquations(dict(zip((ENERGIES, FORCES), parts, strict=True)))


def _mean_squares(equations: NormalEquations, x: FloatArray) -> tuple[float, float | None]:
    energy, forces = equations[ENERGIES], equations[FORCES]
    of_forces = forces.sum_of_squares(x) / forces.n_rows if forces.n_rows else None
    return energy.sum_of_squares(x) / energy.n_rows, of_forces
