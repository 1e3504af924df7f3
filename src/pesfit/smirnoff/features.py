"""Energies and forces of one molecule as linear functions of the trained parameters.

With the vector x of `parameters.Layout`, internal coordinates q with their Wilson rows ∂q/∂r, and c the starting minimum,

    term                           feature of k                          feature of m
    bonds, angles: energy          ½ (q - c)²                            -(q - c)
                   forces          -(q - c) ∂q/∂r                        ∂q/∂r
    torsions:      energy          (1 + cos(n φ - φ_0)) / idivf
                   forces          n sin(n φ - φ_0) / idivf  ∂φ/∂r

summed over the terms that share a parameter. The target is the residual of the starting force field, so that the sum of
squares at x = 0 carries no rounding, and untrained terms only enter the target.

Conformers run along the last axis, a few dozen at a time so that the arrays stay in the processor's cache; terms are summed into
parameters by one sparse product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from pesfit.core import units
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import ForceField, ParameterTable, Topology
from pesfit.potentials.internal_coordinates import CoincidentAtomsError, InternalCoordinates, angles, dihedrals, distances
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.parameters import MINIMUM, Layout

_Coordinate: TypeAlias = Callable[[Tensor, Tensor], InternalCoordinates]
_CHUNK_ELEMENTS = 200_000
"""Numbers in the feature array of a chunk of conformers: 1.6 MB, about the size of a core's own cache."""


@dataclass(frozen=True)
class FeatureRows:
    """Features and targets of some conformers of one molecule; the target is the last line of each array.

    Attributes:
        energy: [kcal/mol; by unit of x for features], shape (n_local + 1, n_conformers).
        forces: [kcal/mol/Å; by unit of x for features], shape (n_local + 1, n_atoms, 3, n_conformers).
    """

    energy: FloatArray
    forces: FloatArray


class MoleculeFeatures:
    """Features of one molecule, prepared once for all of its conformers.

    Args:
        topology: the molecule's terms.
        force_field: the starting force field.
        layout: of the trained parameters.

    Attributes:
        columns: the entries of x that this molecule has, ascending, shape (n_local,).
        uses: how many terms share each of them, shape (n_local,).
        n_atoms: number of atoms.

    Raises:
        MoleculeError: where the topology's arrays do not fit together.
    """

    def __init__(self, topology: Topology, force_field: ForceField, layout: Layout) -> None:
        terms = Terms.from_topology(topology)
        kinds: list[_Harmonic | _Periodic] = [
            _Harmonic(force_field.tables["Bonds"], layout, distances, terms.bonds, terms.bond_parameters),
            _Harmonic(force_field.tables["Angles"], layout, angles, terms.angles, terms.angle_parameters),
            _Periodic(force_field.tables["ProperTorsions"], layout, terms.propers, terms.proper_parameters),
            _Periodic(force_field.tables["ImproperTorsions"], layout, terms.impropers, terms.improper_parameters),
        ]
        self._kinds = [kind for kind in kinds if len(kind.lines.atoms)]
        self._nonbonded = _Nonbonded(terms, force_field)
        self.n_atoms = terms.n_atoms
        entries = np.concatenate([kind.lines.entry for kind in self._kinds] or [np.zeros(0, dtype=np.int64)])
        self.columns, self.uses = np.unique(entries[entries >= 0], return_counts=True)
        n_rows = len(self.columns) + 1
        energy, forces = [], []
        for kind in self._kinds:
            matrix = kind.lines.sums(self.columns)
            energy.append(matrix)
            forces.append(_spread(matrix, kind.lines.atoms, self.n_atoms))
        self._energy_sum = scipy.sparse.hstack([scipy.sparse.csr_array((n_rows, 0)), *energy], format="csr")
        self._force_sum = scipy.sparse.hstack([scipy.sparse.csr_array((n_rows * self.n_atoms, 0)), *forces], format="csr")

    def rows(self, coords: FloatArray, energy: FloatArray, forces: FloatArray | None) -> Iterator[FeatureRows]:
        """Evaluate conformers, some at a time, in order.

        Args:
            coords: [Å], shape (n_conformers, n_atoms, 3).
            energy: labels, [kcal/mol], shape (n_conformers,).
            forces: labels, [kcal/mol/Å], shape (n_conformers, n_atoms, 3); where None, those of the features are left out.

        Raises:
            CoincidentAtomsError: where two atoms that interact are at the same place; names the conformer.
        """
        size = max(1, _CHUNK_ELEMENTS // ((len(self.columns) + 1) * 3 * self.n_atoms))
        for start in range(0, len(coords), size):
            chunk = slice(start, start + size)
            try:
                yield self._chunk(coords[chunk], energy[chunk], None if forces is None else forces[chunk])
            except CoincidentAtomsError as error:
                raise CoincidentAtomsError(error.atoms, start + (error.conformer or 0)) from error

    def _chunk(self, coords: FloatArray, energy: FloatArray, forces: FloatArray | None) -> FeatureRows:
        n, positions = len(coords), torch.tensor(coords, dtype=torch.float64)
        energies = torch.empty((self._energy_sum.shape[1], n), dtype=torch.float64)
        pulls = torch.empty((self._force_sum.shape[1], 3, n), dtype=torch.float64)
        at_energy = at_pull = 0
        for kind in self._kinds:
            n_lines, n_body = kind.lines.atoms.shape
            pull = pulls[at_pull : at_pull + n_lines * n_body].view(n_lines, n_body, 3, n)
            kind.fill(positions, energies[at_energy : at_energy + n_lines], pull)
            at_energy, at_pull = at_energy + n_lines, at_pull + n_lines * n_body
        fixed_energy, fixed_forces = self._nonbonded(positions)
        energy_rows = self._energy_sum @ energies.numpy()
        energy_rows[-1] += energy - fixed_energy
        if forces is None:
            return FeatureRows(energy_rows, np.zeros((len(energy_rows), 0, 3, n)))
        force_rows = (self._force_sum @ pulls.view(-1, 3 * n).numpy()).reshape(-1, self.n_atoms, 3, n)
        force_rows[-1] += forces.transpose(1, 2, 0) - fixed_forces
        return FeatureRows(energy_rows, force_rows)


@dataclass(frozen=True)
class _Lines:
    """Features of single terms, before they are summed.

    Attributes:
        atoms: shape (n_lines, n_body).
        entry: entry of x that each belongs to, -1 where it is not trained, shape (n_lines,).
        start: its factor in the starting force field: k, or 0 for m; shape (n_lines,).
    """

    atoms: LongArray
    entry: LongArray
    start: FloatArray

    def sums(self, columns: LongArray) -> scipy.sparse.coo_array:
        """Return the matrix that sums lines into trained parameters, and minus the starting energy into the target.

        Args:
            columns: the molecule's entries of x, ascending, shape (n_local,).
        """
        trained, started = np.flatnonzero(self.entry >= 0), np.flatnonzero(self.start != 0.0)
        row = np.concatenate([np.searchsorted(columns, self.entry[trained]), np.full(len(started), len(columns))])
        value = np.concatenate([np.ones(len(trained)), -self.start[started]])
        place = (row, np.concatenate([trained, started]))
        return scipy.sparse.coo_array((value, place), shape=(len(columns) + 1, len(self.entry)))


def _spread(matrix: scipy.sparse.coo_array, atoms: LongArray, n_atoms: int) -> scipy.sparse.coo_array:
    """Turn a matrix that sums lines into one that sums the pulls of lines on their atoms."""
    row, line = matrix.coords
    n_body = atoms.shape[1]
    rows = row[:, None] * n_atoms + atoms[line]
    lines = line[:, None] * n_body + np.arange(n_body)
    shape = (matrix.shape[0] * n_atoms, atoms.size)
    return scipy.sparse.coo_array((np.repeat(matrix.data, n_body), (rows.ravel(), lines.ravel())), shape=shape)


class _Harmonic:
    """Lines of ½ k (q - q₀)²: those of k for all terms, then those of m where it is trained."""

    def __init__(
        self, table: ParameterTable, layout: Layout, coordinate: _Coordinate, atoms: Tensor, parameters: Tensor
    ) -> None:
        row = parameters.numpy()
        of_k, of_m = (layout.index(table, shift=shift)[row] for shift in (False, True))
        self._coordinate, self._atoms = coordinate, atoms
        self._center = torch.from_numpy(table.values[row, table.columns.index(MINIMUM[table.handler])])[:, None]
        self._shifted = torch.from_numpy(np.flatnonzero(of_m >= 0))
        self.lines = _Lines(
            np.concatenate([atoms.numpy(), atoms.numpy()[of_m >= 0]]),
            np.concatenate([of_k, of_m[of_m >= 0]]),
            np.concatenate([table.values[row, 0], np.zeros(len(self._shifted))]),
        )

    def fill(self, coords: Tensor, energy: Tensor, pull: Tensor) -> None:
        """Write features of energies, shape (n_lines, n_conformers), and forces, (n_lines, n_body, 3, n_conformers)."""
        values, rows = self._coordinate(coords, self._atoms)
        stretch, wilson = values.T - self._center, rows.permute(1, 2, 3, 0)
        n = len(stretch)
        torch.mul(stretch, 0.5 * stretch, out=energy[:n])
        torch.neg(stretch[self._shifted], out=energy[n:])
        torch.mul(wilson, -stretch[:, None, None, :], out=pull[:n])
        pull[n:] = wilson[self._shifted]


class _Periodic:
    """Lines of k/idivf (1 + cos(n φ - φ_0)); dihedrals that several periodicities share are evaluated once."""

    def __init__(self, table: ParameterTable, layout: Layout, atoms: Tensor, parameters: Tensor) -> None:
        row = parameters.numpy()
        unique, which = np.unique(atoms.numpy(), axis=0, return_inverse=True)
        self._atoms, self._which = torch.from_numpy(unique), torch.from_numpy(which.reshape(-1))
        _, *others = (torch.from_numpy(column)[:, None] for column in table.values[row].T)
        self._periodicity, self._phase, idivf = others
        self._share = 1.0 / idivf
        self.lines = _Lines(atoms.numpy(), layout.index(table, shift=False)[row], table.values[row, 0])

    def fill(self, coords: Tensor, energy: Tensor, pull: Tensor) -> None:
        """Write features of energies, shape (n_lines, n_conformers), and forces, (n_lines, 4, 3, n_conformers)."""
        values, rows = dihedrals(coords, self._atoms)
        argument = self._periodicity * values.T[self._which] - self._phase
        torch.mul(self._share, 1.0 + torch.cos(argument), out=energy)
        slope = (self._share * self._periodicity) * torch.sin(argument)
        torch.mul(rows.permute(1, 2, 3, 0).contiguous()[self._which], slope[:, None, None, :], out=pull)


class _Nonbonded:
    """A/r¹² - B/r⁶ + Q/r over pairs, with coefficients made once (`smirnoff.potential`)."""

    def __init__(self, terms: Terms, force_field: ForceField) -> None:
        first, second = terms.pairs.T
        epsilon, sigma = torch.from_numpy(force_field.tables["vdW"].values)[terms.vdw_parameters].T
        scale = torch.where(terms.pairs_14, torch.tensor(force_field.vdw_scale_14, dtype=torch.float64), 1.0)
        sigma6 = (0.5 * (sigma[first] + sigma[second])) ** 6
        self._pairs = terms.pairs
        self._b = 4.0 * scale * torch.sqrt(epsilon[first] * epsilon[second]) * sigma6
        self._a = self._b * sigma6
        scale = torch.where(terms.pairs_14, torch.tensor(force_field.electrostatics_scale_14, dtype=torch.float64), 1.0)
        self._q = units.COULOMB * scale * terms.charges[first] * terms.charges[second]
        line = torch.arange(len(first))
        self._incidence = torch.zeros((terms.n_atoms, len(first)), dtype=torch.float64)
        self._incidence[first, line], self._incidence[second, line] = 1.0, -1.0

    def __call__(self, coords: Tensor) -> tuple[FloatArray, FloatArray]:
        """Return energies, shape (n_conformers,), and forces, shape (n_atoms, 3, n_conformers)."""
        r, rows = distances(coords, self._pairs)
        inverse = 1.0 / r
        inverse6 = (inverse * inverse) ** 3
        repulsion, attraction, coulomb = self._a * inverse6 * inverse6, self._b * inverse6, self._q * inverse
        energy = (repulsion - attraction + coulomb).sum(-1)
        slope = (6.0 * attraction - 12.0 * repulsion - coulomb) * inverse
        pull = (slope[..., None] * rows[..., 1, :]).permute(1, 2, 0).reshape(len(self._pairs), 3 * len(coords))
        return energy.numpy(), (self._incidence @ pull).view(-1, 3, len(coords)).numpy()
