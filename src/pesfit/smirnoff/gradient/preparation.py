"""Features of molecules at their fixed geometries, computed once: valence terms (`smirnoff.features`) and pairs of atoms.

At fixed geometry the energy of pairs is linear in the factors of the powers of the distance:

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from pesfit.core import units
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.dataset import Record
from pesfit.data.splits import SPLITS, SplitArray
from pesfit.data.topology import ForceField, Topology
from pesfit.params.fit_smirnoff import Objective
from pesfit.potentials.internal_coordinates import distances
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.features import FeatureRows, MoleculeFeatures
from pesfit.smirnoff.fit_data import MoleculeRows, check_rows, conformer_weights, factors
from pesfit.smirnoff.gradient.coefficients import Coefficients, Numbering
from pesfit.smirnoff.gradient.objective import MoleculeResiduals
from pesfit.smirnoff.parameters import Layout


@dataclass(frozen=True)
class PreparationSettings:
    """Settings of all molecules.

    Attributes:
        force_field: the starting force field.
        layout: of the valence parameters.
        coefficients: all that is trained.
        objective: weights and normalization.
        weights: w_E and w_F of the objective, as numbers.
    """

    force_field: ForceField
    layout: Layout
    coefficients: Coefficients
    objective: Objective
    weights: tuple[float, float]


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


class NonbondedFeatures:
    """Nonbonded features of one molecule; all that depends on the molecule alone is prepared once.

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


_PairLines = tuple[int, LongArray, LongArray, FloatArray]
"""Power of 1/r, pairs of atoms, the number of their coefficient, and the factor before it."""


def _vdw_lines(terms: Terms, force_field: ForceField, numbering: Numbering) -> list[_PairLines]:
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


def _charge_lines(terms: Terms, numbering: Numbering) -> list[_PairLines]:
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


class MoleculePreparation:
    """Features of one molecule, prepared once for all of its conformers.

    Args:
        topology: its terms.
        number: of the topology in the parameterized set.
        setting: of all molecules.
    """

    def __init__(self, topology: Topology, number: int, setting: PreparationSettings) -> None:
        self._setting, self._n_atoms = setting, topology.n_atoms
        self._valence = MoleculeFeatures(topology, setting.force_field, setting.layout)
        numbering = setting.coefficients.numbering(number)
        self._nonbonded = NonbondedFeatures(Terms.from_topology(topology), setting.force_field, numbering)
        own = self._valence.columns
        first = setting.coefficients.constants_at
        shifts = np.searchsorted(setting.coefficients.shifts, own[setting.layout.is_shift[own]])
        self._constants = np.zeros(0, dtype=np.int64) if first is None else first + shifts
        self._counts = self._valence.uses[setting.layout.is_shift[own]].astype(np.float64)
        self.columns: LongArray = np.concatenate([own, self._constants, self._nonbonded.columns])

    def parts(
        self, molecule: MoleculeRows, records: Sequence[Record], splits: Sequence[SplitArray]
    ) -> Iterator[MoleculeResiduals]:
        """Prepare a molecule, for each split that it has conformers in.

        Args:
            molecule: its rows.
            records: the rows.
            splits: of each row's conformers.

        Raises:
            DataError: naming the row and the conformer, where a label is not finite or there are more splits than conformers.
            MoleculeError: where atoms coincide.
        """
        check_rows(records, splits)
        lowest = min(float(record.energy.min()) for record in records)
        for name, number in SPLITS.items():
            chosen = [
                record.select(np.flatnonzero(split == number))
                for record, split in zip(records, splits, strict=True)
                if (split == number).any()
            ]
            if chosen:
                yield self._part(molecule, name, chosen, lowest)

    def _part(self, molecule: MoleculeRows, split: str, records: Sequence[Record], lowest: float) -> MoleculeResiduals:
        objective = self._setting.objective
        counts = [conformer_weights(record.energy - lowest, objective.conformer_weight) for record in records]
        energies, energy_targets, forces, force_targets, vectors = [], [], [], [], []
        for record, weights in zip(records, counts, strict=True):
            done = 0
            for rows in self._valence.rows(record.coords, record.energy, record.forces):
                n = rows.energy.shape[1]
                slots = self._slots(rows, record.coords[done : done + n])
                energies.append(slots.energy.T)
                energy_targets.append(rows.energy[-1])
                if record.forces is not None:
                    forces.append(force_rows(slots, self.columns, self._n_atoms))
                    force_targets.append(rows.forces[-1].transpose(0, 2, 1).ravel())
                    vectors.append(np.tile(weights[done : done + n], self._n_atoms))
                done += n
        weights = np.concatenate(counts)
        total = float(weights.sum())
        of_energy, of_forces = factors(self._n_atoms, total, molecule.source, objective) if total > 0.0 else (0.0, 0.0)
        w_energy, w_forces = self._setting.weights
        empty = scipy.sparse.csr_array((0, len(self.columns)))
        return MoleculeResiduals(
            molecule=molecule.id,
            source=molecule.source,
            split=split,
            columns=self.columns,
            energy=scipy.sparse.csr_array(np.concatenate(energies)),
            energy_target=np.concatenate(energy_targets),
            energy_weights=w_energy * of_energy * weights,
            labels=np.concatenate([record.energy for record in records]),
            forces=scipy.sparse.vstack(forces, format="csr") if forces else empty,
            force_target=np.concatenate(force_targets or [np.zeros(0)]),
            force_weights=w_forces * of_forces * np.concatenate(vectors or [np.zeros(0)]),
        )

    def _slots(self, rows: FeatureRows, coords: FloatArray) -> Slots:
        """Join the features of valence terms, constants and pairs."""
        pulls = rows.forces[:-1]
        column, atom = np.nonzero((pulls != 0.0).any(axis=(2, 3)))
        constants = np.broadcast_to(self._counts[:, None], (len(self._counts), len(coords)))
        pairs = self._nonbonded.slots(coords)
        energy = np.concatenate([rows.energy[:-1], constants[: len(self._constants)], pairs.energy])
        first = len(pulls) + len(self._constants)
        return Slots(
            columns=self.columns,
            energy=energy,
            column=np.concatenate([column, first + pairs.column]),
            atom=np.concatenate([atom, pairs.atom]),
            forces=np.concatenate([pulls[column, atom], pairs.forces]),
        )


def force_rows(slots: Slots, columns: LongArray, n_atoms: int) -> scipy.sparse.csr_array:
    """Return features of forces, shape (3 n_conformers n_atoms, n_local); rows are (atom, conformer, direction).

    Args:
        slots: features without their zeros.
        columns: ascending; those of `slots` are among them, shape (n_local,).
        n_atoms: of the molecule.
    """
    column = np.searchsorted(columns, slots.columns)[slots.column]
    n = slots.forces.shape[2]
    data, indices = [], []
    each = np.zeros(n_atoms, dtype=np.int64)
    for atom in range(n_atoms):
        mine = np.flatnonzero(slots.atom == atom)
        mine = mine[np.argsort(column[mine], kind="stable")]
        data.append(slots.forces[mine].transpose(2, 1, 0).ravel())
        indices.append(np.tile(column[mine], 3 * n))
        each[atom] = len(mine)
    indptr = np.concatenate([[0], np.cumsum(np.repeat(each, 3 * n))])
    return scipy.sparse.csr_array(
        (np.concatenate(data), np.concatenate(indices).astype(np.int32), indptr.astype(np.int32)),
        shape=(3 * n * n_atoms, len(columns)),
    )
