"""Minima and scans of the molecules of a fit: which of them count, in which split, and what their landscapes need to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pesfit.chemistry.smiles import standard_masses
from pesfit.core.exceptions import DataError, Failure, MoleculeError
from pesfit.data.minima import Landscapes, MoleculeMinima, TorsionScan
from pesfit.data.splits import SPLITS
from pesfit.data.topology import Topology
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.interface import Conformers
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exact.accumulate import STAGE
from pesfit.smirnoff.exact.landscapes import Compared, Landscape, LandscapeSet, PlacedLandscape
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.fit_data import FitInputs
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout
from pesfit.smirnoff.potential import SmirnoffPotential


@dataclass(frozen=True, eq=False)
class PlacedMinima:
    """A molecule of `data/minima` that the fit knows.

    Attributes:
        minima: of the molecule.
        scans: of the molecule.
        topology: index in the parameterized set.
        split: train, where any of its conformers in any data set is in it; then validation, then test.
    """

    minima: MoleculeMinima
    scans: Sequence[TorsionScan]
    topology: int
    split: str

    @property
    def id(self) -> str:
        """Name of the molecule in results."""
        return f"{self.minima.dataset}/{self.minima.record.id}"


def place(landscapes: Landscapes, inputs: FitInputs) -> list[PlacedMinima]:
    """Find topology and split of molecules with minima or scans; those that have none of either are left out."""
    splits = _splits_of_groups(inputs)
    found = []
    for minima, scans in landscapes.by_molecule():
        topology = inputs.parameterized.index(minima.dataset, minima.record.id)
        split = splits.get(minima.record.group)
        if topology is not None and split is not None:
            found.append(PlacedMinima(minima, scans, topology, split))
    return found


def _splits_of_groups(inputs: FitInputs) -> dict[str, str]:
    first = len(SPLITS)
    numbers: dict[str, int] = {}
    for name, dataset in inputs.datasets.items():
        for id, group in zip(*(dataset.table.column(c).to_pylist() for c in ("id", "group")), strict=True):  # noqa: A001
            numbers[group] = min(numbers.get(group, first), int(inputs.splits.of(name, id).min(initial=first)))
    names = {number: name for name, number in SPLITS.items()}
    return {group: names[number] for group, number in numbers.items() if number in names}


def landscape_set(
    placed: Sequence[PlacedMinima], inputs: FitInputs, extension: AddedPeriodicities, layout: Layout
) -> tuple[LandscapeSet, list[Failure]]:
    """Prepare the landscapes of molecules.

    Args:
        placed: the molecules.
        inputs: hold their topologies.
        extension: the starting force field, with the periodicities that were added.
        layout: meaning of x.

    Returns:
        The landscapes, and the molecules that failed.
    """
    members, failures = [], []
    for each in placed:
        try:
            topology = extension.extend(inputs.parameterized[each.topology])
            members.append(PlacedLandscape(each.minima.record.group, each.split, _landscape(each, topology, extension, layout)))
        except (MoleculeError, DataError) as error:
            failures.append(Failure.from_exception(each.id, STAGE, error))
    return (
        LandscapeSet(members, len(layout), lambda x: SmirnoffPotential(layout.apply(extension.force_field, x))),
        failures,
    )


def _landscape(placed: PlacedMinima, topology: Topology, extension: AddedPeriodicities, layout: Layout) -> Landscape:
    record = placed.minima.record
    if record.n_conformers:
        record.validate()
    if topology.n_atoms != record.n_atoms:
        raise DataError(f"{placed.id}: {record.n_atoms} atoms at its minima, {topology.n_atoms} in its topology")
    numbers = torch.from_numpy(record.atomic_numbers.astype(np.int64))
    conformers = Conformers(numbers, torch.from_numpy(record.coords.copy()), Terms.from_topology(topology), record.total_charge)
    features = MoleculeFeatures(topology, extension.force_field, layout)
    geometry = np.concatenate([record.coords, *(scan.record.coords for scan in placed.scans)])[0]
    coordinates = BondGraphCoordinates.of(topology.connectivity.tolist(), geometry)
    molecule = Compared(conformers, standard_masses(record.atomic_numbers), coordinates)
    return Landscape(placed.minima, placed.scans, features, molecule)
