"""The objective of the fit, put together from the statistics of molecules: weights, normalisation, energy zero.

    J(x) = Σ_molecules s [ a_E w_E Σ w (ΔE)² + a_F w_F Σ w |ΔF|² ]

| symbol | parameter |
| --- | --- |
| s | `source_weights` |
| w_E, w_F | `energy_weight`, `force_weight` |
| w | `conformer_weight` |
| a_E, a_F | `normalization`: sum 1, 1; component 1, 1/(3 n_atoms); molecule 1/W, 1/(3 n_atoms W), W = Σ w over the molecule in its split |

With `energy_zero: none` the constants d = m²/(2k) of harmonic terms stay in the energy. They are kept as further, constant features, and
d(x) is linearised where it is needed (`Problem.linearised`); forces and relative energies do not know of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.data.sources import covers
from pesfit.params.fit_smirnoff import Objective
from pesfit.smirnoff.exact.shard_file import Shard
from pesfit.smirnoff.parameters import Layout
from pesfit.statistics.normal_equations import NormalEquations


@dataclass(frozen=True)
class Problem:
    """The objective of each split, with weights of energies and forces still open.

    Attributes:
        equations: by split; over x, and with `energy_zero: none` over the constants d of the shifts behind it.
        layout: meaning of x.
    """

    equations: Mapping[str, NormalEquations]
    layout: Layout

    @property
    def is_linear(self) -> bool:
        """Whether the energy is linear in x."""
        return all(parts.n_parameters == len(self.layout) for parts in self.equations.values())

    def linearised(self, split: str, x: FloatArray) -> NormalEquations:
        """Return the normal equations of a split over x, exact where the energy is linear and of first order about x elsewhere."""
        if self.is_linear:
            return self.equations[split]
        value, jacobian = constants(self.layout, x)
        matrix = np.vstack([np.eye(len(x)), jacobian])
        return self.equations[split].transformed(matrix, np.concatenate([np.zeros(len(x)), value - jacobian @ x]))

    def sums_of_squares(self, split: str, x: FloatArray) -> tuple[float, float]:
        """Return the energy and force part of the objective of a split, without w_E and w_F."""
        full = x if self.is_linear else np.concatenate([x, constants(self.layout, x)[0]])
        parts = self.equations[split]
        return parts.energy.sum_of_squares(full), parts.forces.sum_of_squares(full)


def constants(layout: Layout, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Evaluate d = m²/(2k) of each shift.

    Returns:
        d [kcal/mol], shape (n_shifts,), and its derivatives by x, shape (n_shifts, n).
    """
    shifts = np.flatnonzero(layout.is_shift)
    partner = layout.partners()[shifts]
    k = layout.k[shifts] + np.where(partner >= 0, x[partner], 0.0)
    k = np.maximum(k, 1e-9 * np.maximum(layout.k[shifts], 1.0))
    m = x[shifts]
    jacobian = np.zeros((len(shifts), len(x)))
    number = np.arange(len(shifts))
    jacobian[number, shifts] = m / k
    with_partner = partner >= 0
    jacobian[number[with_partner], partner[with_partner]] = -0.5 * (m / k)[with_partner] ** 2
    return 0.5 * m**2 / k, jacobian


def assemble(shards: Iterable[Shard], layout: Layout, objective: Objective, splits: Iterable[str]) -> Problem:
    """Add up the normal equations of molecules, in order.

    Args:
        shards: in order.
        layout: meaning of x.
        objective: weights and normalisation.
        splits: names of those wanted.
    """
    with_constants = objective.energy_zero == "none" and bool(layout.is_shift.any())
    n = len(layout) + (int(layout.is_shift.sum()) if with_constants else 0)
    number = len(layout) + np.cumsum(layout.is_shift) - 1
    sums = {split: NormalEquations.zeros(n) for split in splits}
    for shard in shards:
        for entry in shard.entries:
            if entry.split not in sums or entry.weighted.n_conformers == 0:
                continue
            energy, forces = factors(entry.weighted.n_atoms, entry.weighted.weight, entry.source, objective)
            statistics = entry.weighted
            columns = statistics.columns
            parts = statistics.equations(objective.energy_zero)
            if with_constants:
                shifts = layout.is_shift[columns]
                parts = statistics.equations_with_constants(np.flatnonzero(shifts))
                columns = np.concatenate([columns, number[columns[shifts]]])
            total = sums[entry.split]
            sums[entry.split] = NormalEquations(
                total.energy.add_at(columns, parts.energy.scaled(energy)),
                total.forces.add_at(columns, parts.forces.scaled(forces)),
            )
    return Problem(sums, layout)


def factors(n_atoms: int, weight: float, source: str, objective: Objective) -> tuple[float, float]:
    """Return s a_E and s a_F of a molecule.

    Args:
        n_atoms: of the molecule.
        weight: W, above 0.
        source: of its rows.
        objective: weights and normalisation.
    """
    of_source = source_weight(source, objective.source_weights)
    if objective.normalization == "sum":
        return of_source, of_source
    per_component = of_source / (3.0 * n_atoms)
    if objective.normalization == "component":
        return of_source, per_component
    return of_source / weight, per_component / weight


def source_weight(source: str, weights: Mapping[str, float]) -> float:
    """Return the weight of a source: that of the longest name that covers it, 1 where there is none."""
    fitting = [name for name in weights if covers(name, source)]
    return weights[max(fitting, key=len)] if fitting else 1.0


def scores(
    shards: Iterable[Shard], layout: Layout, objective: Objective, weights: tuple[float, float], x: FloatArray
) -> tuple[FloatArray, int]:
    """Return Σ g gᵀ over the molecules of the training set, g = ½ ∂J_molecule/∂x: how much molecules disagree about x.

    Constants of `energy_zero: none` are left out, as if energies were relative to their mean.

    Args:
        shards: in order.
        layout: meaning of x.
        objective: its parameters.
        weights: w_E and w_F.
        x: where.

    Returns:
        The sum, shape (n, n), and the number of molecules.
    """
    total, n_molecules = np.zeros((len(layout), len(layout))), 0
    zero = "mean" if objective.energy_zero == "none" else objective.energy_zero
    for shard in shards:
        for entry in shard.entries:
            if entry.split != "train" or entry.weighted.n_conformers == 0:
                continue
            energy, forces = factors(entry.weighted.n_atoms, entry.weighted.weight, entry.source, objective)
            columns = entry.weighted.columns
            moments = entry.weighted.equations(zero).weighted(weights[0] * energy, weights[1] * forces)
            gradient = moments.gram @ x[columns] - moments.moment
            total[np.ix_(columns, columns)] += np.outer(gradient, gradient)
            n_molecules += 1
    return total, n_molecules
