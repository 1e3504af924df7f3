"""Molecules, force fields and perturbed labels that several tests of the fit share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.data.topology import BONDED_HANDLERS, ForceField, Topology
from pesfit.params.fit_smirnoff import ImproperK, Train, TrainImproperTorsions
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.parameters import Layout
from pesfit.smirnoff.potential import SmirnoffPotential
from tests import openff_oracle

TERM_NAMES = {"Bonds": "bond", "Angles": "angle", "ProperTorsions": "proper", "ImproperTorsions": "improper"}
EVERYTHING = Train(improper_torsions=TrainImproperTorsions(k=ImproperK(train=True)))
"""Improper torsions too, which are left alone by default."""


@dataclass(frozen=True)
class Sample:
    """Parameterized molecules with conformers."""

    force_field: ForceField
    topologies: list[Topology]
    coords: list[FloatArray]


def sample(smiles: tuple[str, ...], n_conformers: int = 12, jitter: float = 0.08) -> Sample:
    """Parameterize molecules by Interchange and make strained conformers of them."""
    molecules = [openff_oracle.molecule(s, n_conformers, jitter, seed=i) for i, s in enumerate(smiles)]
    force_field, topologies = openff_oracle.tables_and_topologies(molecules)
    return Sample(with_uses(force_field, topologies), topologies, [molecule.coords for molecule in molecules])


def with_uses(force_field: ForceField, topologies: list[Topology]) -> ForceField:
    """Count how many terms use each parameter."""
    tables = dict(force_field.tables)
    for handler, name in TERM_NAMES.items():
        used = np.concatenate([getattr(topology, f"{name}_parameters") for topology in topologies])
        tables[handler] = replace(tables[handler], uses=np.bincount(used, minlength=len(tables[handler].smirks)))
    return replace(force_field, tables=tables)


def evaluate(force_field: ForceField, topology: Topology, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return energies [kcal/mol] and forces [kcal/mol/Å] of a molecule's conformers."""
    numbers = torch.ones(topology.n_atoms, dtype=torch.int64)
    batch = collate([Conformers(numbers, torch.tensor(coords), Terms.from_topology(topology))])
    with torch.no_grad():
        prediction = SmirnoffPotential(force_field)(batch)
    return prediction.energy.numpy(), prediction.forces.numpy().reshape(coords.shape)


def perturbation(layout: Layout, seed: int = 0, size: float = 0.3) -> FloatArray:
    """Draw x from the prior, narrowed by `size`, within the bounds."""
    prior = layout.prior()
    x = size * prior.widths * np.random.default_rng(seed).normal(size=len(layout))
    bounds = layout.constraints()
    while (bounds.matrix @ x < bounds.lower).any():
        x *= 0.5
    return x


def n_parameters(force_field: ForceField) -> int:
    """Count the rows of all bonded tables."""
    return sum(len(force_field.tables[handler].smirks) for handler in BONDED_HANDLERS)
