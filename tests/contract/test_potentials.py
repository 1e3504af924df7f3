"""What holds for every implementation of `Potential`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pesfit.potentials.interface import Batch, Prediction
from tests.contract.registry import Case
from tests.contract.samples import Sample, batch_of

ROTATION = Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()


def evaluate(case: Case, *samples: Sample) -> tuple[Batch, Prediction]:
    batch = batch_of(*samples)
    return batch, case.potential(batch)


def close(actual: Any, expected: Any, tolerance: float) -> None:
    numbers = [np.asarray(value.detach()) if isinstance(value, torch.Tensor) else value for value in (actual, expected)]
    np.testing.assert_allclose(*numbers, rtol=0.0, atol=tolerance)


def test_shapes_and_types(case: Case) -> None:
    batch, prediction = evaluate(case, *case.samples)
    assert prediction.energy.shape == (sum(len(sample.coords) for sample in case.samples),)
    assert prediction.forces.shape == batch.coords.shape
    assert prediction.energy.dtype == prediction.forces.dtype == torch.float64
    assert bool(torch.isfinite(prediction.energy).all())
    assert bool(torch.isfinite(prediction.forces).all())
    assert float(prediction.forces.abs().max()) > 1.0, "samples at a minimum test nothing"


def test_forces_are_minus_the_gradient_of_the_energy(case: Case) -> None:
    if not case.potential.conservative:
        pytest.skip(f"{type(case.potential).__name__} predicts forces beside the energy: they need not be its gradient")
    for sample in case.samples:
        coords = sample.coords[0]
        steps = case.step * np.eye(coords.size).reshape(-1, *coords.shape)
        _, displaced = evaluate(case, sample.moved(np.concatenate([coords + steps, coords - steps])))
        ahead, behind = displaced.energy.chunk(2)
        _, prediction = evaluate(case, sample.moved(coords[None]))
        close(prediction.forces.reshape(-1), (behind - ahead) / (2.0 * case.step), case.step_tolerance)


def test_a_conformer_does_not_depend_on_its_batch(case: Case) -> None:
    batch, together = evaluate(case, *reversed(case.samples))
    energies, forces = batch.split_conformers(together.energy), batch.split_atoms(together.forces)
    for sample, energy, force in zip(reversed(case.samples), energies, forces, strict=True):
        for i in range(len(sample.coords)):
            _, alone = evaluate(case, sample.moved(sample.coords[i : i + 1]))
            close(energy[i], alone.energy[0], case.tolerance)
            close(force[i], alone.forces, case.tolerance)


def test_renumbered_atoms_have_the_same_energy_and_forces(case: Case) -> None:
    for sample in case.samples:
        order = np.random.default_rng(7).permutation(len(sample.atomic_numbers))
        batch, before = evaluate(case, sample)
        _, after = evaluate(case, sample.renumbered(order))
        close(after.energy, before.energy, case.tolerance)
        close(after.forces, batch.split_atoms(before.forces)[0][:, torch.tensor(order)].reshape(-1, 3), case.tolerance)


def test_translated_molecules_have_the_same_energy_and_forces(case: Case) -> None:
    for sample in case.samples:
        _, before = evaluate(case, sample)
        _, after = evaluate(case, sample.moved(sample.coords + np.array([3.0, -5.0, 11.0])))
        close(after.energy, before.energy, case.tolerance)
        close(after.forces, before.forces, case.tolerance)


def test_forces_turn_with_the_molecule(case: Case) -> None:
    for sample in case.samples:
        _, before = evaluate(case, sample)
        _, after = evaluate(case, sample.moved(sample.coords @ ROTATION.T))
        close(after.energy, before.energy, case.tolerance)
        close(after.forces, before.forces.detach() @ torch.tensor(ROTATION.T), case.tolerance)


def test_net_force_and_torque_are_zero(case: Case) -> None:
    if not case.potential.conservative:
        pytest.skip(f"{type(case.potential).__name__} predicts forces beside the energy: their sum need not be zero")
    for sample in case.samples:
        batch, prediction = evaluate(case, sample)
        (forces,) = batch.split_atoms(prediction.forces)
        torque = torch.linalg.cross(torch.tensor(sample.coords), forces).sum(1)
        close(forces.sum(1), 0.0, case.tolerance)
        close(torque, 0.0, 10.0 * case.tolerance)


def test_molecules_far_apart_have_the_sum_of_their_energies(case: Case) -> None:
    first, second = case.samples[0], case.samples[1]
    batch, parts = evaluate(case, first, second)
    _, whole = evaluate(case, first.beside(second, np.array([0.0, case.far, 0.0])))
    close(whole.energy, sum(batch.split_conformers(parts.energy)), 10.0 * case.tolerance)
    close(whole.forces.reshape(2, -1, 3), torch.cat(batch.split_atoms(parts.forces), dim=1), 10.0 * case.tolerance)


def test_a_molecule_of_one_atom_has_an_energy_and_no_force(case: Case) -> None:
    _, prediction = evaluate(case, case.atom)
    assert bool(torch.isfinite(prediction.energy).all())
    close(prediction.forces, np.zeros((1, 3)), case.tolerance)


def test_isolated_atoms_have_the_sum_of_their_energies(case: Case) -> None:
    pair = case.atom.beside(case.atom, np.array([0.0, 0.0, case.far]))
    _, one = evaluate(case, case.atom)
    _, three = evaluate(case, pair.beside(case.atom, np.array([case.far, 0.0, 0.0])))
    close(three.energy, 3.0 * one.energy, case.tolerance)
    close(three.forces, np.zeros((3, 3)), case.tolerance)


def test_an_atom_beside_molecules_changes_nothing(case: Case) -> None:
    batch, together = evaluate(case, case.samples[0], case.atom, case.samples[1])
    _, alone = evaluate(case, case.samples[1])
    close(batch.split_conformers(together.energy)[2], alone.energy, case.tolerance)
    close(batch.split_atoms(together.forces)[2].reshape(-1, 3), alone.forces, case.tolerance)


def test_the_same_input_gives_the_same_bytes(case: Case) -> None:
    batch, first = evaluate(case, *case.samples)
    again, fresh = case.potential(batch), evaluate(case, *case.samples)[1]
    for second in (again, fresh):
        assert torch.equal(first.energy, second.energy)
        assert torch.equal(first.forces, second.forces)


def test_new_coordinates_give_what_a_new_batch_gives(case: Case) -> None:
    batch, _ = evaluate(case, *case.samples)
    squeezed = [sample.moved(0.98 * sample.coords) for sample in case.samples]
    reused, (_, fresh) = case.potential(batch.with_coords(0.98 * batch.coords)), evaluate(case, *squeezed)
    close(reused.energy, fresh.energy, case.tolerance)
    close(reused.forces, fresh.forces, case.tolerance)


def test_bound_to_a_batch_it_says_the_same_at_any_positions(case: Case) -> None:
    batch, _ = evaluate(case, *case.samples)
    bound = case.potential.bind(batch)
    for scale in (1.0, 0.98, 1.1):
        prediction, expected = bound(scale * batch.coords), case.potential(batch.with_coords(scale * batch.coords))
        assert not prediction.forces.requires_grad
        close(prediction.energy, expected.energy, case.tolerance)
        close(prediction.forces, expected.forces, case.tolerance)


def test_inputs_are_left_as_they_are(case: Case) -> None:
    batch = batch_of(*case.samples)
    before = {name: tensor.clone() for name, tensor in tensors(batch).items()}
    case.potential(batch)
    after = tensors(batch)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_it_works_where_gradients_are_off_and_leaves_them_off(case: Case) -> None:
    batch, expected = evaluate(case, *case.samples)
    with torch.no_grad():
        prediction = case.potential(batch)
        assert not torch.is_grad_enabled()
    assert not prediction.energy.requires_grad
    close(prediction.energy, expected.energy, case.tolerance)
    close(prediction.forces, expected.forces, case.tolerance)


def test_coordinates_that_are_not_finite_spoil_their_own_conformer_alone(case: Case) -> None:
    sample = case.samples[0]
    spoilt = sample.coords.copy()
    spoilt[0, 0, 0] = np.nan
    _, expected = evaluate(case, sample)
    batch, prediction = evaluate(case, sample.moved(spoilt))
    assert not bool(torch.isfinite(prediction.energy[0]))
    close(prediction.energy[1], expected.energy[1], case.tolerance)
    close(batch.split_atoms(prediction.forces)[0][1], batch.split_atoms(expected.forces)[0][1], case.tolerance)


def tensors(value: Any, name: str = "batch") -> dict[str, torch.Tensor]:
    """All tensors in a dataclass, by name."""
    found = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if isinstance(inner, torch.Tensor):
            found[f"{name}.{field.name}"] = inner
        elif is_dataclass(inner):
            found |= tensors(inner, f"{name}.{field.name}")
    return found
