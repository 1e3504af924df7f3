"""The last layer as linear regression, against the network itself with another last layer, and its posterior as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError
from pesfit.painn.last_layer import (
    LAST_LAYER_FILE,
    LastLayerPosterior,
    atom_features,
    features_and_slopes,
    last_layer,
)
from pesfit.painn.potential import PaiNNConfig, PaiNNPotential, build_painn
from pesfit.params.train_learned import Network
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.neighbors import find_edges

NUMBERS = np.array([6, 8, 1, 1, 1], dtype=np.int32)
N_FEATURES = 9
"""Half of the network's features, and the bias."""


def network(seed: int = 3) -> PaiNNPotential:
    shape = Network(n_features=16, n_interactions=2, n_rbf=8, cutoff_angstrom=3.0, precision="float64")
    return build_painn(PaiNNConfig("conservative", (1, 6, 8), shape), scale=7.0, seed=seed)


def conformers(n: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.asarray(1.2 * rng.normal(size=(1, 5, 3)) + 0.15 * rng.normal(size=(n, 5, 3)))


def posterior(seed: int = 1) -> LastLayerPosterior:
    rng = np.random.default_rng(seed)
    root = 0.1 * rng.normal(size=(N_FEATURES, N_FEATURES))
    return LastLayerPosterior(0.1 * rng.normal(size=N_FEATURES), root @ root.T, 0.04, 0.25, 3.0, 6.25)


def with_last_layer(potential: PaiNNPotential, values: FloatArray) -> None:
    layer = potential.network.energy_head[1]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(values[None, :-1]))
        layer.bias.copy_(torch.from_numpy(values[-1:]))


def predict(potential: PaiNNPotential, coords: FloatArray, numbers: FloatArray = NUMBERS) -> tuple[FloatArray, FloatArray]:
    batch = collate([Conformers(torch.from_numpy(numbers.astype(np.int64)), torch.from_numpy(coords))])
    found = potential(batch)
    return found.energy.detach().numpy(), found.forces.detach().numpy().reshape(coords.shape)


def jacobian(potential: PaiNNPotential, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what energies and forces change by where one number of the last layer does, features first."""
    layer = last_layer(potential)
    energy, forces = predict(potential, coords)
    columns = []
    for k in range(len(layer)):
        with_last_layer(potential, layer + np.eye(len(layer))[k])
        moved = predict(potential, coords)
        columns.append((moved[0] - energy, moved[1] - forces))
    with_last_layer(potential, layer)
    return np.stack([e for e, _ in columns]), np.stack([f for _, f in columns])


def graph(potential: PaiNNPotential, coords: FloatArray) -> tuple[torch.Tensor, ...]:
    x = torch.from_numpy(coords).reshape(-1, 3)
    edges = find_edges(x, ((len(coords), 5),), 3.0)
    once = edges.first < edges.second
    first, second = edges.first[once], edges.second[once]
    return potential.element_index(torch.from_numpy(np.tile(NUMBERS, len(coords)))), x[second] - x[first], first, second


def test_energies_and_forces_are_linear_in_the_last_layer() -> None:
    potential, coords = network(), conformers(4)
    of_atoms, slopes = features_and_slopes(potential, *graph(potential, coords))
    change = np.random.default_rng(5).normal(size=N_FEATURES)
    before = predict(potential, coords)
    with_last_layer(potential, last_layer(potential) + change)
    after = predict(potential, coords)
    np.testing.assert_allclose(of_atoms.view(4, 5, -1).sum(1).numpy() @ change, after[0] - before[0], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose((slopes.numpy() @ change).reshape(4, 5, 3), after[1] - before[1], rtol=1e-10, atol=1e-11)


def test_force_features_are_minus_the_derivatives_of_energy_features() -> None:
    potential, coords = network(), conformers(2)
    _, slopes = features_and_slopes(potential, *graph(potential, coords))
    h = 1e-5
    for atom in range(5):
        for axis in range(3):
            sums = []
            for sign in (-1.0, 1.0):
                moved = coords.copy()
                moved[:, atom, axis] += sign * h
                sums.append(atom_features(potential, *graph(potential, moved)).view(2, 5, -1).sum(1).detach().numpy())
            expected = -(sums[1] - sums[0]) / (2.0 * h)
            np.testing.assert_allclose(slopes.view(2, 5, 3, -1)[:, atom, axis].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_deviations_are_those_of_the_covariance() -> None:
    potential, coords, known = network(), conformers(6), posterior()
    of_energy, of_forces = jacobian(potential, coords)

    def deviation(rows: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.einsum("k...,kl,l...->...", rows, known.covariance, rows)))

    found = known.of(potential, NUMBERS)(coords)
    np.testing.assert_allclose(found.energy, deviation(of_energy), rtol=1e-8)
    np.testing.assert_allclose(found.forces, deviation(of_forces), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.relative_energy, deviation(of_energy - of_energy[:, :1]), rtol=1e-8, atol=1e-7)
    assert found.relative_energy[0] == pytest.approx(0.0, abs=1e-10)
    reference = conformers(1, seed=8)[0]
    origin, _ = jacobian(potential, reference[None])
    found = known.of(potential, NUMBERS)(coords, reference)
    np.testing.assert_allclose(found.relative_energy, deviation(of_energy - origin), rtol=1e-8)


def test_deviations_do_not_depend_on_place_direction_order_or_company() -> None:
    potential, coords = network(), conformers(200)  # more than are computed with in one go
    uncertainty = posterior().of(potential, NUMBERS)
    found = uncertainty(coords)
    alone = uncertainty(coords[150:151], coords[0])
    np.testing.assert_allclose(alone.energy, found.energy[150:151], rtol=1e-10)
    np.testing.assert_allclose(alone.relative_energy, found.relative_energy[150:151], rtol=1e-9)
    np.testing.assert_allclose(alone.forces, found.forces[150:151], rtol=1e-9)

    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    turned = uncertainty(coords[:5] @ turn + 30.0)
    np.testing.assert_allclose(turned.energy, found.energy[:5], rtol=1e-9)
    norms = [np.linalg.norm(each.forces[:5], axis=2) for each in (turned, found)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-9)
    order = np.array([3, 0, 4, 2, 1])
    swapped = posterior().of(potential, NUMBERS[order])(coords[:5, order])
    np.testing.assert_allclose(swapped.energy, found.energy[:5], rtol=1e-10)
    np.testing.assert_allclose(swapped.forces, found.forces[:5][:, order], rtol=1e-9)


def test_a_single_atom_has_no_forces_and_coordinates_that_are_no_numbers_spoil_their_conformer_alone() -> None:
    potential = network()
    atom = posterior().of(potential, np.array([8], dtype=np.int32))(np.zeros((2, 1, 3)))
    assert (atom.energy > 0.0).all()
    assert not atom.forces.any()
    coords = conformers(3)
    coords[1, 2, 0] = np.nan
    found = posterior().of(potential, NUMBERS)(coords)
    for values in (found.energy, found.relative_energy, found.forces.sum(axis=(1, 2))):
        np.testing.assert_array_equal(np.isnan(values), [False, True, False])


def test_an_element_that_is_not_known_is_named() -> None:
    uncertainty = posterior().of(network(), np.array([8, 16], dtype=np.int32))
    with pytest.raises(DataError, match="not trained on S; it knows H, C, O"):
        uncertainty(np.ones((1, 2, 3)) * np.arange(2)[None, :, None])


def test_what_is_written_is_read_with_the_same_bytes(tmp_path: Path) -> None:
    network().save(tmp_path)
    assert LastLayerPosterior.read(tmp_path) is None
    written = posterior()
    written.write(tmp_path)
    first = (tmp_path / LAST_LAYER_FILE).read_bytes()
    read = LastLayerPosterior.read(tmp_path)
    assert read is not None
    np.testing.assert_array_equal(read.mean, written.mean)
    np.testing.assert_array_equal(read.covariance, written.covariance)
    names = ("energy_noise_variance", "force_noise_variance", "strength", "energy_weight")
    assert [getattr(read, name) for name in names] == [0.04, 0.25, 3.0, 6.25]
    read.write(tmp_path)
    assert (tmp_path / LAST_LAYER_FILE).read_bytes() == first


def test_the_posterior_of_another_network_is_refused(tmp_path: Path) -> None:
    network().save(tmp_path)
    posterior().write(tmp_path)
    network(seed=4).save(tmp_path)
    with pytest.raises(DataError, match=r"last-layer\.npz belongs to other weights than .*model\.safetensors"):
        LastLayerPosterior.read(tmp_path)
    small = LastLayerPosterior(np.zeros(5), np.eye(5), 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="a posterior of 5 numbers for a last layer of 9"):
        small.of(network(), NUMBERS)


@pytest.mark.parametrize("damage", ["cut", "empty", "no archive", "shape", "not finite", "missing", "version", "pickle"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    network().save(tmp_path)
    posterior().write(tmp_path)
    path = tmp_path / LAST_LAYER_FILE
    content = path.read_bytes()
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    changes = {
        "shape": {"covariance": np.eye(4)},
        "not finite": {"covariance": np.full((N_FEATURES, N_FEATURES), np.nan)},
        "version": {"format_version": np.array(99)},
        "pickle": {"mean": np.array([{}], dtype=object)},
    }
    if damage in changes:
        np.savez(path, **{**arrays, **changes[damage]})
    elif damage == "missing":
        np.savez(path, **{name: values for name, values in arrays.items() if name != "strength"})
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "no archive": b"x" * 100}[damage])
    message = (
        "has format version 99; this version reads 1"
        if damage == "version"
        else "cannot be read as the posterior of a last layer"
    )
    with pytest.raises(DataError, match=rf"last-layer\.npz {message}"):
        LastLayerPosterior.read(tmp_path)
