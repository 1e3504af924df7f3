"""The exact fit on problems whose answer is known from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.optimize import minimize

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, ParamsError
from pesfit.params.fit_smirnoff import (
    AngleAngle,
    AngleK,
    BondK,
    BondLength,
    FitSmirnoff,
    Objective,
    Train,
    TrainAngles,
    TrainBonds,
)
from pesfit.smirnoff.exact.accumulate import FitEquations, assemble, constants
from pesfit.smirnoff.exact.molecule_statistics import MoleculeInSplit, MoleculeStatistics, ShardStatistics
from pesfit.smirnoff.exact.solve import ExactFit, fit_exactly
from pesfit.smirnoff.exact.training_set import TrainingSet
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout
from pesfit.statistics.normal_equations import ENERGIES, FORCES
from tests.smirnoff.samples import Sample, evaluate, perturbation, sample

NOISE = 0.5


@pytest.fixture(scope="module")
def molecules() -> Sample:
    return sample(("CCO", "CC#N", "CC(=O)NC", "C=CC=O"), n_conformers=12)


def shard(molecules: Sample, layout: Layout, x: FloatArray, noise: float = 0.0, offset: float = 0.0) -> ShardStatistics:
    """Labels from the force field at x; every other conformer is for validation."""
    rng = np.random.default_rng(2)
    changed, entries = layout.apply(molecules.force_field, x), []
    for i, (topology, coords) in enumerate(zip(molecules.topologies, molecules.coords, strict=True)):
        energy, forces = evaluate(changed, topology, coords)
        energy, forces = energy + offset + noise * rng.normal(size=energy.shape), forces + noise * rng.normal(size=forces.shape)
        features = MoleculeFeatures(topology, molecules.force_field, layout)
        for split, part in (("train", slice(0, None, 2)), ("validation", slice(1, None, 2))):
            statistics = MoleculeStatistics.of(features, coords[part], energy[part], forces[part])
            entries.append(MoleculeInSplit(f"set/{i}", "a/b" if i % 2 else "c", split, statistics, statistics))
    return ShardStatistics(tuple(entries), ())


def fit(data: ShardStatistics, layout: Layout, params: FitSmirnoff) -> tuple[FitEquations, ExactFit]:
    problem = assemble([data], layout, params.objective, ("train", "validation"))
    return problem, fit_exactly(problem, TrainingSet(lambda: [data], params.objective, {}, len(layout)), params)


def test_optimum_beats_what_a_general_optimiser_finds(molecules: Sample) -> None:
    train = Train(bonds=TrainBonds(k=BondK(lower=400.0, upper=2700.0, prior_width=50.0)))
    layout = Layout.of(molecules.force_field, train)
    x = perturbation(layout, size=1.0)
    problem, found = fit(
        shard(molecules, layout, x, NOISE), layout, FitSmirnoff(molecule_strength=None, train=train, prior_strength=0.01)
    )
    widths, bounds = layout.prior().widths, layout.constraints()
    moments = problem.equations["train"].weighted({ENERGIES: 5.0, FORCES: 1.0})

    def penalized(z: FloatArray) -> tuple[float, FloatArray]:
        gradient = 2 * (moments.gram @ (widths * z) - moments.moment) * widths + 0.02 * z
        return moments.sum_of_squares(widths * z) + 0.01 * z @ z, gradient

    inequality = {
        "type": "ineq",
        "fun": lambda z: bounds.matrix @ (widths * z) - bounds.lower,
        "jac": lambda _: bounds.matrix * widths,
    }
    theirs = minimize(penalized, np.zeros(len(x)), jac=True, method="SLSQP", constraints=[inequality], options={"maxiter": 300})
    ours = penalized(found.posterior.x / widths)[0]
    assert ours <= theirs.fun * (1 + 1e-9)
    assert found.posterior.optimum.kkt.worst < 1e-8
    assert (bounds.matrix @ found.posterior.x >= bounds.lower - 1e-8).all()


def test_noiseless_labels_are_recovered(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    x = perturbation(layout)
    problem, found = fit(shard(molecules, layout, x), layout, FitSmirnoff(molecule_strength=None, prior_strength="evidence"))
    widths = layout.prior().widths
    error = np.abs(found.posterior.x - x) / widths
    assert found.posterior.determined.sum() > 0.8 * len(layout)
    assert error[found.posterior.determined].max() < 5e-5
    start = sum(problem.sums_of_squares("validation", np.zeros(len(layout))).values())
    assert sum(problem.sums_of_squares("validation", found.posterior.x).values()) < 1e-12 * start


def test_without_energy_zero_the_constants_count(molecules: Sample) -> None:
    """Absolute energies say something of the constants of harmonic terms; the fit must take them into account."""
    layout = Layout.of(molecules.force_field, Train())
    x = perturbation(layout)
    params = FitSmirnoff(molecule_strength=None, objective=Objective(energy_zero="none"), prior_strength=1e-9)
    problem, found = fit(shard(molecules, layout, x), layout, params)
    assert not problem.is_linear
    start = problem.sums_of_squares("train", np.zeros(len(layout)))
    end = problem.sums_of_squares("train", found.posterior.x)
    assert all(end[kind] < 1e-10 * start[kind] for kind in (ENERGIES, FORCES))


def test_sum_of_squares_without_energy_zero_is_that_of_absolute_energies(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    x = perturbation(layout, seed=5)
    objective = Objective(energy_zero="none", normalization="sum", source_weights={"a": 3.0})
    problem = assemble([shard(molecules, layout, np.zeros(len(layout)), offset=2.0)], layout, objective, ("train",))
    expected = 0.0
    for i, (topology, coords) in enumerate(zip(molecules.topologies, molecules.coords, strict=True)):
        label, _ = evaluate(molecules.force_field, topology, coords[::2])
        energy, _ = evaluate(layout.apply(molecules.force_field, x), topology, coords[::2])
        expected += (3.0 if i % 2 else 1.0) * np.sum((energy - label - 2.0) ** 2)
    assert problem.sums_of_squares("train", x)[ENERGIES] == pytest.approx(expected, rel=1e-9)
    linearised = problem.linearised("train", x)[ENERGIES]
    assert linearised.sum_of_squares(x) == pytest.approx(expected, rel=1e-9)


def test_constants_have_the_derivatives_they_say(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    x = perturbation(layout)
    value, jacobian = constants(layout, x)
    assert value.max() > 0.0
    for i in range(0, len(layout), 7):
        moved = np.zeros(len(x))
        moved[i] = 1e-5 * max(1.0, abs(x[i]))
        numerical = (constants(layout, x + moved)[0] - constants(layout, x - moved)[0]) / (2 * moved[i])
        np.testing.assert_allclose(jacobian[:, i], numerical, rtol=1e-6, atol=1e-9)


def test_normalisations_weigh_molecules_as_documented(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    data = shard(molecules, layout, perturbation(layout))
    plain = {e.molecule: e.plain.error_sums(np.zeros(len(layout)))[1:] for e in data.entries if e.split == "train"}
    atoms = {e.molecule: e.plain.n_atoms for e in data.entries}
    for name, energy, force in (
        ("sum", lambda _: 1.0, lambda _: 1.0),
        ("component", lambda _: 1.0, lambda m: 1 / (3 * atoms[m])),
        ("molecule", lambda _: 1 / 6, lambda m: 1 / (18 * atoms[m])),
    ):
        problem = assemble([data], layout, Objective(normalization=name), ("train",))  # type: ignore[arg-type]
        found = problem.sums_of_squares("train", np.zeros(len(layout)))
        assert found[ENERGIES] == pytest.approx(sum(energy(m) * value[0] for m, value in plain.items()), rel=1e-10)
        assert found[FORCES] == pytest.approx(sum(force(m) * value[1] for m, value in plain.items()), rel=1e-10)


def test_strength_by_validation_is_the_best_of_the_path(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    data = shard(molecules, layout, perturbation(layout), noise=5.0)
    problem, found = fit(data, layout, FitSmirnoff(molecule_strength=None, prior_strength="validation"))

    def weighted(parts: Mapping[str, float]) -> float:
        return sum(found.weights[kind] * part for kind, part in parts.items())

    best = weighted(problem.sums_of_squares("validation", found.posterior.x))
    assert best <= min(weighted(point.validation) for point in found.path) * (1 + 1e-9)
    gammas = [point.effective_parameters for point in found.path]
    assert gammas == sorted(gammas, reverse=True)
    errors = [weighted(point.train) for point in found.path]
    assert errors == sorted(errors)


def test_error_bars_are_larger_where_molecules_disagree(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train(angles=TrainAngles(k=AngleK(train=False), angle=AngleAngle(train=False))))
    agreeing = fit(
        shard(molecules, layout, perturbation(layout), noise=1.0),
        layout,
        FitSmirnoff(molecule_strength=None, prior_strength="evidence"),
    )[1]
    entries = []
    for i in range(4):  # each molecule has its own truth
        entries += shard(molecules, layout, perturbation(layout, seed=i), noise=1.0).entries[2 * i : 2 * i + 2]
    disagreeing = fit(
        ShardStatistics(tuple(entries), ()), layout, FitSmirnoff(molecule_strength=None, prior_strength="evidence")
    )[1]
    assert agreeing.redundancy < 3.0
    assert disagreeing.redundancy > 2.0 * agreeing.redundancy


def test_what_cannot_be_chosen_is_refused(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    data = shard(molecules, layout, perturbation(layout), noise=1.0)
    alone = ShardStatistics(tuple(e for e in data.entries if e.split == "train"), ())
    with pytest.raises(DataError, match="validation set is empty"):
        fit(alone, layout, FitSmirnoff(molecule_strength=None, prior_strength="validation"))
    with pytest.raises(ParamsError, match="force_weight"):
        fit(data, layout, FitSmirnoff(molecule_strength=None, objective=Objective(energy_weight="evidence", force_weight=0.0)))


def test_balance_by_evidence_depends_on_the_noise(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    data = shard(molecules, layout, perturbation(layout), noise=1.0)
    objective = Objective(energy_weight="evidence", normalization="sum")
    _, found = fit(data, layout, FitSmirnoff(molecule_strength=None, objective=objective))
    assert 0.2 < found.weights[ENERGIES] < 5.0  # the noise of energies and forces is the same here


def test_leaving_a_molecule_out_is_fitting_the_others(molecules: Sample) -> None:
    """Without bounds, to the last digits, from the statistics of one fit."""
    train = Train(
        bonds=TrainBonds(k=BondK(lower=None), length=BondLength(lower=None, largest_change=None)),
        angles=TrainAngles(k=AngleK(lower=None), angle=AngleAngle(lower=None, upper=None, largest_change=None)),
    )
    layout = Layout.of(molecules.force_field, train)
    data, params = shard(molecules, layout, perturbation(layout), noise=5.0), FitSmirnoff(train=train, prior_strength=5.0)
    found = fit(data, layout, params)[1].left_out
    assert found is not None
    squares: dict[str, list[float]] = {ENERGIES: [], FORCES: []}
    for i in range(len(molecules.topologies)):
        others = ShardStatistics(tuple(e for e in data.entries if e.molecule != f"set/{i}"), ())
        alone = ShardStatistics(tuple(e for e in data.entries if e.molecule == f"set/{i}"), ())
        x = fit(others, layout, params)[1].posterior.x
        parts = assemble([alone], layout, params.objective, ("train",)).sums_of_squares("train", x)
        for kind, part in parts.items():
            squares[kind].append(part)
    for kind, parts in squares.items():
        assert found.left_out[kind] == pytest.approx(np.sqrt(np.mean(parts)), rel=1e-6)
        assert found.fitted[kind] < found.left_out[kind]


def test_own_parameters_of_molecules_explain_their_disagreement(molecules: Sample) -> None:
    """Fitted to molecules with truths of their own, shared parameters are nearer to the truths' mean, and what is left agrees."""
    layout = Layout.of(molecules.force_field, Train())
    entries, truths = [], []
    for i in range(4):
        truths.append(perturbation(layout, seed=i))
        entries += shard(molecules, layout, truths[-1], noise=0.1).entries[2 * i : 2 * i + 2]
    data = ShardStatistics(tuple(entries), ())
    pooled, mixed = (
        fit(data, layout, FitSmirnoff(prior_strength="evidence", molecule_strength=strength))[1] for strength in (None, 1.0)
    )
    assert mixed.redundancy < pooled.redundancy
    assert mixed.left_out is not None
    assert pooled.left_out is not None
    for kind in (ENERGIES, FORCES):
        assert mixed.left_out.left_out[kind] < pooled.left_out.left_out[kind]


def test_strength_by_molecules_is_the_best_for_molecules_left_out(molecules: Sample) -> None:
    layout = Layout.of(molecules.force_field, Train())
    data = shard(molecules, layout, perturbation(layout), noise=5.0)
    best, *others = (
        fit(data, layout, FitSmirnoff(prior_strength=strength))[1] for strength in ("molecules", "evidence", 1e-2, 1e4)
    )
    assert best.left_out is not None
    for other in others:
        assert other.left_out is not None
        assert best.left_out.objective < other.left_out.objective * (1 + 1e-6)
