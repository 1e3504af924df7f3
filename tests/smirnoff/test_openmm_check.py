"""Written force fields in OpenMM: energies, minimization, and the total energy of a short simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import ForceField
from pesfit.parameterize.assign import Pattern
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.smirnoff.export import write_offxml
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.smirnoff.openmm_check import (
    FUNCTIONAL_GROUPS,
    MAX_DRIFT,
    CheckedMolecule,
    ShortRun,
    check_in_openmm,
    minimize_and_run,
    openmm_energies,
    openmm_system,
)
from tests import openff_oracle
from tests.smirnoff.test_fit import make


@pytest.fixture(scope="module")
def sage() -> ForceField:
    return read_force_field(openff_oracle.FORCE_FIELD)[0]


def with_torsions(force_field: ForceField, k: float, ids: tuple[str, ...]) -> ForceField:
    """Set the amplitude of torsions, [kcal/mol]."""
    tables = {name: replace(table, values=table.values.copy()) for name, table in force_field.tables.items()}
    torsions = tables["ProperTorsions"]
    torsions.values[[row for row, name in enumerate(torsions.ids) if name in ids], 0] = k
    return replace(force_field, tables=tables)


def checked(path: Path, smiles: str, n_conformers: int = 1) -> CheckedMolecule:
    molecule = openff_oracle.molecule(smiles, n_conformers, 0.03)
    energies = openmm_energies(openmm_system(path.read_text(), molecule.smiles, molecule.charges), molecule.coords)
    return CheckedMolecule(molecule.smiles, molecule.charges, False, molecule.coords, energies)


def test_a_sound_force_field_minimizes_and_keeps_its_energy(sage: ForceField, tmp_path: Path) -> None:
    path = tmp_path / "a.offxml"
    write_offxml(path, sage, with_torsions(sage, 1.1, ("t1", "t2", "t3")))
    found = check_in_openmm(path, sage.offxml, [checked(path, "CC(=O)NC", 2), checked(path, "C#CCCO")])
    assert (found.n_molecules, found.largest_difference, found.not_minimized) == (2, 0.0, 0)
    assert 0.0 < found.largest_drift < MAX_DRIFT / 2.0


def test_other_energies_than_those_of_the_fit_are_noticed(sage: ForceField, tmp_path: Path) -> None:
    path = tmp_path / "a.offxml"
    write_offxml(path, sage, sage)
    molecule = checked(path, "CCO")
    with pytest.raises(ForceFieldError, match=r"OpenMM's energy of \[.*\] differs by 2.0e-05 kcal/mol"):
        check_in_openmm(path, sage.offxml, [replace(molecule, energies=molecule.energies + 2e-5)])


def test_a_molecule_that_does_not_minimize_is_named(sage: ForceField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.offxml"
    write_offxml(path, sage, with_torsions(sage, 1.1, ("t1",)))
    molecule = checked(path, "CCO")
    left = [minimize_and_run(openmm_system(text, molecule.smiles, molecule.charges), molecule.coords[0]).left_force
            for text in (path.read_text(), sage.offxml)]  # fmt: skip
    monkeypatch.setattr("pesfit.smirnoff.openmm_check._N_ITERATIONS", 1)
    assert max(left) < 0.05
    found = check_in_openmm(path, sage.offxml, [molecule])
    assert (found.not_minimized, found.largest_drift) == (1, 0.0)
    sound = ShortRun(0.01, 0.001)
    runs = iter([ShortRun(3.0e4, 1.0), sound])
    monkeypatch.setattr("pesfit.smirnoff.openmm_check.minimize_and_run", lambda *_: next(runs))
    with pytest.raises(
        ForceFieldError, match=r"\[H:6\] does not minimize in OpenMM: forces of 3.0e\+04 kcal/mol/Å are left, 1.0e-02 w"
    ):
        check_in_openmm(path, sage.offxml, [molecule])


@pytest.mark.parametrize("smiles", ["CC#C", "C#CCCO", "CC#CC", "C#CC#C"])
def test_torsions_about_straight_angles_are_noticed_and_the_molecule_is_named(
    sage: ForceField, tmp_path: Path, smiles: str
) -> None:
    """Energies agree to the last digits: only a minimization and dynamics tell."""
    path = tmp_path / "a.offxml"
    write_offxml(path, sage, with_torsions(sage, -0.2, ("t165", "t166")))
    molecule = checked(path, smiles)
    with pytest.raises(
        ForceFieldError, match=r"does not minimize in OpenMM: forces of |the total energy of .* drifts by "
    ) as raised:
        check_in_openmm(path, sage.offxml, [molecule])
    assert molecule.smiles in str(raised.value)
    found = check_in_openmm(path, path.read_text(), [molecule])  # the starting force field does no better
    assert found.not_minimized == 1 or found.largest_drift > MAX_DRIFT


def test_an_energy_that_drifts_is_noticed(sage: ForceField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bonds five times as stiff are too fast for the time step."""
    bonds = sage.tables["Bonds"]
    values = bonds.values * np.where(np.arange(2) == bonds.columns.index("k"), 5.0, 1.0)
    stiff = replace(sage, tables={**sage.tables, "Bonds": replace(bonds, values=values)})
    path = tmp_path / "a.offxml"
    write_offxml(path, sage, stiff)
    molecule = checked(path, "CCO")
    found, before = (
        minimize_and_run(openmm_system(text, molecule.smiles, molecule.charges), molecule.coords[0])
        for text in (path.read_text(), sage.offxml)
    )
    assert found.minimized
    assert before.drift < found.drift
    monkeypatch.setattr("pesfit.smirnoff.openmm_check.MAX_DRIFT", 0.5 * (before.drift + found.drift))
    with pytest.raises(ForceFieldError, match=r"total energy of .* drifts by .* with the starting force field"):
        check_in_openmm(path, sage.offxml, [molecule])


def test_coordinates_that_become_infinite_are_a_result(sage: ForceField) -> None:
    molecule = openff_oracle.molecule("CCO")
    coords: FloatArray = molecule.coords[0].copy()
    coords[0] = np.nan
    found = minimize_and_run(openmm_system(sage.offxml, molecule.smiles, molecule.charges), coords)
    assert not found.minimized
    assert found.drift == np.inf


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CC#C", {"alkyne", "alkyl"}),
        ("CCC#N", {"nitrile", "alkyl"}),
        ("C=C=C", {"other linear"}),
        ("CN=[N+]=[N-]", {"azide or diazo", "alkyl", "other linear"}),
        ("COP(=O)(OC)OC", {"phosphorus", "alkyl"}),
        ("CS(=O)(=O)C", {"sulfonyl or sulfoxide", "alkyl"}),
        ("CSC", {"thiol or sulfide", "alkyl"}),
        ("C[N+](=O)[O-]", {"nitro", "alkyl"}),
        ("CC(=O)[O-]", {"acid or carboxylate", "alkyl"}),
        ("CC(=O)OC", {"ester", "alkyl"}),
        ("CC(=O)NC", {"amide or urea", "alkyl"}),
        ("CC(C)=O", {"aldehyde or ketone", "alkyl"}),
        ("C[NH3+]", {"ammonium", "alkyl"}),
        ("CNC", {"amine", "alkyl"}),
        ("c1ccncc1", {"aromatic ring with a heteroatom", "aromatic ring"}),
        ("CF", {"halide", "alkyl"}),
        ("CCO", {"alcohol", "alkyl"}),
        ("COC", {"ether", "alkyl"}),
        ("C1CC1", {"small ring", "alkyl"}),
    ],
)
def test_functional_groups(smiles: str, groups: set[str]) -> None:
    mol = read_mapped_smiles(mapped_smiles(Chem.AddHs(Chem.MolFromSmiles(smiles))))
    assert {name for name, smarts in FUNCTIONAL_GROUPS.items() if Pattern(smarts, 1).matches(mol)} == groups


LINEAR = ("CC#C", "C#CCCO", "CCC#N", "CC#CC", "C#CC#C")


@pytest.mark.slow
def test_fitted_alkynes_and_nitriles_minimize_and_drift_no_more_than_before(tmp_path: Path) -> None:
    """Largest drift of three runs of 4 ps, from the exported files alone; runs differ by their velocities."""
    data = make(tmp_path / "data", noise=1.0, names=(*LINEAR, "CCO"))
    scratch = tmp_path / "scratch"
    metrics = fit_smirnoff(
        data.datasets, data.parameterized, data.splits, FitSmirnoff(shards=2), tmp_path / "out", scratch=scratch
    )
    assert metrics["parameters"]["moved"] > 20
    after = (tmp_path / "out" / "force-field.offxml").read_text()
    for smiles, record in zip(LINEAR, data.datasets["made"], strict=False):
        assert record.smiles is not None
        found, before = (
            [
                minimize_and_run(openmm_system(text, record.smiles, charges), record.coords[0], n_steps=8000, seed=seed)
                for seed in (1, 2, 3)
            ]
            for text, charges in ((after, None), (data.parameterized.force_field.offxml, record.charges))
        )
        assert all(run.minimized for run in (*found, *before)), smiles
        assert max(run.drift for run in found) < 2.0 * max(run.drift for run in before) + 0.002, smiles
