"""Van der Waals and Coulomb energies as linear functions of pair coefficients.

At fixed geometry the energy of pairs is linear in what stands before the powers of the distance:

    E = Σ_pairs s_v (A_tu r⁻¹² - B_tu r⁻⁶) + Σ_pairs s_q C q_i q_j r⁻¹          A_tu = 4 ε_tu σ_tu¹², B_tu = 4 ε_tu σ_tu⁶

A and B belong to a pair of types t ≤ u (rows of the table of van der Waals parameters); pairs of atoms with the same types share them.
Charges are trained as changes d of classes of equivalent atoms, q_i = q_i⁰ + d_p, p the class of i:

    q_i q_j - q_i⁰ q_j⁰ = q_j⁰ d_p + q_i⁰ d_p' + d_p d_p'

so that d and the products d_p d_p' are the coefficients. All coefficients are changes from the starting force field: at 0 it is
reproduced, and the target of the fit carries no rounding. Those of A and B are relative, A/A⁰ - 1.

    symbol        s_v, s_q                              t, u                q⁰                    d
    variable      vdw_scale_14, electrostatics_scale_14 vdw_parameters      charges               `coefficients.Charges`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from pesfit.core import units
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import ForceField, Topology
from pesfit.potentials.internal_coordinates import distances
from pesfit.potentials.terms import Terms


@dataclass(frozen=True)
class Slots:
    """Features of some conformers of a molecule, without the zeros.

    Attributes:
        columns: coefficients, ascending, shape (n_columns,).
        energy: [kcal/mol], shape (n_columns, n_conformers).
        column: of each slot, position in `columns`, shape (n_slots,).
        atom: of each slot, shape (n_slots,); every other force is zero.
        forces: [kcal/mol/Å], shape (n_slots, 3, n_conformers).
    """

    columns: LongArray
    energy: FloatArray
    column: LongArray
    atom: LongArray
    forces: FloatArray


class PairIndex:
    """Numbers of the coefficients of pairs of types.

    Args:
        trained: whether ε or σ of a type is trained, shape (n_types,).

    Attributes:
        first, second: types of each pair of which at least one is trained, shape (n_pairs,).
    """

    def __init__(self, trained: FloatArray | LongArray) -> None:
        mask = np.asarray(trained, dtype=bool)
        first, second = np.triu_indices(len(mask))
        kept = mask[first] | mask[second]
        self.first, self.second = first[kept], second[kept]
        self._number = np.full((len(mask), len(mask)), -1, dtype=np.int64)
        self._number[self.first, self.second] = np.arange(len(self.first))

    def __len__(self) -> int:
        return len(self.first)

    def numbers(self, first: LongArray, second: LongArray) -> LongArray:
        """Return the number of each pair of types, in either order; -1 where neither is trained."""
        return np.asarray(self._number[np.minimum(first, second), np.maximum(first, second)])


def equivalence_classes(topology: Topology) -> LongArray:
    """Sort the atoms of a molecule into classes that its graph cannot tell apart.

    Colour refinement (Weisfeiler, Leman, Nauchno-Tech. Inf. 2(9), 12, 1968) from the atoms' van der Waals types.

    Returns:
        Class of each atom, numbered by first appearance, shape (n_atoms,).
    """
    neighbors: list[list[int]] = [[] for _ in range(topology.n_atoms)]
    for i, j in topology.connectivity.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    colours = _numbered([(int(row),) for row in topology.vdw_parameters])
    for _ in range(topology.n_atoms):
        refined = _numbered(
            [(colour, *sorted(colours[n] for n in near)) for colour, near in zip(colours, neighbors, strict=True)]
        )
        if max(refined) == max(colours):
            break
        colours = refined
    return np.array(colours, dtype=np.int64)


def _numbered(keys: list[tuple[int, ...]]) -> list[int]:
    seen: dict[tuple[int, ...], int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


@dataclass(frozen=True)
class Numbering:
    """Where the coefficients of a molecule are.

    Attributes:
        pairs: of types; None where van der Waals parameters are not trained.
        repulsion: number of the first A; those of B follow all of A.
        classes: of atoms, shape (n_atoms,); None where charges are not trained.
        charges: number of the molecule's first d; its products follow all of its d, p ≤ p' in lexical order.
    """

    pairs: PairIndex | None
    repulsion: int
    classes: LongArray | None
    charges: int


class NonbondedFeatures:
    """What depends on the molecule alone, prepared once for all of its conformers.

    Args:
        terms: of the molecule.
        force_field: the starting force field.
        numbering: of the coefficients.
    """

    def __init__(self, terms: Terms, force_field: ForceField, numbering: Numbering) -> None:
        self._pairs = terms.pairs
        first, second = terms.pairs.numpy().T
        is_14 = terms.pairs_14.numpy()
        lines = [*_vdw_lines(terms, force_field, numbering), *_charge_lines(terms, numbering)]
        self._powers = np.array([power for power, _, _, _ in lines], dtype=np.int64)
        used = [pair for _, pair, _, _ in lines]
        scale = {12: force_field.vdw_scale_14, 6: force_field.vdw_scale_14, 1: force_field.electrostatics_scale_14}
        factors = [factor * np.where(is_14[pair], scale[power], 1.0) for power, pair, _, factor in lines]
        numbers = np.concatenate([number for _, _, number, _ in lines] or [np.zeros(0, dtype=np.int64)])
        self.columns, line_column = np.unique(numbers, return_inverse=True)
        self._line_pair = np.concatenate(used or [np.zeros(0, dtype=np.int64)])
        self._line_power = np.repeat(self._powers, [len(pair) for pair in used])
        line_factor = np.concatenate(factors or [np.zeros(0)])
        n_lines = len(self._line_pair)
        each = np.arange(n_lines)
        self._energy_sum = scipy.sparse.csr_array((line_factor, (line_column, each)), shape=(len(self.columns), n_lines))
        ends = np.concatenate([first[self._line_pair], second[self._line_pair]])
        key = np.tile(line_column, 2) * terms.n_atoms + ends
        slots, slot = np.unique(key, return_inverse=True)
        self.column, self.atom = slots // terms.n_atoms, slots % terms.n_atoms
        # The pull on the second atom is -f'(r) ∂r/∂r_second, on the first the opposite.
        self._force_sum = scipy.sparse.csr_array(
            (np.concatenate([line_factor, -line_factor]), (slot, np.tile(each, 2))), shape=(len(slots), n_lines)
        )

    def slots(self, coords: FloatArray) -> Slots:
        """Evaluate conformers.

        Args:
            coords: [Å], shape (n_conformers, n_atoms, 3).
        """
        values, rows = distances(torch.tensor(coords, dtype=torch.float64), self._pairs)
        r, along = values.numpy().T, rows[..., 1, :].permute(1, 2, 0).numpy()
        inverse = 1.0 / r[self._line_pair]
        energies = inverse ** self._line_power[:, None]
        slopes = -self._line_power[:, None] * energies * inverse
        pulls = slopes[:, None, :] * along[self._line_pair]
        n = len(coords)
        forces = (self._force_sum @ pulls.reshape(len(pulls), 3 * n)).reshape(-1, 3, n)
        return Slots(self.columns, self._energy_sum @ energies, self.column, self.atom, forces)


_Lines = tuple[int, LongArray, LongArray, FloatArray]
"""Power of 1/r, which pairs of atoms, the number of their coefficient, and the factor before it."""


def _vdw_lines(terms: Terms, force_field: ForceField, numbering: Numbering) -> list[_Lines]:
    if numbering.pairs is None:
        return []
    first, second = terms.vdw_parameters.numpy()[terms.pairs.numpy()].T
    number = numbering.pairs.numbers(first, second)
    used = np.flatnonzero(number >= 0)
    epsilon, sigma = force_field.tables["vdW"].values.T
    first, second, number = first[used], second[used], number[used]
    sigma6 = (0.5 * (sigma[first] + sigma[second])) ** 6
    b = 4.0 * np.sqrt(epsilon[first] * epsilon[second]) * sigma6
    repulsion = numbering.repulsion + number
    return [(12, used, repulsion, b * sigma6), (6, used, repulsion + len(numbering.pairs), -b)]


def _charge_lines(terms: Terms, numbering: Numbering) -> list[_Lines]:
    if numbering.classes is None:
        return []
    pairs = terms.pairs.numpy()
    everything = np.arange(len(pairs))
    classes, charges = numbering.classes[pairs], terms.charges.numpy()[pairs]
    n_classes = int(numbering.classes.max()) + 1
    low, high = classes.min(axis=1), classes.max(axis=1)
    product = low * n_classes - low * (low - 1) // 2 + high - low
    return [
        (1, everything, numbering.charges + classes[:, 0], units.COULOMB * charges[:, 1]),
        (1, everything, numbering.charges + classes[:, 1], units.COULOMB * charges[:, 0]),
        (1, everything, numbering.charges + n_classes + product, np.full(len(pairs), units.COULOMB)),
    ]
