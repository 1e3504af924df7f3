"""Numbers of a force field against its XML, and what is refused."""

from __future__ import annotations

import re
from math import pi
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import COLUMNS
from pesfit.parameterize.force_field import read_force_field
from tests.parameterize.offxml import SECTIONS, write_offxml

TAGS = {"Bonds": "Bond", "Angles": "Angle", "ProperTorsions": "Proper", "ImproperTorsions": "Improper", "vdW": "Atom"}


@pytest.mark.parametrize("name", ["openff_unconstrained-2.1.0.offxml", "openff_unconstrained-2.3.0.offxml"])
def test_tables_hold_every_parameter_of_the_file(name: str) -> None:
    """The numbers, read from the XML without the toolkit; Sage writes kcal/mol, Å and degrees."""
    force_field, patterns = read_force_field(name)
    root = ET.fromstring(force_field.offxml)
    factors = {"k": 1.0, "length": 1.0, "angle": pi / 180, "phase": pi / 180, "epsilon": 1.0, "periodicity": 1.0}
    for handler, tag in TAGS.items():
        table = force_field.tables[handler]
        elements = root.findall(f"{handler}/{tag}")
        rows = [
            (element, mult)
            for element in elements
            for mult in range(max(1, sum("periodicity" in key for key in element.attrib)))
        ]
        assert table.smirks == tuple(element.attrib["smirks"] for element, _ in rows)
        assert table.ids == tuple(element.attrib["id"] for element, _ in rows)
        assert table.mult.tolist() == [mult for _, mult in rows]
        for column, factor in factors.items():
            if column in table.columns:
                suffix = [f"{column}{mult + 1}" if "Torsions" in handler else column for _, mult in rows]
                expected = [
                    float(element.attrib[key].split()[0]) * factor for (element, _), key in zip(rows, suffix, strict=True)
                ]
                np.testing.assert_allclose(table.values[:, table.columns.index(column)], expected, rtol=1e-15)
        section = next(section for section in patterns.sections if section.handler == handler)
        assert section.smirks == tuple(element.attrib["smirks"] for element in elements)
        assert sum(n_rows for _, n_rows in section.rows) == len(rows)
    idivf = [
        float(element.attrib[f"idivf{n}"]) for element in root.iter("Proper") for n in range(1, 7) if f"k{n}" in element.attrib
    ]
    assert force_field.tables["ProperTorsions"].values[:, 3].tolist() == idivf
    assert set(force_field.tables["ImproperTorsions"].values[:, 3]) == {3.0}
    assert (force_field.vdw_scale_14, force_field.electrostatics_scale_14) == (0.5, 0.8333333333)


def test_values_are_converted_to_our_units(tmp_path: Path) -> None:
    name = write_offxml(
        tmp_path,
        Bonds='<Bonds version="0.4"><Bond smirks="[*:1]~[*:2]" length="0.15 * nanometer" '
        'k="209200.0 * kilojoule_per_mole/nanometer**2"/></Bonds>',
        Angles='<Angles version="0.3"><Angle smirks="[*:1]~[*:2]~[*:3]" angle="2.0 * radian" '
        'k="0.03 * kilocalories_per_mole/degree**2"/></Angles>',
        ImproperTorsions='<ImproperTorsions version="0.3" default_idivf="2"><Improper smirks="[*:1]~[#6X3:2](~[*:3])~[*:4]" '
        'periodicity1="2" phase1="180.0 * degree" k1="4.184 * kilojoule_per_mole"/></ImproperTorsions>',
    )
    force_field, _ = read_force_field(name)
    np.testing.assert_allclose(force_field.tables["Bonds"].values, [[500.0, 1.5]])
    np.testing.assert_allclose(force_field.tables["Angles"].values, [[0.03 * (180 / pi) ** 2, 2.0]])
    np.testing.assert_allclose(force_field.tables["ImproperTorsions"].values, [[1.0, 2.0, pi, 2.0]])
    np.testing.assert_allclose(force_field.tables["vdW"].values, [[0.1, 3.6 / 2 ** (1 / 6)]])
    assert force_field.tables["Bonds"].ids == ("",)
    assert force_field.name == "made.offxml"
    assert force_field.offxml == Path(name).read_text()


def test_a_section_that_is_not_there_has_an_empty_table(tmp_path: Path) -> None:
    force_field, patterns = read_force_field(write_offxml(tmp_path, ImproperTorsions=None))
    assert force_field.tables["ImproperTorsions"].values.shape == (0, 4)
    assert set(force_field.tables) == set(COLUMNS)
    assert "ImproperTorsions" not in [section.handler for section in patterns.sections]


def test_patterns_name_a_worker_s_compiled_engine() -> None:
    first, second = (read_force_field("openff_unconstrained-2.1.0.offxml")[1] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != read_force_field("openff_unconstrained-2.0.0.offxml")[1]


REFUSED = {
    "virtual sites": (
        {
            "VirtualSites": '<VirtualSites version="0.3" exclusion_policy="parents"><VirtualSite smirks="[#17:1]-[#6:2]" '
            'type="BondCharge" match="all_permutations" distance="0.1 * angstrom" charge_increment1="0.1 * elementary_charge" '
            'charge_increment2="0.1 * elementary_charge"/></VirtualSites>'
        },
        "section VirtualSites is not supported; supported are Bonds, Angles",
    ),
    "implicit solvent": (
        {
            "GBSA": '<GBSA version="0.3" gb_model="OBC1" solvent_dielectric="78.5" solute_dielectric="1" sa_model="None" '
            'surface_area_penalty="5.4*calories/mole/angstroms**2" solvent_radius="1.4*angstroms"><Atom smirks="[*:1]" '
            'radius="0.15*nanometer" scale="0.8"/></GBSA>'
        },
        "section GBSA is not supported",
    ),
    "bond orders in bonds": (
        {
            "Bonds": '<Bonds version="0.4"><Bond smirks="[*:1]~[*:2]" id="b9" length="1.5 * angstrom" '
            'k_bondorder1="1.0 * kilocalories_per_mole/angstrom**2" k_bondorder2="2.0 * kilocalories_per_mole/angstrom**2"/></Bonds>'
        },
        "Bonds b9 is interpolated by bond order, which is not supported; give it one value",
    ),
    "bond orders in torsions": (
        {
            "ProperTorsions": '<ProperTorsions version="0.4"><Proper smirks="[*:1]~[*:2]~[*:3]~[*:4]" id="t9" periodicity1="2" '
            'phase1="180 * degree" k1_bondorder1="1.0 * kilocalories_per_mole" k1_bondorder2="2.0 * kilocalories_per_mole" '
            'idivf1="1.0"/></ProperTorsions>'
        },
        "ProperTorsions t9 is interpolated by bond order",
    ),
    "an angle potential that the toolkit lets pass": (
        {"Angles": SECTIONS["Angles"].replace("harmonic", "cosine")},
        "Angles potential='cosine' is not supported; allowed: 'harmonic'",
    ),
    "a vdW cutoff without periodicity": (
        {"vdW": SECTIONS["vdW"].replace("no-cutoff", "cutoff")},
        "vdW nonperiodic_method='cutoff' is not supported; allowed: 'no-cutoff'",
    ),
    "a vdW potential": (
        {"vdW": SECTIONS["vdW"].replace("Lennard-Jones-12-6", "Buckingham-6")},
        "Buckingham-6",
    ),
    "combining rules": (
        {"vdW": SECTIONS["vdW"].replace("Lorentz-Berthelot", "Good-Hope")},
        "Good-Hope",
    ),
    "interactions of bonded atoms": (
        {"vdW": SECTIONS["vdW"].replace('scale14="0.5"', 'scale14="0.5" scale12="1.0"')},
        "scale12",
    ),
    "another electrostatic potential": (
        {
            "Electrostatics": SECTIONS["Electrostatics"].replace(
                'nonperiodic_potential="Coulomb"', 'nonperiodic_potential="PME"'
            )
        },
        "PME",
    ),
    "no vdW": ({"vdW": None}, "section vdW is missing; without it atoms that are not bonded would not interact"),
    "no electrostatics": ({"Electrostatics": None}, "section Electrostatics is missing"),
    "an unknown section": ({"CrossTerms": '<CrossTerms version="0.3"/>'}, "CrossTerms"),
    "an unknown attribute": ({"Bonds": SECTIONS["Bonds"].replace('id="b1"', 'id="b1" kk="1"')}, "kk"),
    "an unknown element": ({"Bonds": SECTIONS["Bonds"].replace("<Bond ", "<Spring ")}, "Spring"),
    "a proper without idivf": (
        {"ProperTorsions": SECTIONS["ProperTorsions"].replace(' idivf1="1.0"', "")},
        "ProperTorsions t1 has no idivf and the section's default_idivf is 'auto'; write idivf1, idivf2, ... out",
    ),
    "a proper divided by nothing": (
        {"ProperTorsions": SECTIONS["ProperTorsions"].replace('idivf1="1.0"', 'idivf1="0.0"')},
        "ProperTorsions t1 has idivf [0.0]; a positive number is needed",
    ),
    "a value that is no number": (
        {"Bonds": SECTIONS["Bonds"].replace("500.0", "nan")},
        "b1",
    ),
    "too few tags": (
        {"Angles": SECTIONS["Angles"].replace("[*:1]~[*:2]~[*:3]", "[*:1]~[*:2]~[*]")},
        "[*:1]~[*:2]~[*]",
    ),
    "another graph network": (
        {"NAGLCharges": '<NAGLCharges version="0.3" model_file="my-model.pt"/>'},
        "NAGLCharges model_file='my-model.pt' is not supported; allowed: 'openff-gnn-am1bcc-1.0.0.pt'",
    ),
    "charge increments on Mulliken charges": (
        {"ChargeIncrementModel": '<ChargeIncrementModel version="0.4" partial_charge_method="AM1-Mulliken"/>'},
        "ChargeIncrementModel partial_charge_method='AM1-Mulliken' is not supported; allowed: 'zeros' or 'formal_charge'",
    ),
    "bonds to hydrogen at fixed length": (
        {"Constraints": '<Constraints version="0.3"><Constraint smirks="[#1:1]-[*:2]" id="c1"/></Constraints>'},
        "constraint c1 ([#1:1]-[*:2]) fixes bonds to hydrogen, which then have no energy; use the unconstrained force field",
    ),
    "a section that is there twice": (
        {"Bonds": SECTIONS["Bonds"] * 2},
        "section Bonds is there 2 times; put its parameters in one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(case: str, tmp_path: Path) -> None:
    sections, message = REFUSED[case]
    with pytest.raises(ForceFieldError, match=re.escape(message)) as refused:
        read_force_field(write_offxml(tmp_path, **sections))
    assert str(refused.value).startswith(f"force field {tmp_path}/made.offxml: ")
    assert "\n" not in str(refused.value)


def test_the_constrained_force_field_names_its_twin() -> None:
    with pytest.raises(ForceFieldError, match=r"use the unconstrained force field: openff_unconstrained-2\.1\.0\.offxml$"):
        read_force_field("openff-2.1.0.offxml")


@pytest.mark.parametrize(
    "name", ["openff_unconstrained-2.1.offxml", "nowhere/openff_unconstrained-2.1.0.offxml", "2.1.0.offxml"]
)
def test_a_force_field_that_is_not_there(name: str) -> None:
    """The toolkit would take the last for any file whose name ends so."""
    with pytest.raises(ForceFieldError, match=f"'{name}' is neither a file nor installed") as refused:
        read_force_field(name)
    assert "openff_unconstrained-2.1.0.offxml" in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not XML",
        b"<SMIRNOFF",
        b"<html></html>",
        b"\xff\xfe\x00",
        b'<SMIRNOFF version="0.3"></SMIRNOFF>',
        b'<SMIRNOFF version="0.3" aromaticity_model="OEAroModel_Tripos"></SMIRNOFF>',
    ],
)
def test_a_file_that_is_no_force_field(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.offxml"
    path.write_bytes(content)
    with pytest.raises(ForceFieldError, match=r"broken\.offxml"):
        read_force_field(str(path))


def test_a_file_by_path_is_read_as_it_is(real_data: Path) -> None:
    path = real_data / "mirror" / "forcefields" / "openff_unconstrained-2.1.0.offxml"
    by_path, by_name = read_force_field(str(path)), read_force_field(path.name)
    assert by_path[0].offxml == path.read_text()
    assert by_path[1] == by_name[1]
