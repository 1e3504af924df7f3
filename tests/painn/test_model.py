"""Standard deviations of an ensemble against members that are evaluated one by one, and companions that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, UnknownElementError
from pesfit.painn import model as module
from pesfit.painn.model import EnsembleUncertainty, companion_folder, load_companions
from pesfit.painn.potential import CONFIG_FILE, WEIGHTS_FILE, PaiNNConfig, PaiNNPotential, build_painn
from pesfit.params.train_learned import Network
from pesfit.potentials.interface import Conformers, collate

NUMBERS = np.array([6, 8, 1, 1, 1, 1], dtype=np.int32)
SHAPE = Network(n_features=8, n_interactions=2, n_rbf=6, cutoff_angstrom=4.0, precision="float64")


def network(seed: int, scale: float = 5.0, elements: tuple[int, ...] = (1, 6, 8)) -> PaiNNPotential:
    atomrefs = torch.arange(1.0, len(elements) + 1.0, dtype=torch.float64)
    return build_painn(PaiNNConfig("conservative", elements, SHAPE), atomrefs=atomrefs, scale=scale, seed=seed)


def conformers(n: int) -> FloatArray:
    rng = np.random.default_rng(4)
    start = 1.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [1, 1, 0]], dtype=np.float64)
    return start + 0.1 * rng.normal(size=(n, *start.shape))


def alone(potential: PaiNNPotential, coords: FloatArray) -> tuple[float, FloatArray]:
    """Evaluate one conformer; forces by differences of the energy."""

    def energy(x: FloatArray) -> float:
        return float(potential(collate([Conformers(torch.tensor(NUMBERS).long(), torch.from_numpy(x)[None])])).energy)

    slope = np.zeros_like(coords)
    for place in np.ndindex(*coords.shape):
        step = np.zeros_like(coords)
        step[place] = 1e-5
        slope[place] = (energy(coords + step) - energy(coords - step)) / 2e-5
    return energy(coords), -slope


def spread(values: list[FloatArray]) -> FloatArray:
    """Return √(Σ (y - ȳ)² / (M - 1)) over the members, written out."""
    mean = sum(values) / len(values)
    return np.asarray(np.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)))


@pytest.mark.parametrize("pairs_at_once", [module._PAIRS_AT_ONCE, 80])
def test_deviations_are_those_of_members_one_by_one(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", pairs_at_once)
    members, coords = [network(seed) for seed in (1, 2, 3)], conformers(4)
    found = EnsembleUncertainty(members, NUMBERS)(coords)
    said = [[alone(member, one) for one in coords] for member in members]
    energies = [np.array([energy for energy, _ in of_member]) for of_member in said]
    np.testing.assert_allclose(found.energy, spread(energies), rtol=1e-9)
    np.testing.assert_allclose(found.relative_energy, spread([e - e[0] for e in energies]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found.forces, spread([np.array([f for _, f in of_member]) for of_member in said]), rtol=1e-6, atol=1e-7
    )
    assert found.relative_energy[0] == 0.0
    assert found.forces.shape == coords.shape
    other = EnsembleUncertainty(members, NUMBERS)(coords, reference=coords[2])
    np.testing.assert_allclose(other.relative_energy, spread([e - e[2] for e in energies]), rtol=1e-9, atol=1e-10)


def test_two_members_differ_by_their_distance_over_the_root_of_two() -> None:
    members, coords = [network(seed) for seed in (1, 2)], conformers(3)
    energies = [np.array([alone(member, one)[0] for one in coords]) for member in members]
    found = EnsembleUncertainty(members, NUMBERS)(coords)
    np.testing.assert_allclose(found.energy, np.abs(energies[0] - energies[1]) / np.sqrt(2.0), rtol=1e-9)


def test_a_member_that_agrees_with_all_others_leaves_no_deviation() -> None:
    found = EnsembleUncertainty([network(1)] * 3, NUMBERS)(conformers(2))
    assert max(np.abs(values).max() for values in (found.energy, found.relative_energy, found.forces)) < 1e-12


def test_coordinates_that_are_no_numbers_spoil_their_conformer_alone() -> None:
    coords = conformers(3)
    coords[1, 0, 0] = np.nan
    found = EnsembleUncertainty([network(1), network(2)], NUMBERS)(coords)
    assert np.isnan(found.energy).tolist() == [False, True, False]
    assert np.isfinite(found.forces[[0, 2]]).all()
    assert len(EnsembleUncertainty([network(1), network(2)], NUMBERS)(coords[:0], coords[0]).energy) == 0


def test_one_network_or_a_strange_element_is_refused() -> None:
    with pytest.raises(DataError, match="standard deviations of 1 network; an ensemble needs at least 2"):
        EnsembleUncertainty([network(1)], NUMBERS)
    with pytest.raises(UnknownElementError, match="N"):
        EnsembleUncertainty([network(1), network(2)], np.array([7, 1], dtype=np.int32))(conformers(1)[:, :2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network with companions 1 and 2."""
    network(1).save(tmp_path)
    for number in (1, 2):
        network(1 + number).save(companion_folder(tmp_path, number))
    return tmp_path


def test_companions_come_in_the_order_of_their_numbers(folder: Path) -> None:
    for number in range(3, 12):
        network(1 + number).save(companion_folder(folder, number))
    found = load_companions(folder, network(1))
    assert len(found) == 11
    for number, companion in enumerate(found, start=1):
        for mine, theirs in zip(companion.parameters(), network(1 + number).parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_damaged_member_is_named(folder: Path, file: str) -> None:
    path = companion_folder(folder, 2) / file
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"ensemble/2 does not hold a PaiNN potential"):
        load_companions(folder, network(1))


def test_a_missing_member_is_named(folder: Path) -> None:
    shutil.rmtree(companion_folder(folder, 1))
    with pytest.raises(DataError, match=r"ensemble/1 does not hold a PaiNN potential"):
        load_companions(folder, network(1))
    shutil.rmtree(companion_folder(folder, 2))
    with pytest.raises(DataError, match=r"ensemble holds no networks; train_learned\.ensemble is the number"):
        load_companions(folder, network(1))


@pytest.mark.parametrize("other", [network(3, scale=6.0), network(3, elements=(1, 6, 7, 8))])
def test_a_member_of_another_run_is_named(folder: Path, other: PaiNNPotential) -> None:
    other.save(companion_folder(folder, 2))
    with pytest.raises(DataError, match=r"ensemble/2 holds a network of another kind, or of other data"):
        load_companions(folder, network(1))
