"""Errors and their intervals against plain loops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pesfit.statistics.errors import Errors, interval_of, numbers_of, pooled, resampled, summarize

FORCE, ENERGY = "kcal_per_mol_per_angstrom", "kcal_per_mol"


def make_errors(n_molecules: int = 24, n_each: int = 5, seed: int = 0) -> tuple[Errors, list[np.ndarray]]:
    """Make errors of molecules of 1 to 4 atoms, of which every third has no force labels; also return ΔF of each conformer."""
    rng = np.random.default_rng(seed)
    molecule = np.repeat(np.arange(n_molecules), n_each)
    n_atoms = 1 + molecule % 4
    forces = [rng.normal(size=0 if m % 3 == 2 else 3 * n) for m, n in zip(molecule, n_atoms, strict=True)]
    errors = Errors.of_conformers(
        molecule=molecule,
        source=(molecule >= n_molecules // 2).astype(np.int64),
        sources=("first", "second", "absent"),
        energy=rng.normal(size=len(molecule)) + molecule,
        n_components=np.array([len(f) for f in forces]),
        force_sq=np.array([(f**2).sum() for f in forces]),
        force_abs=np.array([np.abs(f).sum() for f in forces]),
        n_atoms=n_atoms,
    )
    return errors, forces


def select(errors: Errors, which: slice) -> Errors:
    """Those of some conformers."""
    changes = {name: value[which] for name, value in vars(errors).items() if isinstance(value, np.ndarray)}
    return replace(errors, **changes)


def sums_of_molecules(errors: Errors) -> Errors:
    """The same errors as stage 06 has them: two rows for each molecule, of which only sums are known."""
    part = 2 * errors.molecule + (np.arange(len(errors.molecule)) % 5 > 1)
    _, first = np.unique(part, return_index=True)
    count = np.bincount(part)
    mean = np.bincount(part, errors.energy) / count
    return Errors(
        molecule=errors.molecule[first],
        source=errors.source[first],
        sources=errors.sources,
        n_conformers=count,
        energy=mean,
        energy_scatter=np.bincount(part, (errors.energy - mean[part]) ** 2),
        n_components=np.bincount(part, errors.n_components).astype(np.int64),
        force_sq=np.bincount(part, errors.force_sq),
    )


def test_errors_are_those_of_plain_loops() -> None:
    errors, forces = make_errors()
    summary = summarize(errors)
    assert list(summary) == ["all", "first", "second"]
    for group, which in (("all", slice(None)), ("first", slice(0, 60)), ("second", slice(60, None))):
        energy, molecule, n_atoms = errors.energy[which], errors.molecule[which], select(errors, which).n_atoms
        components = np.concatenate(forces[which])
        relative = [energy[molecule == m] - energy[molecule == m].mean() for m in np.unique(molecule)]
        expected = {
            f"force_mae_{FORCE}": np.abs(components).mean(),
            f"force_rmse_{FORCE}": np.sqrt((components**2).mean()),
            f"energy_mae_{ENERGY}": np.abs(np.concatenate(relative)).mean(),
            f"energy_rmse_{ENERGY}": np.sqrt((np.concatenate(relative) ** 2).mean()),
            f"total_energy_mae_{ENERGY}": np.abs(energy).mean(),
            f"total_energy_rmse_{ENERGY}": np.sqrt((energy**2).mean()),
            f"total_energy_mae_{ENERGY}_per_atom": np.abs(energy / n_atoms).mean(),
            f"total_energy_rmse_{ENERGY}_per_atom": np.sqrt(((energy / n_atoms) ** 2).mean()),
        }
        if group == "all":
            assert pooled(errors) == pytest.approx(expected, rel=1e-12)
        by_molecule = [
            np.concatenate([f for f, m in zip(forces, errors.molecule, strict=True) if m == one]) for one in np.unique(molecule)
        ]
        expected |= {
            f"energy_mean_molecule_rmse_{ENERGY}": np.mean([np.sqrt((values**2).mean()) for values in relative]),
            f"force_mean_molecule_rmse_{FORCE}": np.mean([np.sqrt((f**2).mean()) for f in by_molecule if len(f)]),
        }
        assert {name: summary[group][name] for name in expected} == pytest.approx(expected, rel=1e-12)
        assert summary[group]["force_components"] == len(components)
        assert summary[group]["conformers"] == summary[group]["energies"] == len(energy)


def test_sums_over_molecules_give_the_same_numbers_and_intervals() -> None:
    errors, _ = make_errors()
    by_conformer, by_molecule = summarize(errors), summarize(sums_of_molecules(errors))
    for group, values in by_molecule.items():
        assert (
            {f"energy_rmse_{ENERGY}", f"force_mean_molecule_rmse_{FORCE}_interval_95"} < set(values) < set(by_conformer[group])
        )
        for name, value in values.items():
            other = by_conformer[group][name]
            assert value == (None if other is None else pytest.approx(other, rel=1e-12))


def test_intervals_are_those_of_resampled_molecules() -> None:
    errors, forces = make_errors()
    summary = summarize(errors)["all"]
    assert resampled(summary) == "molecules"
    rng = np.random.default_rng(9)
    rmse, mae = [], []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(errors.molecule == m) for m in rng.integers(24, size=24)])
        rmse.append(np.sqrt((np.concatenate([forces[i] for i in chosen]) ** 2).mean()))
        mae.append(np.abs(errors.energy[chosen]).mean())
    for name, values in ((f"force_rmse_{FORCE}", rmse), (f"total_energy_mae_{ENERGY}", mae)):
        expected = np.percentile(values, (2.5, 97.5))
        found = summary[f"{name}_interval_95"]
        assert np.allclose(found, expected, atol=0.2 * (expected[1] - expected[0]))
        assert found[0] < summary[name] < found[1]
        assert interval_of(summary, name) == found
    assert json.dumps(summary) == json.dumps(summarize(errors)["all"])


def test_few_molecules_have_no_interval_and_a_single_one_has_one_within_it() -> None:
    few = summarize(make_errors(9, 30)[0])["all"]
    assert [value for name, value in few.items() if name.endswith("_interval_95")] == [None] * 10
    assert not [name for name in few if name.endswith("_within_molecule")]
    assert (resampled(few), interval_of(few, f"force_rmse_{FORCE}")) == (None, None)
    one = summarize(make_errors(1, 300)[0])["second"]
    assert [value for name, value in one.items() if name.endswith("_interval_95")] == [None] * 10
    low, high = one[f"energy_rmse_{ENERGY}_interval_95_within_molecule"]
    assert low < one[f"energy_rmse_{ENERGY}"] < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.5 / 300), rel=0.25)  # of the root mean square of normal errors
    assert f"energy_mean_molecule_rmse_{ENERGY}_interval_95_within_molecule" not in one
    assert resampled(one) == "blocks"
    assert interval_of(one, f"energy_rmse_{ENERGY}") == [low, high]


def test_a_number_of_few_labeled_molecules_has_no_interval() -> None:
    summary = summarize(make_errors(12)[0])["all"]  # eight of them have forces
    assert summary[f"force_rmse_{FORCE}_interval_95"] is None
    assert summary[f"energy_rmse_{ENERGY}_interval_95"] is not None


def test_without_force_labels_there_are_no_force_errors() -> None:
    errors, _ = make_errors()
    zeros = np.zeros_like(errors.force_sq)
    summary = summarize(replace(errors, force_abs=zeros, force_sq=zeros, n_components=zeros.astype(np.int64)))["all"]
    assert summary["force_components"] == 0
    assert not [name for name in summary if name.startswith("force_") and name != "force_components"]
    assert summary[f"energy_mae_{ENERGY}"] > 0.0


def test_a_molecule_with_one_conformer_has_no_relative_energy() -> None:
    errors, _ = make_errors()
    summary = summarize(select(errors, slice(1)))["all"]
    assert summary[f"total_energy_mae_{ENERGY}"] == pytest.approx(abs(errors.energy[0]))
    assert (summary["conformers"], summary["energies"]) == (1, 0)
    assert not [name for name in summary if name.startswith(("energy_m", "energy_r"))]
    beside, without = summarize(select(errors, slice(4, None)))["all"], summarize(select(errors, slice(5, None)))["all"]
    assert (beside["conformers"], beside["energies"]) == (without["conformers"] + 1, without["energies"])
    for kind in ("mae", "rmse", "mean_molecule_rmse"):
        assert beside[f"energy_{kind}_{ENERGY}"] == pytest.approx(without[f"energy_{kind}_{ENERGY}"], rel=1e-12)


def test_names_are_numbered_in_their_order() -> None:
    assert numbers_of([("b", "x"), ("a", "y"), ("b", "x"), ("a", "x")]).tolist() == [2, 1, 2, 0]
