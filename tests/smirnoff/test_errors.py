"""Errors by split and source, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from pesfit.smirnoff.errors import Bootstrap, MoleculeErrors, improvement, summarise

MANY = Bootstrap(2000, 7)


def errors(n: int = 60) -> MoleculeErrors:
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 30, n).astype(float)
    energy = np.stack([counts * rng.uniform(1, 4, n), counts * rng.uniform(0.1, 1, n)])
    return MoleculeErrors(
        molecule=tuple(f"m{i}" for i in range(n)),
        source=tuple("a/x" if i % 3 else "b" for i in range(n)),
        split=tuple("train" if i < n // 2 else "test" for i in range(n)),
        n_conformers=counts,
        n_energies=counts,
        n_components=30 * counts,
        energy=energy,
        forces=90 * energy,
    )


def test_both_definitions() -> None:
    found = errors()
    summary = summarise(found, ("before", "after"), MANY)
    assert list(summary) == ["train", "test"]
    assert list(summary["train"]) == ["all", "a/x", "b"]
    inside = np.array([s == "a/x" and p == "test" for s, p in zip(found.source, found.split, strict=True)])
    after = summary["test"]["a/x"]["after"]
    square, count = found.energy[1, inside], found.n_energies[inside]
    assert after["energy_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(square.sum() / count.sum()))
    assert after["energy_mean_molecule_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(square / count).mean())
    assert after["force_rmse_kcal_per_mol_per_angstrom"] == pytest.approx(np.sqrt(3 * square.sum() / count.sum()))
    assert summary["test"]["a/x"]["molecules"] == inside.sum()
    assert summary["test"]["a/x"]["conformers"] == count.sum()


def test_intervals_agree_with_scipy() -> None:
    found = errors()
    inside = np.array([split == "train" for split in found.split])
    each = np.sqrt(found.energy[0, inside] / found.n_energies[inside])
    theirs = bootstrap(
        (each,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = summarise(found, ("before", "after"), MANY)["train"]["all"]["before"][
        "energy_mean_molecule_rmse_kcal_per_mol_interval_95"
    ]
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], rtol=0.02)


def test_same_seed_same_intervals() -> None:
    one, same, other = (summarise(errors(), ("before", "after"), Bootstrap(100, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_one_molecule_has_no_interval_and_no_forces_no_force_error() -> None:
    single = MoleculeErrors(
        ("m",), ("a",), ("test",), np.array([4.0]), np.array([4.0]), np.array([0.0]), np.array([[16.0]]), np.array([[0.0]])
    )
    values = summarise(single, ("before",), MANY)["test"]["all"]["before"]
    assert values["energy_rmse_kcal_per_mol"] == 2.0
    assert values["energy_rmse_kcal_per_mol_interval_95"] is None
    assert not any(key.startswith("force") for key in values)


def test_improvement_is_the_fraction_by_which_errors_fell() -> None:
    summary = summarise(errors(), ("before", "after"), MANY)
    found = improvement(summary, "before", "after")
    before, after = (summary["test"]["all"][label]["energy_rmse_kcal_per_mol"] for label in ("before", "after"))
    assert found["test_energy_rmse_reduction"] == pytest.approx(1 - after / before)
    assert len(found) == 8
