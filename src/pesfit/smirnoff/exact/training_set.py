"""The training set as a sum over molecules, each with parameters of its own about those that are shared.

A SMIRNOFF type stands for many environments, so a molecule's best parameters are x + δ rather than x. With δ ~ N(0, diag(widths²) σ²/μ),
μ the `molecule_strength`, and δ integrated out (`Moments.with_random_effects`), a molecule informs x no better than molecules agree: one
molecule cannot drag along a parameter that others will use, however many rows it has. Without μ all rows are those of one molecule.

The same pieces tell how well x does on a molecule that it was not fitted to. With H = Σ A + λ diag(widths⁻²) and g = A x - b of a molecule,
its columns of the optimum without it are x + (1 - L A)⁻¹ L g, L the block of H⁻¹: exact but for bounds, whose multipliers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.params.fit_smirnoff import Objective
from pesfit.smirnoff.exact.accumulate import normalized
from pesfit.smirnoff.exact.landscapes import LandscapeRows
from pesfit.smirnoff.exact.molecule_statistics import ShardStatistics
from pesfit.statistics.normal_equations import Moments, NormalEquations


@dataclass(frozen=True, eq=False)
class MoleculeEquations:
    """Rows of one molecule.

    Attributes:
        group: names the molecule.
        columns: entries of x that it has, shape (n_local,).
        equations: over these.
    """

    group: str
    columns: LongArray
    equations: NormalEquations

    @classmethod
    def merged(cls, parts: Sequence[MoleculeEquations]) -> MoleculeEquations:
        """Merge rows of one molecule from several data sets."""
        columns = np.unique(np.concatenate([part.columns for part in parts]))
        sums: dict[str, Moments] = {}
        for part in parts:
            at = np.searchsorted(columns, part.columns)
            for kind, moments in part.equations.items():
                sums[kind] = sums.get(kind, Moments.zeros(len(columns))).add_at(at, moments)
        return cls(parts[0].group, columns, NormalEquations(sums))


@dataclass(frozen=True, eq=False)
class Pooling:
    """How rows of molecules become one objective.

    Attributes:
        weights: of each kind of rows.
        spread: standard deviations of molecules' own parameters at σ² = 1, shape (n,); None where they have none.
    """

    weights: Mapping[str, float]
    spread: FloatArray | None

    def own(self, molecule: MoleculeEquations) -> Moments:
        """Return what a molecule says of its columns of x."""
        moments = molecule.equations.weighted(self.weights)
        return moments if self.spread is None else moments.with_random_effects(self.spread[molecule.columns])


@dataclass(frozen=True)
class LeftOut:
    """Root mean square errors over molecules, by kind of rows, in the unit of the objective's rows.

    Attributes:
        before: of the starting force field.
        fitted: at the optimum.
        left_out: of each molecule, at the optimum of all others.
        objective: sum over molecules of the weighted squares, left out.
    """

    before: Mapping[str, float]
    fitted: Mapping[str, float]
    left_out: Mapping[str, float]
    objective: float


class TrainingSet:
    """Molecules of the training set.

    Args:
        shards: gives energies and forces, in the same order each time it is called.
        objective: its normalization.
        groups: by molecule's name in `shards`, what names it in `kept`; a molecule that is not listed has its own.
        n_parameters: length of x.
        kept: groups with minima or scans: their rows of all data sets are one molecule, and stay in memory.
    """

    def __init__(
        self,
        shards: Callable[[], Iterable[ShardStatistics]],
        objective: Objective,
        groups: Mapping[str, str],
        n_parameters: int,
        kept: Collection[str] = (),
    ) -> None:
        self._shards, self._objective, self._groups = shards, objective, groups
        self._n_parameters = n_parameters
        self._kept: dict[str, list[MoleculeEquations]] = {group: [] for group in kept}
        for part in self._energies_and_forces():
            if part.group in self._kept:
                self._kept[part.group].append(part)
        self._others: tuple[Pooling, Moments] | None = None

    def moments(self, pooling: Pooling, landscapes: LandscapeRows | None) -> Moments:
        """Sum up what molecules say of x.

        Args:
            pooling: weights and spread.
            landscapes: rows of minima and scans.
        """
        if self._others is None or self._others[0] is not pooling:
            total = Moments.zeros(self._n_parameters)
            for part in self._without_minima():
                total = total.add_at(part.columns, pooling.own(part))
            self._others = pooling, total
        total = Moments.zeros(self._n_parameters) + self._others[1]
        for molecule in self._with_minima(landscapes):
            total = total.add_at(molecule.columns, pooling.own(molecule))
        return total

    def disagreement(self, pooling: Pooling, landscapes: LandscapeRows | None, x: FloatArray) -> tuple[FloatArray, int]:
        """Return Σ g gᵀ over molecules, g half the gradient of a molecule's part of the objective, shape (n, n), and their number."""
        total, n_molecules = np.zeros((self._n_parameters, self._n_parameters)), 0
        for molecule in self._molecules(landscapes):
            own = pooling.own(molecule)
            gradient = own.gram @ x[molecule.columns] - own.moment
            total[np.ix_(molecule.columns, molecule.columns)] += np.outer(gradient, gradient)
            n_molecules += 1
        return total, n_molecules

    def left_out(self, pooling: Pooling, landscapes: LandscapeRows | None, inverse: FloatArray, x: FloatArray) -> LeftOut:
        """Return errors of each molecule at the optimum without it.

        Args:
            pooling: weights and spread.
            landscapes: rows of minima and scans.
            inverse: H⁻¹, shape (n, n).
            x: the optimum, shape (n,).
        """
        squares: dict[str, list[list[float]]] = {kind: [[], [], []] for kind in pooling.weights}
        objective = 0.0
        for molecule in self._molecules(landscapes):
            columns, own = molecule.columns, pooling.own(molecule)
            block = inverse[np.ix_(columns, columns)]
            pull = block @ (own.gram @ x[columns] - own.moment)
            without = x[columns] + np.linalg.solve(np.eye(len(columns)) - block @ own.gram, pull)
            for kind, moments in molecule.equations.items():
                if moments.n_rows:
                    for found, at in zip(squares[kind], (np.zeros(len(columns)), x[columns], without), strict=True):
                        found.append(moments.sum_of_squares(at))
                    objective += pooling.weights[kind] * squares[kind][2][-1]
        before, fitted, left_out = (
            {kind: float(np.sqrt(np.mean(each[i]))) for kind, each in squares.items() if each[i]} for i in range(3)
        )
        return LeftOut(before, fitted, left_out, objective)

    def _molecules(self, landscapes: LandscapeRows | None) -> Iterator[MoleculeEquations]:
        yield from self._without_minima()
        yield from self._with_minima(landscapes)

    def _without_minima(self) -> Iterator[MoleculeEquations]:
        return (part for part in self._energies_and_forces() if part.group not in self._kept)

    def _with_minima(self, landscapes: LandscapeRows | None) -> Iterator[MoleculeEquations]:
        if landscapes is None:
            return
        for group, columns, equations in landscapes.training():
            yield MoleculeEquations.merged([MoleculeEquations(group, columns, equations), *self._kept[group]])

    def _energies_and_forces(self) -> Iterator[MoleculeEquations]:
        # Constants of `energy_zero: none` are left out, as if energies were relative to their mean.
        zero = "mean" if self._objective.energy_zero == "none" else self._objective.energy_zero
        for shard in self._shards():
            for entry in shard.entries:
                if entry.split != "train" or entry.weighted is None:
                    continue
                parts = normalized(entry.weighted.equations(zero), entry.weighted, entry.source, self._objective)
                yield MoleculeEquations(self._groups.get(entry.molecule, entry.molecule), entry.weighted.columns, parts)
