"""Errors and their intervals against plain loops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pesfit.statistics.errors import Bootstrap, Errors, summarise, without_intervals

BOOTSTRAP = Bootstrap(n_resamples=400, seed=3)


def make_errors(n_molecules: int = 12, n_each: int = 5, seed: int = 0) -> tuple[Errors, list[np.ndarray]]:
    """Make errors of molecules of 1 to 4 atoms, of which every third has no force labels; also return ΔF of each conformer."""
    rng = np.random.default_rng(seed)
    molecule = np.repeat(np.arange(n_molecules), n_each)
    n_atoms = 1 + molecule % 4
    forces = [rng.normal(size=0 if m % 3 == 2 else 3 * n) for m, n in zip(molecule, n_atoms, strict=True)]
    return (
        Errors(
            energy=rng.normal(size=len(molecule)) + molecule,
            force_abs=np.array([np.abs(f).sum() for f in forces]),
            force_sq=np.array([(f**2).sum() for f in forces]),
            n_components=np.array([len(f) for f in forces]),
            n_atoms=n_atoms,
            molecule=molecule,
            source=(molecule >= n_molecules // 2).astype(np.int64),
            sources=("first", "second", "absent"),
        ),
        forces,
    )


def test_errors_are_those_of_plain_loops() -> None:
    errors, forces = make_errors()
    summary = summarise(errors, BOOTSTRAP)
    assert list(summary) == ["all", "first", "second"]
    for group, which in (("all", slice(None)), ("first", slice(0, 30)), ("second", slice(30, None))):
        energy, molecule, n_atoms = errors.energy[which], errors.molecule[which], errors.n_atoms[which]
        components = np.concatenate(forces[which])
        relative = np.concatenate([energy[molecule == m] - energy[molecule == m].mean() for m in np.unique(molecule)])
        expected = {
            "force_mae_kcal_per_mol_per_angstrom": np.abs(components).mean(),
            "force_rmse_kcal_per_mol_per_angstrom": np.sqrt((components**2).mean()),
            "energy_mae_kcal_per_mol": np.abs(relative).mean(),
            "energy_rmse_kcal_per_mol": np.sqrt((relative**2).mean()),
            "total_energy_mae_kcal_per_mol": np.abs(energy).mean(),
            "total_energy_rmse_kcal_per_mol": np.sqrt((energy**2).mean()),
            "total_energy_mae_kcal_per_mol_per_atom": np.abs(energy / n_atoms).mean(),
            "total_energy_rmse_kcal_per_mol_per_atom": np.sqrt(((energy / n_atoms) ** 2).mean()),
        }
        assert {name: summary[group][name] for name in expected} == pytest.approx(expected, rel=1e-12)
        assert summary[group]["force_components"] == len(components)
        assert summary[group]["conformers"] == len(energy)
    assert without_intervals(errors) == pytest.approx({name: summary["all"][name] for name in expected}, rel=1e-12)


@pytest.mark.parametrize("n_molecules", [12, 4])
def test_intervals_are_those_of_resampled_molecules_or_conformers(n_molecules: int) -> None:
    errors, forces = make_errors(n_molecules)
    summary = summarise(errors, BOOTSTRAP)["all"]
    by_molecule = n_molecules >= 10
    assert summary["resampled"] == ("molecules" if by_molecule else "conformers")
    units = errors.molecule if by_molecule else np.arange(len(errors.molecule))
    rng = np.random.default_rng(9)
    rmse, mae = [], []
    for _ in range(2000):
        drawn = rng.integers(units.max() + 1, size=units.max() + 1)
        chosen = np.concatenate([np.flatnonzero(units == unit) for unit in drawn])
        components = np.concatenate([forces[i] for i in chosen])
        rmse.append(np.sqrt((components**2).mean()))
        mae.append(np.abs(errors.energy[chosen]).mean())
    for name, values in (("force_rmse_kcal_per_mol_per_angstrom", rmse), ("total_energy_mae_kcal_per_mol", mae)):
        expected = np.percentile(values, (2.5, 97.5))
        width = expected[1] - expected[0]
        assert np.allclose(summary[f"{name}_interval_95"], expected, atol=0.2 * width)
        assert summary[f"{name}_interval_95"][0] < summary[name] < summary[f"{name}_interval_95"][1]


def test_the_seed_alone_decides_about_intervals() -> None:
    errors, _ = make_errors()
    one, again, other = (json.dumps(summarise(errors, replace(BOOTSTRAP, seed=seed))) for seed in (3, 3, 4))
    assert one == again != other


def test_without_force_labels_there_are_no_force_errors() -> None:
    errors, _ = make_errors()
    zeros = np.zeros_like(errors.force_abs)
    summary = summarise(replace(errors, force_abs=zeros, force_sq=zeros, n_components=zeros.astype(np.int64)), BOOTSTRAP)["all"]
    assert summary["force_components"] == 0
    assert not [name for name in summary if name.startswith("force_") and name != "force_components"]
    assert summary["energy_mae_kcal_per_mol"] > 0.0


def test_one_conformer_has_no_interval() -> None:
    errors, _ = make_errors()
    summary = summarise(errors.select(np.arange(60) == 0), BOOTSTRAP)["all"]
    assert summary["total_energy_mae_kcal_per_mol"] == pytest.approx(abs(errors.energy[0]))
    assert summary["total_energy_mae_kcal_per_mol_interval_95"] is None
    assert summary["energy_mae_kcal_per_mol"] == 0.0
