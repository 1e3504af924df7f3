"""The map from parameters to coefficients, where tests of the loss do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.params.fit_smirnoff import Gradient, RelativeColumn, Train, TrainVdW
from pesfit.smirnoff.gradient.coefficients import Coefficients, PairIndex, TrainedCharges, check_trained, equivalence_classes
from pesfit.smirnoff.parameters import Layout
from tests.smirnoff.gradient.samples import TRAIN_ALL, molecules, random_z, setting_of
from tests.smirnoff.samples import Sample, perturbation, sample


@pytest.fixture(scope="module")
def found() -> Sample:
    return molecules()


def test_start_has_no_coefficients_and_is_the_starting_force_field(found: Sample) -> None:
    coefficients = setting_of(found, TRAIN_ALL).coefficients
    z = np.zeros(coefficients.n_parameters)
    assert not coefficients.at(z).values.any()
    for handler, table in coefficients.force_field(z).tables.items():
        np.testing.assert_array_equal(table.values, found.force_field.tables[handler].values)


def test_a_vector_of_the_exact_fit_is_found_again(found: Sample) -> None:
    layout = Layout.of(found.force_field, Train())
    coefficients = Coefficients(layout, found.force_field, Gradient(), TrainedCharges(), with_constants=False)
    x = perturbation(layout)
    np.testing.assert_allclose(coefficients.at(coefficients.from_valence(x)).values, x, rtol=1e-12, atol=1e-12)


def test_slopes_are_those_of_the_values(found: Sample) -> None:
    coefficients = setting_of(found, TRAIN_ALL).coefficients
    z = random_z(setting_of(found, TRAIN_ALL), 5)
    jacobian = coefficients.jacobian(coefficients.at(z)).toarray()
    for entry in range(0, len(z), 3):
        step = np.zeros(len(z))
        step[entry] = 1e-6
        numerical = (coefficients.at(z + step).values - coefficients.at(z - step).values) / 2e-6
        np.testing.assert_allclose(jacobian[:, entry], numerical, rtol=1e-6, atol=1e-6)
    gradient = np.random.default_rng(0).normal(size=coefficients.n_coefficients)
    np.testing.assert_allclose(coefficients.pulled(coefficients.at(z), gradient), jacobian.T @ gradient, rtol=1e-10, atol=1e-10)


def test_prior_is_that_of_the_exact_fit_with_its_curvature(found: Sample) -> None:
    setting = setting_of(found, TRAIN_ALL)
    coefficients, layout = setting.coefficients, setting.layout
    z = random_z(setting, 2)
    point = coefficients.at(z)
    value, _ = coefficients.prior(point)
    x = point.values[: len(layout)]
    expected = np.sum((x / layout.prior().widths) ** 2) + np.sum(z[len(layout) :] ** 2)
    assert value == pytest.approx(expected, rel=1e-12)
    curvature = coefficients.prior_curvature(coefficients.at(np.zeros(len(z))))
    direction = np.random.default_rng(1).normal(size=len(z)) * 1e-4
    assert direction @ curvature @ direction == pytest.approx(coefficients.prior(coefficients.at(direction))[0], rel=1e-3)


def test_a_spring_of_no_strength_gets_the_length_at_which_it_would_grow(found: Sample) -> None:
    """At k = 0 no length changes anything; in (k, m) there is still a way down along one of the two springs."""
    setting = setting_of(found, Gradient())
    coefficients, layout = setting.coefficients, setting.layout
    partners = layout.partners()
    shift = int(np.flatnonzero(layout.is_shift & (partners >= 0))[0])
    k = int(partners[shift])
    z = np.zeros(coefficients.n_parameters)
    z[k] = -layout.k[k] / layout.column(k).prior_width
    number = int(np.flatnonzero(coefficients.shifts == shift)[0])
    pull, slope = np.zeros(len(coefficients.shifts)), np.zeros(len(z))
    slope[k] = 0.1  # k would not grow at the present length
    for force, end in ((1e6, coefficients.lower[shift]), (-1e6, coefficients.upper[shift])):
        pull[number] = force
        freed = coefficients.freed(z, slope, pull)
        assert freed[shift] == end
        assert (np.delete(freed, shift) == np.delete(z, shift)).all()
        np.testing.assert_allclose(coefficients.at(freed).values, coefficients.at(z).values, atol=1e-9)
    pull[number] = 1e-9
    np.testing.assert_array_equal(coefficients.freed(z, slope, pull), z)


def test_equivalent_atoms_are_one_class() -> None:
    """Classes by hand: benzene has two, ethanol's methyl three alike, a carboxylate's oxygens are alike."""
    for smiles, n_classes in (("c1ccccc1", 2), ("CCO", 6), ("CC(=O)[O-]", 4), ("CC#N", 4)):
        (topology,) = sample((smiles,), 1).topologies
        assert equivalence_classes(topology).max() + 1 == n_classes, smiles


def test_pairs_of_types_are_numbered_in_either_order() -> None:
    index = PairIndex(np.array([0, 1, 0, 1]))
    assert len(index) == 7  # all ten but (0, 0), (0, 2) and (2, 2)
    one, other, neither = index.numbers(np.array([1, 3, 0]), np.array([3, 1, 2]))
    assert one == other >= 0
    assert neither == -1


def test_only_types_that_are_used_and_positive_are_trained(found: Sample) -> None:
    table = found.force_field.tables["vdW"]
    used = np.flatnonzero((table.uses > 0) & (table.values > 0).all(axis=1))
    params = Gradient(vdw=TrainVdW(epsilon=RelativeColumn(train=True), exclude=(table.smirks[used[0]],)))
    layout = Layout.of(found.force_field, Train())
    coefficients = Coefficients(layout, found.force_field, params, TrainedCharges(), with_constants=False)
    assert coefficients.n_parameters - len(layout) == len(used) - 1 > 0
    with pytest.raises(ParamsError, match=r"gradient.vdw.include: 'n999'"):
        Coefficients(
            layout, found.force_field, Gradient(vdw=TrainVdW(include=("n999",))), TrainedCharges(), with_constants=False
        )


def test_levenberg_marquardt_is_refused_for_very_many_parameters() -> None:
    check_trained(Gradient(optimizer="lbfgs"), 100_000)
    with pytest.raises(ParamsError, match="expected at most 3000"):
        check_trained(Gradient(optimizer="lm"), 3001)
