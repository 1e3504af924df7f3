"""Sufficient statistics of each molecule: small, additive, and enough for any energy zero, weight and error.

Features and target are one vector v = (φ, y) of the molecule's own parameters. Energies are kept as mean and moments about the mean,

    n, v̄ = Σ w v / Σ w, M = Σ w (v - v̄)(v - v̄)ᵀ

which add without loss (Chan, Golub, LeVeque, Am. Stat. 37, 242, 1983), and so give the normal equations for every energy zero:

| zero | energies are relative to | moments |
| --- | --- | --- |
| mean | their weighted mean | M |
| min | the conformer v₀ whose label is lowest | M + W (v̄ - v₀)(v̄ - v₀)ᵀ, W = Σ w |
| none | nothing | M + W v̄ v̄ᵀ |

With `mean` and `min` the constants m²/(2k) of harmonic terms (see `parameters`) drop out. With `none` they do not, and
`equations_with_constants` keeps them apart.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.core.exceptions import DataError, Failure
from pesfit.core.files import atomic_write
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.statistics.normal_equations import ENERGIES, FORCES, Moments, NormalEquations

EnergyZero = Literal["mean", "min", "none"]
FORMAT_VERSION = 2
_MATRICES = ("energy", "forces")


@dataclass(frozen=True)
class MoleculeStatistics:
    """Statistics of some conformers of one molecule.

    Attributes:
        columns: entries of x the molecule has, ascending, shape (n_local,).
        uses: how many terms share each of them, shape (n_local,).
        n_atoms: number of atoms.
        n_conformers: number of conformers.
        weight: Σ w.
        log_weight: Σ log w.
        mean: v̄ of energies, shape (n_local + 1,).
        energy: M, shape (n_local + 1, n_local + 1).
        lowest: v₀, shape (n_local + 1,).
        lowest_label: [kcal/mol] the label of that conformer.
        n_force_conformers: number of conformers with forces.
        forces: Σ w v vᵀ over force components, shape (n_local + 1, n_local + 1).
    """

    columns: LongArray
    uses: LongArray
    n_atoms: int
    n_conformers: int
    weight: float
    log_weight: float
    mean: FloatArray
    energy: FloatArray
    lowest: FloatArray
    lowest_label: float
    n_force_conformers: int
    forces: FloatArray

    @classmethod
    def of(
        cls,
        features: MoleculeFeatures,
        coords: FloatArray,
        energy: FloatArray,
        forces: FloatArray | None,
        weights: FloatArray | None = None,
    ) -> MoleculeStatistics:
        """Make the statistics of conformers.

        Args:
            features: of the molecule.
            coords: [Å], shape (n_conformers, n_atoms, 3).
            energy: labels, [kcal/mol], shape (n_conformers,).
            forces: labels, [kcal/mol/Å], shape (n_conformers, n_atoms, 3), or None.
            weights: w, above 0, shape (n_conformers,); 1 where None.
        """
        n_vector = len(features.columns) + 1
        gram, energies = np.zeros((n_vector, n_vector)), []
        done = 0
        for rows in features.rows(coords, energy, forces):
            energies.append(rows.energy)
            n = rows.energy.shape[1]
            lines = rows.forces
            if weights is not None:
                lines = lines * np.sqrt(weights[done : done + n])
            flat = lines.reshape(n_vector, -1)
            gram += flat @ flat.T
            done += n
        vectors = np.concatenate(energies, axis=1)
        w = np.ones(len(energy)) if weights is None else weights
        total = float(w.sum())
        mean = vectors @ w / total
        centered = (vectors - mean[:, None]) * np.sqrt(w)
        lowest = int(np.argmin(energy))
        return cls(
            columns=features.columns,
            uses=features.uses,
            n_atoms=features.n_atoms,
            n_conformers=len(energy),
            weight=total,
            log_weight=float(np.log(w).sum()),
            mean=mean,
            energy=centered @ centered.T,
            lowest=vectors[:, lowest].copy(),
            lowest_label=float(energy[lowest]),
            n_force_conformers=0 if forces is None else len(energy),
            forces=gram,
        )

    def __add__(self, other: MoleculeStatistics) -> MoleculeStatistics:
        """Add statistics of other conformers of the same molecule."""
        if not np.array_equal(self.columns, other.columns) or self.n_atoms != other.n_atoms:
            raise DataError("statistics of different molecules cannot be added")
        total = self.weight + other.weight
        step = other.mean - self.mean
        first = self.lowest_label <= other.lowest_label
        return replace(
            self,
            n_conformers=self.n_conformers + other.n_conformers,
            weight=total,
            log_weight=self.log_weight + other.log_weight,
            mean=self.mean + (other.weight / total) * step,
            energy=self.energy + other.energy + (self.weight * other.weight / total) * np.outer(step, step),
            lowest=self.lowest if first else other.lowest,
            lowest_label=min(self.lowest_label, other.lowest_label),
            n_force_conformers=self.n_force_conformers + other.n_force_conformers,
            forces=self.forces + other.forces,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle one half of each matrix: they are symmetric, and there may be many."""
        upper = np.triu_indices(len(self.mean))
        return self.__dict__ | {name: getattr(self, name)[upper] for name in _MATRICES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Fill the other half."""
        n = len(state["mean"])
        for name in _MATRICES:
            matrix = np.zeros((n, n))
            matrix[np.triu_indices(n)] = state[name]
            state[name] = matrix + np.triu(matrix, 1).T
        self.__dict__.update(state)

    @property
    def n_force_components(self) -> int:
        """Number of force labels."""
        return 3 * self.n_atoms * self.n_force_conformers

    def equations(self, zero: EnergyZero) -> NormalEquations:
        """Return the normal equations over the molecule's own parameters.

        Rows that count: n - 1 energies (n without energy zero), and as many force components as a molecule has internal
        degrees of freedom, 3 n_atoms - 6, since net force and net torque are zero in labels and features.
        """
        moments = self.energy
        if zero != "mean":
            away = self.mean - (self.lowest if zero == "min" else 0.0)
            moments = moments + self.weight * np.outer(away, away)
        n_energies = max(self.n_conformers - (zero != "none"), 0)
        internal = max(3 * self.n_atoms - 6, 1) if self.n_atoms > 1 else 0
        each = self.log_weight / max(self.n_conformers, 1)
        n_forces = self.n_force_conformers * internal
        return NormalEquations(
            {
                ENERGIES: _moments(moments, n_energies, n_energies * each),
                FORCES: _moments(self.forces, n_forces, n_forces * each),
            }
        )

    def equations_with_constants(self, shifts: LongArray) -> NormalEquations:
        """Return the normal equations without energy zero, with the constants of harmonic terms as further parameters.

        Args:
            shifts: positions among the molecule's parameters of those that are m of a harmonic, shape (n_shifts,).

        Returns:
            Equations over the molecule's own parameters and then its constants d, one for each of `shifts`.
        """
        n, n_shifts = len(self.columns), len(shifts)
        place = np.append(np.arange(n), n + n_shifts)
        mean = np.insert(self.mean, n, self.uses[shifts].astype(np.float64))
        energy, forces = np.zeros((2, n + n_shifts + 1, n + n_shifts + 1))
        energy[np.ix_(place, place)] = self.energy
        forces[np.ix_(place, place)] = self.forces
        plain = self.equations("none")
        absolute = energy + self.weight * np.outer(mean, mean)
        return NormalEquations(
            {
                kind: _moments(augmented, plain[kind].n_rows, plain[kind].log_weight)
                for kind, augmented in ((ENERGIES, absolute), (FORCES, forces))
            }
        )

    def error_sums(self, x: FloatArray) -> tuple[float, float, float]:
        """Return the weighted mean of ΔE but for the constants of harmonic terms, Σ w (ΔE - mean)², and Σ w |ΔF|².

        Args:
            x: all entries, shape (n,).
        """
        v = np.append(x[self.columns], -1.0)
        return float(v @ self.mean), max(0.0, float(v @ self.energy @ v)), max(0.0, float(v @ self.forces @ v))


def _moments(augmented: FloatArray, n_rows: float, log_weight: float) -> Moments:
    return Moments(augmented[:-1, :-1], augmented[:-1, -1], float(augmented[-1, -1]), n_rows, log_weight)


def merged(parts: Iterable[MoleculeStatistics]) -> MoleculeStatistics:
    """Add, in order, statistics of at least one part of a molecule."""
    first, *others = parts
    for other in others:
        first = first + other
    return first


@dataclass(frozen=True)
class MoleculeInSplit:
    """One molecule's conformers in one split.

    Attributes:
        molecule: its name.
        source: of its rows.
        split: train, validation or test.
        plain: statistics in which all conformers count alike; errors are reported from them.
        weighted: statistics with the objective's conformer weights; None where all of these are 0.
    """

    molecule: str
    source: str
    split: str
    plain: MoleculeStatistics
    weighted: MoleculeStatistics | None


@dataclass(frozen=True)
class ShardStatistics:
    """Statistics of a shard's molecules, and those that failed."""

    entries: tuple[MoleculeInSplit, ...]
    failures: tuple[Failure, ...]


def save_shard(path: Path, shard: ShardStatistics) -> None:
    """Write a shard whole or not at all, for this run or one that resumes it: the pickle is read by `load_shard` alone."""
    with atomic_write(path, sync=True) as new:
        new.write_bytes(pickle.dumps(shard))


def load_shard(path: Path) -> ShardStatistics:
    """Read the file of `save_shard`."""
    shard: ShardStatistics = pickle.loads(path.read_bytes())  # noqa: S301 - from `save_shard`, in the scratch folder
    return shard
