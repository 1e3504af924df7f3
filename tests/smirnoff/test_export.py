"""Writing a fitted force field back."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openff.toolkit import ForceField as ToolkitForceField
from openmm import unit

from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import BONDED_HANDLERS, ForceField
from pesfit.parameterize.force_field import read_force_field
from pesfit.smirnoff.export import check_offxml, write_constrained, write_offxml
from pesfit.smirnoff.openmm_check import openmm_system
from pesfit.smirnoff.parameters import add_periodicities
from tests import openff_oracle


@pytest.fixture(scope="module")
def sage() -> ForceField:
    return read_force_field(openff_oracle.FORCE_FIELD)[0]


def changed(force_field: ForceField, handler: str, row: int, column: int, value: float) -> ForceField:
    tables = {name: replace(table, values=table.values.copy()) for name, table in force_field.tables.items()}
    tables[handler].values[row, column] = value
    return replace(force_field, tables=tables)


def perturbed(force_field: ForceField) -> ForceField:
    """Change every k, length and angle."""
    rng = np.random.default_rng(0)
    tables = {name: replace(table, values=table.values.copy()) for name, table in force_field.tables.items()}
    for handler in BONDED_HANDLERS:
        values = tables[handler].values
        n_columns = 1 if handler.endswith("Torsions") else 2
        values[:, :n_columns] *= rng.uniform(0.9, 0.99, size=(len(values), n_columns))
    return replace(force_field, tables=tables)


def attributes(path_or_text: Path | str) -> list[tuple[str, dict[str, str]]]:
    root = ET.parse(path_or_text).getroot() if isinstance(path_or_text, Path) else ET.fromstring(path_or_text)
    return [(element.tag, dict(element.attrib)) for element in root.iter()]


def test_unchanged_force_field_keeps_every_attribute(sage: ForceField, tmp_path: Path) -> None:
    write_offxml(tmp_path / "a.offxml", sage, sage)
    assert attributes(tmp_path / "a.offxml") == attributes(sage.offxml)
    check_offxml(tmp_path / "a.offxml", sage, sage)


def test_all_values_come_back_to_the_last_digits(sage: ForceField, tmp_path: Path) -> None:
    fitted = perturbed(sage)
    write_offxml(tmp_path / "a.offxml", sage, fitted)
    check_offxml(tmp_path / "a.offxml", sage, fitted)
    found, _ = read_force_field(str(tmp_path / "a.offxml"))
    for handler in BONDED_HANDLERS:
        np.testing.assert_allclose(found.tables[handler].values, fitted.tables[handler].values, rtol=4e-16)


def test_van_der_waals_parameters_are_written_as_the_file_had_them(sage: ForceField, tmp_path: Path) -> None:
    """The file gives rmin_half = 2^(1/6)/2 sigma; the fit trains sigma."""
    values = sage.tables["vdW"].values
    fitted = changed(changed(sage, "vdW", 3, 0, 1.1 * values[3, 0]), "vdW", 5, 1, 0.97 * values[5, 1])
    write_offxml(tmp_path / "a.offxml", sage, fitted)
    check_offxml(tmp_path / "a.offxml", sage, fitted)
    differing = [
        (key, old[key], new[key])
        for (_, old), (_, new) in zip(attributes(sage.offxml), attributes(tmp_path / "a.offxml"), strict=True)
        for key in old
        if old[key] != new[key]
    ]
    assert [key for key, _, _ in differing] == ["epsilon", "rmin_half"]
    for (_, old, new), factor in zip(differing, (1.1, 0.97), strict=True):
        assert float(new.split()[0]) == pytest.approx(factor * float(old.split()[0]), rel=1e-12)
    with pytest.raises(ForceFieldError, match="vdW"):
        write_offxml(tmp_path / "b.offxml", sage, changed(sage, "vdW", 3, 0, float("nan")))


def test_one_change_touches_one_attribute_and_keeps_its_unit(sage: ForceField, tmp_path: Path) -> None:
    write_offxml(tmp_path / "a.offxml", sage, changed(sage, "Angles", 4, 1, 2.0))
    different = [
        (key, old[key], new[key])
        for (_, old), (_, new) in zip(attributes(sage.offxml), attributes(tmp_path / "a.offxml"), strict=True)
        for key in old
        if old[key] != new[key]
    ]
    assert len(different) == 1
    key, _, new = different[0]
    assert key == "angle"
    assert new.endswith(" * degree")
    assert float(new.split()[0]) == pytest.approx(np.degrees(2.0), rel=1e-15)


def test_a_file_with_other_values_is_noticed(sage: ForceField, tmp_path: Path) -> None:
    write_offxml(tmp_path / "other.offxml", sage, perturbed(sage))
    with pytest.raises(ForceFieldError, match=r"Bonds .* came back as"):
        check_offxml(tmp_path / "other.offxml", sage, sage)


def test_added_periodicities_follow_their_torsion(sage: ForceField, tmp_path: Path) -> None:
    n_rows = len(sage.tables["ProperTorsions"].smirks)
    extended = add_periodicities(sage, np.arange(n_rows) < 6, (1, 2, 3, 4)).force_field
    fitted = changed(extended, "ProperTorsions", n_rows + 1, 0, -0.25)  # the others stay at 0 and are not written
    write_offxml(tmp_path / "a.offxml", sage, fitted)
    check_offxml(tmp_path / "a.offxml", sage, fitted)
    found = read_force_field(str(tmp_path / "a.offxml"))[0].tables["ProperTorsions"]
    assert len(found.smirks) == n_rows + 1
    row = next(i for i in range(len(found.smirks)) if found.values[i, 0] == -0.25)
    np.testing.assert_allclose(found.values[row], fitted.tables["ProperTorsions"].values[n_rows + 1], rtol=1e-15)


@pytest.mark.parametrize(("column", "value"), [(0, np.nan), (1, 2.9999999)])
def test_what_must_not_be_written_is_refused(sage: ForceField, tmp_path: Path, column: int, value: float) -> None:
    with pytest.raises(ForceFieldError, match="cannot be written"):
        write_offxml(tmp_path / "a.offxml", sage, changed(sage, "ProperTorsions", 0, column, value))


def test_constrained_twin_differs_as_the_official_one_does(sage: ForceField, tmp_path: Path) -> None:
    write_offxml(tmp_path / "free.offxml", sage, sage, comment="made by a test -- of --- comments -")
    write_constrained(tmp_path / "held.offxml", tmp_path / "free.offxml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        official = ToolkitForceField("openff-2.1.0.offxml").to_string()
        assert ToolkitForceField(str(tmp_path / "held.offxml")).to_string() == official
        assert ToolkitForceField(str(tmp_path / "free.offxml")).to_string() != official
    assert "made by a test - - of - - - comments -\n" in (tmp_path / "held.offxml").read_text()
    text = (tmp_path / "free.offxml").read_text().replace("Constraints", "Other")
    with pytest.raises(ForceFieldError, match="fixes bonds to hydrogen"):
        read_force_field(str(tmp_path / "held.offxml"))
    bare = ET.fromstring(text)
    bare.remove(bare.find("Other"))  # type: ignore[arg-type]
    (tmp_path / "bare.offxml").write_text(ET.tostring(bare, encoding="unicode"))
    write_constrained(tmp_path / "held.offxml", tmp_path / "bare.offxml")
    with pytest.raises(ForceFieldError, match="fixes bonds to hydrogen"):
        read_force_field(str(tmp_path / "held.offxml"))


def test_constrained_twin_takes_steps_of_two_femtoseconds(sage: ForceField, tmp_path: Path) -> None:
    """In NVE the total energy scatters by 0.04 kcal/mol with bonds to hydrogen held, and by 0.13 kcal/mol without."""
    molecule = openff_oracle.molecule("CCO")
    write_offxml(tmp_path / "free.offxml", sage, perturbed(sage))
    write_constrained(tmp_path / "held.offxml", tmp_path / "free.offxml")
    spread = {}
    for name in ("free", "held"):
        system = openmm_system((tmp_path / f"{name}.offxml").read_text(), molecule.smiles, molecule.charges)
        integrator = openmm.VerletIntegrator(0.002)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(molecule.coords[0] * 0.1)
        openmm.LocalEnergyMinimizer.minimize(context, 0.1)
        context.setVelocitiesToTemperature(300.0, 1)
        energies = []
        for _ in range(250):
            integrator.step(2)
            state = context.getState(getEnergy=True)
            energies.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilocalorie_per_mole))
        spread[name] = np.std(energies)
    assert spread["held"] < 0.08
    assert spread["free"] > 0.1
