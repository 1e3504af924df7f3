r"""The posterior of a trained network's last layer, by the linear-Gaussian engine that the SMIRNOFF fit uses.

Rows are energies and components of forces of the training set, targets what the network leaves of them, and x the change of the last
layer (`potentials.last_layer`). Energies are not centered, because the network predicts them whole. Beforehand, the last layer's numbers
are taken to be N(0, σ²/λ), all alike: so x has the prior mean -(w, b), and x = 0, where training ended, is near the optimum.

To center the prior at the trained numbers instead would use the data twice. What they leave then hardly asks for a change, the
evidence makes the prior ever narrower, and no deviation is left (on rMD17 ethanol one effective parameter of 33, instead of 33).

λ and the balance of energies and forces maximize the evidence. Noise is what the network leaves of its own training set: less than it
leaves of other data, the more so the longer it was trained. Deviations inherit that; a factor found on the validation set mends it.
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
from pesfit.statistics.linear_gaussian import GaussianPrior, Posterior, Spectrum, infer, maximise_balance
from pesfit.statistics.normal_equations import Moments, NormalEquations, total
from pesfit.statistics.quadratic import Constraints

N_SHARDS = 64
"""Pieces of the training set, whose sums are added in order: so many processes share the work at most."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """What was found.

    Attributes:
        posterior: of the change of the last layer.
        effective_parameters: γ.
        n_conformers: of the training set that were used.
        validation: of the validation set: root mean square of the rest of energies [kcal/mol] and of forces [kcal/mol/Å, None without
            labels] with the last layer as it is, and at the posterior mean.
        loss_change: of the validation loss, if it were the mean of squares, from the last layer as it is to the posterior mean;
            -0.01 is a loss smaller by 1 %.
    """

    posterior: LastLayerPosterior
    effective_parameters: float
    n_conformers: int
    validation: tuple[tuple[float, float | None], tuple[float, float | None]]
    loss_change: float

    def metrics(self) -> dict[str, Any]:
        """Return what goes into the stage's metrics."""
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
            summary[f"validation_total_energy_rmse_kcal_per_mol_{where}"] = energy
            summary[f"validation_force_rmse_kcal_per_mol_per_angstrom_{where}"] = force
        return summary


def fit_last_layer(
    potential: PaiNNPotential, data: Mapping[str, TrainingData], objective: LearnedObjective, most: int, group: ProcessGroup
) -> LastLayer:
    """Find the posterior of the last layer; the potential stays as it is.

    Args:
        potential: conservative, with the weights it keeps.
        data: with `train` and `validation`.
        objective: whose weights the change of the loss is of.
        most: number of conformers of each set to look at, at least 1; of larger sets evenly spaced ones are taken.
        group: of processes, each of which gets the result.
    """
    train = sum_up(potential, data["train"], most, "last layer", group)
    validation = sum_up(potential, data["validation"], most, "last layer, validation", group)
    posterior, weight = infer_last_layer(train, last_layer(potential))
    has_forces = train.forces.n_rows > 0.0
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
        n_conformers=int(train.energy.n_rows),
        validation=(_roots(before), _roots(after)),
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
    weight = maximise_balance(equations, prior) if equations.forces.n_rows else 1.0
    moments = equations.weighted(weight, 1.0)
    strength = Spectrum.of(moments, prior).maximise_evidence()
    return infer(moments, prior, strength, Constraints.none(len(layer))), weight


def sum_up(potential: PaiNNPotential, data: TrainingData, most: int, label: str, group: ProcessGroup) -> NormalEquations:
    """Accumulate the normal equations of the last layer.

    Args:
        potential: whose last layer it is.
        data: the conformers.
        most: number of them to look at; of more, so many, evenly spaced.
        label: what the progress bar says.
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
            _rows(energy, graph.energy[:-1], layer),
            _rows(slopes[labeled].reshape(-1, len(layer)), graph.forces[labeled].reshape(-1), layer),
        )
    return equations


def _rows(features: Tensor, labels: Tensor, layer: FloatArray) -> Moments:
    rows = features.cpu().numpy()
    return Moments.from_rows(rows, labels.cpu().numpy() - rows @ layer)


def _packed(equations: NormalEquations) -> Tensor:
    parts = [
        np.concatenate([moments.gram.ravel(), moments.moment, [moments.square, moments.n_rows]])
        for moments in (equations.energy, equations.forces)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _unpacked(values: FloatArray, n: int) -> NormalEquations:
    parts = [
        Moments(part[: n * n].reshape(n, n).copy(), part[n * n : -2].copy(), float(part[-2]), float(part[-1]))
        for part in np.split(values, 2)
    ]
    return NormalEquations(*parts)


def _mean_squares(equations: NormalEquations, x: FloatArray) -> tuple[float, float | None]:
    energy, forces = equations.energy, equations.forces
    of_forces = forces.sum_of_squares(x) / forces.n_rows if forces.n_rows else None
    return energy.sum_of_squares(x) / energy.n_rows, of_forces


def _roots(squares: tuple[float, float | None]) -> tuple[float, float | None]:
    energy, forces = squares
    return math.sqrt(energy), None if forces is None else math.sqrt(forces)
