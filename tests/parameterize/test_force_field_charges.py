"""Library charges and charge increments against openff-interchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openff.toolkit
import pytest
from openff.interchange import Interchange

from pesfit.core.arrays import FloatArray
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.force_field_charges import ForceFieldCharges
from pesfit.parameterize.molecule import read_mapped_smiles
from tests.parameterize import interchange_oracle as oracle
from tests.parameterize.offxml import write_offxml

LIBRARY = {
    "one pattern for all atoms": '<LibraryCharge smirks="[#1:1]-[#6:2](-[#1:3])(-[#1:4])-[#8:5]-[#1:6]" charge1="0.1 * e" '
    'charge2="-0.2 * e" charge3="0.11 * e" charge4="0.12 * e" charge5="-0.53 * e" charge6="0.4 * e"/>',
    "in parts, the later wins": '<LibraryCharge smirks="[*:1]" charge1="0.0 * e"/><LibraryCharge smirks="[#6:1]" charge1="0.3 * e"/>'
    '<LibraryCharge smirks="[#6X4:1]-[#1:2]" charge1="-0.3 * e" charge2="0.1 * e"/>'
    '<LibraryCharge smirks="[#8:1]-[#1:2]" charge1="-0.5 * e" charge2="0.5 * e"/>',
    "symmetric tags": '<LibraryCharge smirks="[*:1]~[*:2]" charge1="0.01 * e" charge2="-0.01 * e"/>'
    '<LibraryCharge smirks="[#1:1]-[#6:2]-[#1:3]" charge1="0.02 * e" charge2="0.03 * e" charge3="-0.05 * e"/>',
    "the same set tagged twice": '<LibraryCharge smirks="[*:1]~[*:2]" charge1="0.1 * e" charge2="-0.1 * e"/>'
    '<LibraryCharge smirks="[#8:2]-[#1:1]" charge1="0.4 * e" charge2="-0.4 * e"/>',
}

INCREMENTS = {
    "in full": '<ChargeIncrement smirks="[#6:1]-[#1:2]" charge_increment1="-0.06 * e" charge_increment2="0.06 * e"/>'
    '<ChargeIncrement smirks="[#6:1]-[#8:2]" charge_increment1="0.2 * e" charge_increment2="-0.2 * e"/>',
    "the last follows": '<ChargeIncrement smirks="[#1:1]-[#8:2]-[#6:3]" charge_increment1="0.3 * e" charge_increment2="-0.4 * e"/>',
    "the later wins": '<ChargeIncrement smirks="[*:1]~[*:2]" charge_increment1="0.1 * e" charge_increment2="-0.1 * e"/>'
    '<ChargeIncrement smirks="[#8:1]-[*:2]" charge_increment1="-0.3 * e" charge_increment2="0.3 * e"/>'
    '<ChargeIncrement smirks="[#1:1]-[#8:2]" charge_increment1="0.25 * e" charge_increment2="-0.25 * e"/>',
}

SMILES = ("CO", "CC(=O)[O-]", "C[NH3+]", "CCO", "OCC=O")


def _by_interchange(name: str, smiles: str) -> FloatArray | None:
    molecule = openff.toolkit.Molecule.from_mapped_smiles(smiles)
    force_field = openff.toolkit.ForceField(name)
    if "ToolkitAM1BCC" in force_field.registered_parameter_handlers:
        force_field.deregister_parameter_handler("ToolkitAM1BCC")
    try:
        found = Interchange.from_smirnoff(force_field, [molecule], allow_nonintegral_charges=True)
    except RuntimeError as error:
        if "could not be fully assigned charges" in str(error):
            return None
        raise
    charges = found["Electrostatics"].charges
    return np.array([charges[key].m_as("elementary_charge") for key in sorted(charges, key=lambda key: key.atom_indices)])


def _by_us(name: str, smiles: str) -> FloatArray | None:
    charges = ForceFieldCharges(read_force_field(name)[1])
    return charges.assign(read_mapped_smiles(smiles), lambda base: pytest.fail(f"no need to compute {base} charges"))


def _compare(name: str) -> int:
    n_charged = 0
    for smiles in map(oracle.mapped, SMILES):
        ours, theirs = _by_us(name, smiles), _by_interchange(name, smiles)
        assert (ours is None) == (theirs is None), smiles
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15, err_msg=smiles)
            n_charged += 1
    return n_charged


@pytest.mark.parametrize("case", LIBRARY)
def test_library_charges_as_interchange(case: str, tmp_path: Path) -> None:
    section = f'<LibraryCharges version="0.3">{LIBRARY[case]}</LibraryCharges>'.replace("* e", "* elementary_charge")
    n_charged = _compare(write_offxml(tmp_path, LibraryCharges=section))
    assert n_charged == (1 if case == "one pattern for all atoms" else len(SMILES))


@pytest.mark.parametrize("base", ["zeros", "formal_charge"])
@pytest.mark.parametrize("case", INCREMENTS)
def test_charge_increments_as_interchange(case: str, base: str, tmp_path: Path) -> None:
    section = f'<ChargeIncrementModel version="0.4" partial_charge_method="{base}">{INCREMENTS[case]}</ChargeIncrementModel>'
    name = write_offxml(tmp_path, ChargeIncrementModel=section.replace("* e", "* elementary_charge"))
    assert _compare(name) == len(SMILES)


def test_library_charges_come_before_increments(tmp_path: Path) -> None:
    library = f'<LibraryCharges version="0.3">{LIBRARY["one pattern for all atoms"]}</LibraryCharges>'
    model = f'<ChargeIncrementModel version="0.4" partial_charge_method="formal_charge">{INCREMENTS["in full"]}</ChargeIncrementModel>'
    sections = {"LibraryCharges": library, "ChargeIncrementModel": model}
    name = write_offxml(tmp_path, **{key: text.replace("* e", "* elementary_charge") for key, text in sections.items()})
    assert _compare(name) == len(SMILES)
    charges = _by_us(name, oracle.mapped("CO"))
    assert charges is not None
    assert sorted(charges.tolist()) == [-0.53, -0.2, 0.1, 0.11, 0.12, 0.4]


def test_increments_go_on_top_of_computed_charges(tmp_path: Path) -> None:
    section = (
        f'<ChargeIncrementModel version="0.4" partial_charge_method="am1bcc">{INCREMENTS["in full"]}</ChargeIncrementModel>'
    )
    name = write_offxml(tmp_path, ChargeIncrementModel=section.replace("* e", "* elementary_charge"))
    molecule = read_mapped_smiles(oracle.mapped("CO"))
    asked: list[str] = []

    def base_charges(base: str) -> FloatArray:
        asked.append(base)
        return np.full(molecule.GetNumAtoms(), 0.5)

    charges = ForceFieldCharges(read_force_field(name)[1]).assign(molecule, base_charges)
    assert asked == ["am1bcc"]
    assert charges is not None
    np.testing.assert_allclose(charges, [0.5 - 3 * 0.06 + 0.2, 0.5 - 0.2, *[0.5 + 0.06] * 3, 0.5])


def test_sage_leaves_molecules_to_other_methods_and_gives_ions_theirs() -> None:
    charges = ForceFieldCharges(read_force_field("openff_unconstrained-2.1.0.offxml")[1])
    none = [
        charges.assign(read_mapped_smiles(oracle.mapped(smiles)), lambda _: pytest.fail("nothing to compute"))
        for smiles in SMILES
    ]
    assert none == [None] * len(SMILES)
    sodium = charges.assign(read_mapped_smiles("[Na+:1]"), lambda _: pytest.fail("nothing to compute"))
    assert sodium is not None
    assert sodium.tolist() == [1.0]
