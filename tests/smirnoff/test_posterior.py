"""Standard deviations from the stored posterior, against derivatives of the potential by finite differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import BondLength, Train, TrainBonds
from pesfit.smirnoff.parameters import Layout, add_periodicities
from pesfit.smirnoff.posterior import SmirnoffPosterior, write_posterior
from pesfit.statistics.linear_gaussian import Posterior
from pesfit.statistics.quadratic import KKT, Optimum
from tests.smirnoff.samples import EVERYTHING, Sample, evaluate, perturbation, sample

NOISE_VARIANCE, PRIOR_STRENGTH = 0.3, 2.0


@pytest.fixture(scope="module")
def molecules() -> Sample:
    return sample(("CCO", "CC(=O)NC"), n_conformers=3)


@dataclass(frozen=True)
class Fitted:
    """A made-up posterior, and where it is stored."""

    layout: Layout
    x: FloatArray
    covariance: FloatArray
    force_field: ForceField


def fitted(start: ForceField, train: Train, path: Path) -> Fitted:
    layout = Layout.of(start, train)
    x = perturbation(layout, seed=3, size=0.05)
    root = 0.03 * layout.prior().widths[:, None] * np.random.default_rng(1).normal(size=(len(layout), len(layout) + 5))
    covariance = root @ root.T / len(layout)
    nothing = np.zeros(0)
    optimum = Optimum(x, nothing, nothing.astype(bool), KKT(0.0, 0.0, 0.0, 0.0))
    posterior = Posterior(optimum, covariance, NOISE_VARIANCE, PRIOR_STRENGTH, 1.0, 0.0, np.ones(len(layout), dtype=bool))
    write_posterior(path, start, layout, posterior)
    return Fitted(layout, x, covariance, layout.apply(start, x))


def jacobian(fit: Fitted, start: ForceField, molecules: Sample, molecule: int) -> tuple[FloatArray, FloatArray]:
    """Differentiate energies and forces with respect to x: shapes (n, n_conformers) and (n, n_conformers, n_atoms, 3)."""
    topology, coords = molecules.topologies[molecule], molecules.coords[molecule]
    steps = 1e-4 * fit.layout.prior().widths
    energy, forces = [], []
    for i, step in enumerate(steps):
        move = np.zeros(len(fit.x))
        move[i] = step
        up, down = (evaluate(fit.layout.apply(start, fit.x + sign * move), topology, coords) for sign in (1.0, -1.0))
        energy.append((up[0] - down[0]) / (2.0 * step))
        forces.append((up[1] - down[1]) / (2.0 * step))
    return np.array(energy), np.array(forces)


def deviation(jacobian: FloatArray, covariance: FloatArray) -> FloatArray:
    return np.sqrt(np.einsum("i...,ij,j...->...", jacobian, covariance, jacobian))


@pytest.mark.parametrize(
    "train", [EVERYTHING, Train(bonds=TrainBonds(length=BondLength(train=False)))], ids=["all", "no lengths"]
)
def test_deviations_are_those_of_the_potential(molecules: Sample, train: Train, tmp_path: Path) -> None:
    start = molecules.force_field
    fit = fitted(start, train, tmp_path / "posterior.npz")
    posterior = SmirnoffPosterior.read(tmp_path / "posterior.npz", fit.force_field)
    for molecule in (0, 1):
        energy, forces = jacobian(fit, start, molecules, molecule)
        coords = molecules.coords[molecule]
        found = posterior.of(molecules.topologies[molecule])(coords)
        np.testing.assert_allclose(found.energy, deviation(energy, fit.covariance), rtol=1e-4)
        np.testing.assert_allclose(found.forces, deviation(forces, fit.covariance), rtol=1e-4)
        relative = deviation(energy - energy[:, :1], fit.covariance)
        np.testing.assert_allclose(found.relative_energy, relative, rtol=1e-4, atol=1e-9)
        to_last = posterior.of(molecules.topologies[molecule])(coords, coords[-1])
        np.testing.assert_allclose(
            to_last.relative_energy, deviation(energy - energy[:, -1:], fit.covariance), rtol=1e-4, atol=1e-9
        )
        assert found.relative_energy[0] < 1e-12


def test_parameters_that_the_fit_did_not_see_keep_their_prior(molecules: Sample, tmp_path: Path) -> None:
    """The same covariance, once stored by the fit, once as the prior of parameters without use."""
    start = molecules.force_field
    unused = replace(start, tables={name: replace(table, uses=0 * table.uses) for name, table in start.tables.items()})
    bonds = replace(start.tables["Bonds"])
    mixed = replace(unused, tables={**unused.tables, "Bonds": bonds})
    fit = fitted(mixed, Train(), tmp_path / "mixed.npz")
    full = Layout.of(start, Train())
    prior = np.diag(full.prior().widths ** 2 * NOISE_VARIANCE / PRIOR_STRENGTH)
    n_bonds = len(fit.layout)
    np.testing.assert_array_equal(full.row[:n_bonds], fit.layout.row)
    covariance = prior.copy()
    covariance[:n_bonds, :n_bonds] = fit.covariance
    x = np.concatenate([fit.x, np.zeros(len(full) - n_bonds)])
    whole = Fitted(full, x, covariance, fit.force_field)
    found = SmirnoffPosterior.read(tmp_path / "mixed.npz", fit.force_field).of(molecules.topologies[1])(molecules.coords[1])
    energy, forces = jacobian(whole, start, molecules, 1)
    np.testing.assert_allclose(found.forces, deviation(forces, covariance), rtol=1e-4)
    np.testing.assert_allclose(found.energy, deviation(energy, covariance), rtol=1e-4)


def test_rows_may_have_moved(molecules: Sample, tmp_path: Path) -> None:
    """Added periodicities are at the end of the fit's table and beside their torsion in the written file, where k is not 0."""
    start = molecules.force_field
    wanted = np.ones(len(start.tables["ProperTorsions"].smirks), dtype=bool)
    extended = add_periodicities(start, wanted, (1, 2, 3, 4)).force_field
    fit = fitted(extended, Train(), tmp_path / "posterior.npz")
    table = fit.force_field.tables["ProperTorsions"]
    n_start = len(start.tables["ProperTorsions"].smirks)
    order = np.lexsort((table.values[:, 1], np.array(table.smirks)))
    order = order[(order < n_start) | (order % 2 == 0)]
    moved = replace(
        table,
        ids=tuple(table.ids[i] for i in order), smirks=tuple(table.smirks[i] for i in order), mult=table.mult[order],
        values=table.values[order], uses=table.uses[order],
    )  # fmt: skip
    written = replace(fit.force_field, tables={**fit.force_field.tables, "ProperTorsions": moved})
    new_row = {int(old): new for new, old in enumerate(order)}
    topology = molecules.topologies[1]
    renumbered = replace(topology, proper_parameters=np.array([new_row[int(row)] for row in topology.proper_parameters]))
    found = SmirnoffPosterior.read(tmp_path / "posterior.npz", written).of(renumbered)(molecules.coords[1])
    expected = SmirnoffPosterior.read(tmp_path / "posterior.npz", fit.force_field).of(topology)(molecules.coords[1])
    np.testing.assert_allclose(found.forces, expected.forces, rtol=1e-9)


def test_files_that_do_not_fit_are_refused(molecules: Sample, tmp_path: Path) -> None:
    path = tmp_path / "posterior.npz"
    fit = fitted(molecules.force_field, Train(), path)
    bonds = fit.force_field.tables["Bonds"]
    other = replace(bonds, smirks=tuple(f"{smirks} " for smirks in bonds.smirks))
    with pytest.raises(DataError, match=r"names Bonds .* lacks"):
        SmirnoffPosterior.read(path, replace(fit.force_field, tables={**fit.force_field.tables, "Bonds": other}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as the posterior"):
        SmirnoffPosterior.read(path, fit.force_field)
    np.savez(path, format_version=np.array(7))
    with pytest.raises(DataError, match="format version 7; this version reads 1"):
        SmirnoffPosterior.read(path, fit.force_field)
