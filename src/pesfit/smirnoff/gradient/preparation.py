"""Molecules made ready for descent: features of all their conformers, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.dataset import Record
from pesfit.data.splits import SPLITS, SplitArray
from pesfit.data.topology import ForceField, Topology
from pesfit.params.fit_smirnoff import Objective
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exact.accumulate import check_rows, conformer_weights
from pesfit.smirnoff.exact.assemble import factors
from pesfit.smirnoff.features import MoleculeFeatures, Rows
from pesfit.smirnoff.gradient.coefficients import Coefficients
from pesfit.smirnoff.gradient.nonbonded import NonbondedFeatures, Slots
from pesfit.smirnoff.gradient.residuals import Part, force_rows
from pesfit.smirnoff.parameters import Layout
from pesfit.smirnoff.plan import MoleculeRows


@dataclass(frozen=True)
class Setting:
    """What all molecules have in common.

    Attributes:
        force_field: the starting force field.
        layout: of the valence parameters.
        coefficients: all that is trained.
        objective: weights and normalisation.
        weights: w_E and w_F of the objective, as numbers.
    """

    force_field: ForceField
    layout: Layout
    coefficients: Coefficients
    objective: Objective
    weights: tuple[float, float]


class MoleculePreparation:
    """What depends on a molecule alone.

    Args:
        topology: its terms.
        number: of the topology in the parameterized set.
        setting: what all molecules have in common.
    """

    def __init__(self, topology: Topology, number: int, setting: Setting) -> None:
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

    def parts(self, molecule: MoleculeRows, records: Sequence[Record], splits: Sequence[SplitArray]) -> Iterator[Part]:
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

    def _part(self, molecule: MoleculeRows, split: str, records: Sequence[Record], lowest: float) -> Part:
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
        return Part(
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

    def _slots(self, rows: Rows, coords: FloatArray) -> Slots:
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
