"""Molecules and objectives that the tests of the gradient fit share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.data.dataset import Record
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import Gradient, Objective, RelativeColumn, Sigma, TrainCharges, TrainVdW
from pesfit.smirnoff.fit_data import MoleculeRows
from pesfit.smirnoff.gradient.coefficients import Coefficients, TrainedCharges, equivalence_classes
from pesfit.smirnoff.gradient.objective import MoleculeResiduals
from pesfit.smirnoff.gradient.preparation import MoleculePreparation, PreparationSettings
from pesfit.smirnoff.parameters import Layout
from tests.smirnoff.samples import EVERYTHING, Sample, evaluate, sample

TRAIN_ALL = Gradient(
    vdw=TrainVdW(epsilon=RelativeColumn(train=True), sigma=Sigma(train=True)),
    charges=TrainCharges(train=True),
)
PLAIN = Objective()
MOLECULES = ("CCO", "CC#N", "CC(=O)NC", "COP(=O)([O-])OC")


def molecules(smiles: tuple[str, ...] = MOLECULES, n_conformers: int = 6) -> Sample:
    """Parameterize molecules, and count how many atoms have each van der Waals type."""
    found = sample(smiles, n_conformers)
    table = found.force_field.tables["vdW"]
    used = np.concatenate([topology.vdw_parameters for topology in found.topologies])
    table = replace(table, uses=np.bincount(used, minlength=len(table.smirks)))
    return replace(found, force_field=replace(found.force_field, tables={**found.force_field.tables, "vdW": table}))


def setting_of(
    found: Sample,
    params: Gradient,
    objective: Objective = PLAIN,
    weights: tuple[float, float] = (1.0, 1.0),
) -> PreparationSettings:
    """Train everything that `params` asks for, and all valence terms."""
    layout = Layout.of(found.force_field, EVERYTHING)
    charges = TrainedCharges(
        {i: equivalence_classes(t) for i, t in enumerate(found.topologies)} if params.charges.train else {}
    )
    with_constants = objective.energy_zero == "none"
    coefficients = Coefficients(layout, found.force_field, params, charges, with_constants=with_constants)
    return PreparationSettings(found.force_field, layout, coefficients, objective, weights)


def labels(found: Sample, force_field: ForceField, noise: float = 0.0, seed: int = 0) -> list[tuple[FloatArray, FloatArray]]:
    """Evaluate a force field on all conformers, and add noise."""
    rng, result = np.random.default_rng(seed), []
    for topology, coords in zip(found.topologies, found.coords, strict=True):
        energy, forces = evaluate(force_field, topology, coords)
        result.append((energy + noise * rng.normal(size=energy.shape), forces + noise * rng.normal(size=forces.shape)))
    return result


def parts_of(
    found: Sample,
    setting: PreparationSettings,
    targets: Sequence[tuple[FloatArray, FloatArray]],
    every_second_for_validation: bool = False,
) -> list[MoleculeResiduals]:
    """Prepare the molecules."""
    parts: list[MoleculeResiduals] = []
    for i, (topology, coords, (energy, forces)) in enumerate(zip(found.topologies, found.coords, targets, strict=True)):
        n = len(coords)
        numbers = np.ones(topology.n_atoms, dtype=np.int32)
        record = Record(f"m{i}", None, numbers, coords, energy, forces, None, 0, f"m{i}", "made/up", np.arange(n))
        split = (np.arange(n) % 2 if every_second_for_validation else np.zeros(n)).astype(np.uint8)
        rows = MoleculeRows("set", (i,), (f"m{i}",), "made/up", f"m{i}", i, n)
        parts.extend(MoleculePreparation(topology, i, setting).parts(rows, [record], [split]))
    return parts


def random_z(setting: PreparationSettings, seed: int = 0, size: float = 0.3) -> FloatArray:
    """Draw z from the prior, narrowed, in its box."""
    coefficients = setting.coefficients
    z = size * np.random.default_rng(seed).normal(size=coefficients.n_parameters)
    return np.clip(z, coefficients.lower, coefficients.upper)
