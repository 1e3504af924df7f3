"""Statistics of molecules against the rows they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.params.fit_smirnoff import Train
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics, merged
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout
from pesfit.statistics.normal_equations import ENERGIES, FORCES
from tests.smirnoff.samples import Sample, evaluate, perturbation, sample


@pytest.fixture(scope="module")
def ethanol() -> Sample:
    return sample(("CCO", "CC#N"), n_conformers=30)


@pytest.mark.parametrize("zero", ["mean", "min", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_equations_give_the_sums_over_rows(ethanol: Sample, zero: str, weighted: bool) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    coords, rng = ethanol.coords[0], np.random.default_rng(3)
    labels, forces = rng.normal(size=30), rng.normal(size=coords.shape)
    weights = rng.uniform(0.2, 1.0, 30) if weighted else np.ones(30)
    parts = [slice(0, 7), slice(7, 30)]
    statistics = merged(
        MoleculeStatistics.of(features, coords[p], labels[p], forces[p], weights[p] if weighted else None) for p in parts
    )
    rows = list(features.rows(coords, labels, forces))
    x = perturbation(layout)
    v = np.append(-x[features.columns], 1.0)
    residual = v @ np.concatenate([chunk.energy for chunk in rows], axis=1)
    residual -= {"mean": weights @ residual / weights.sum(), "min": residual[labels.argmin()], "none": 0.0}[zero]
    force_residual = np.tensordot(v, np.concatenate([chunk.forces for chunk in rows], axis=-1), 1)
    equations = statistics.equations(zero)  # type: ignore[arg-type]
    local = x[features.columns]
    assert equations[ENERGIES].sum_of_squares(local) == pytest.approx(weights @ residual**2, rel=1e-9)
    assert equations[FORCES].sum_of_squares(local) == pytest.approx((force_residual**2 * weights).sum(), rel=1e-9)
    assert equations[ENERGIES].n_rows == (30 if zero == "none" else 29)
    assert equations[FORCES].n_rows == 30 * (3 * 9 - 6)
    if zero == "mean":
        assert statistics.error_sums(x)[1:] == (
            pytest.approx(weights @ residual**2, rel=1e-9),
            pytest.approx((force_residual**2 * weights).sum(), rel=1e-9),
        )


def test_errors_are_those_of_the_potential(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    x = perturbation(layout)
    labels, forces = evaluate(ethanol.force_field, ethanol.topologies[0], ethanol.coords[0])
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    statistics = MoleculeStatistics.of(features, ethanol.coords[0], labels, forces)
    energy, force = evaluate(layout.apply(ethanol.force_field, x), ethanol.topologies[0], ethanol.coords[0])
    wrong = (energy - energy.mean()) - (labels - labels.mean())
    assert statistics.error_sums(x)[1:] == (pytest.approx(wrong @ wrong), pytest.approx(((force - forces) ** 2).sum()))
    assert max(statistics.error_sums(np.zeros(len(layout)))[1:]) < 1e-15


def test_conformers_without_forces(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    features = MoleculeFeatures(ethanol.topologies[0], ethanol.force_field, layout)
    statistics = MoleculeStatistics.of(features, ethanol.coords[0], np.zeros(30), None)
    assert statistics.equations("mean")[FORCES].n_rows == 0
    assert statistics.n_force_components == 0
    assert not statistics.forces.any()


def test_different_molecules_do_not_add(ethanol: Sample) -> None:
    layout = Layout.of(ethanol.force_field, Train())
    parts = []
    for topology, coords in zip(ethanol.topologies, ethanol.coords, strict=True):
        features = MoleculeFeatures(topology, ethanol.force_field, layout)
        parts.append(MoleculeStatistics.of(features, coords, np.zeros(30), None))
    with pytest.raises(DataError, match="different molecules"):
        merged(parts)
