"""Linear features against the potential itself."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.core.arrays import FloatArray
from pesfit.params.fit_smirnoff import (
    AngleAngle,
    AngleK,
    BondK,
    BondLength,
    TorsionK,
    Train,
    TrainAngles,
    TrainBonds,
    TrainProperTorsions,
)
from pesfit.potentials.internal_coordinates import CoincidentAtomsError
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout
from tests.smirnoff.samples import EVERYTHING, Sample, evaluate, perturbation, sample

VARIANTS = {
    "everything": EVERYTHING,
    "k alone": Train(bonds=TrainBonds(length=BondLength(train=False)), angles=TrainAngles(angle=AngleAngle(train=False))),
    "minima alone": Train(
        bonds=TrainBonds(k=BondK(train=False)),
        angles=TrainAngles(k=AngleK(train=False)),
        proper_torsions=TrainProperTorsions(k=TorsionK(train=False)),
    ),
}


@pytest.fixture(scope="module")
def molecules() -> Sample:
    return sample(("CC(=O)NC", "CC#N", "O=[N+]([O-])c1ccccc1", "CCO"))


def rows(
    features: MoleculeFeatures, coords: FloatArray, energy: FloatArray, forces: FloatArray
) -> tuple[FloatArray, FloatArray]:
    chunks = list(features.rows(coords, energy, forces))
    return np.concatenate([c.energy for c in chunks], axis=-1), np.concatenate([c.forces for c in chunks], axis=-1)


@pytest.mark.parametrize("train", VARIANTS.values(), ids=VARIANTS)
def test_rows_predict_what_the_perturbed_force_field_gives(molecules: Sample, train: Train) -> None:
    layout = Layout.of(molecules.force_field, train)
    x = perturbation(layout)
    changed = layout.apply(molecules.force_field, x)
    for topology, coords in zip(molecules.topologies, molecules.coords, strict=True):
        labels, label_forces = np.random.default_rng(1).normal(size=len(coords)), np.zeros_like(coords)
        features = MoleculeFeatures(topology, molecules.force_field, layout)
        energy, forces = rows(features, coords, labels, label_forces)
        local = np.append(-x[features.columns], 1.0)
        predicted_energy, predicted_forces = evaluate(changed, topology, coords)
        residual, expected = local @ energy, labels - predicted_energy
        np.testing.assert_allclose(residual - residual.mean(), expected - expected.mean(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.tensordot(local, forces, 1).transpose(2, 0, 1), -predicted_forces, rtol=0, atol=1e-9)


def test_target_is_what_the_starting_force_field_leaves(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    topology, coords = molecules.topologies[0], molecules.coords[0]
    start_energy, start_forces = evaluate(molecules.force_field, topology, coords)
    energy, forces = rows(MoleculeFeatures(topology, molecules.force_field, layout), coords, start_energy, start_forces)
    np.testing.assert_allclose(energy[-1], 0.0, atol=1e-9)
    np.testing.assert_allclose(forces[-1], 0.0, atol=1e-9)


def test_forces_are_minus_the_gradient_of_energies(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, EVERYTHING)
    topology, coords = molecules.topologies[0], molecules.coords[0][:1]
    features = MoleculeFeatures(topology, molecules.force_field, layout)
    _, forces = rows(features, coords, np.zeros(1), np.zeros_like(coords))
    step = 1e-5
    moved = np.repeat(coords, 6, axis=0)
    for axis in range(3):
        moved[2 * axis, 3, axis] += step
        moved[2 * axis + 1, 3, axis] -= step
    energy, _ = rows(features, moved, np.zeros(6), np.zeros_like(moved))
    gradient = (energy[:, 0::2] - energy[:, 1::2]) / (2 * step)
    np.testing.assert_allclose(forces[:-1, 3, :, 0], -gradient[:-1], rtol=1e-5, atol=1e-6)


def test_uses_count_terms(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, EVERYTHING)
    total = np.zeros(len(layout), dtype=np.int64)
    for topology in molecules.topologies:
        features = MoleculeFeatures(topology, molecules.force_field, layout)
        total[features.columns] += features.uses
    bonds = ~layout.is_shift & (layout.handler == 0)
    np.testing.assert_array_equal(total[bonds], molecules.force_field.tables["Bonds"].uses[layout.row[bonds]])


def test_coincident_atoms_name_the_conformer(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    coords = np.tile(molecules.coords[3], (40, 1, 1))
    coords[411, 1] = coords[411, 0]
    features = MoleculeFeatures(molecules.topologies[3], molecules.force_field, layout)
    with pytest.raises(CoincidentAtomsError, match="conformer 411: atoms 0 and 1"):
        rows(features, coords, np.zeros(len(coords)), np.zeros_like(coords))
