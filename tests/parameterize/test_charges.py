"""The chain of methods: order, what is passed over, what is remembered, and the total charge."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import openff.toolkit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openff.interchange import Interchange
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, MoleculeError, ParamsError
from pesfit.parameterize import nagl_file, sqm
from pesfit.parameterize.charges import ChargeAssigner, ChargeCalculationError, ForceFieldCharges, with_exact_sum
from pesfit.parameterize.exceptions import (
    NonFiniteChargeError,
    NonIntegralMoleculeChargeError,
)
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.nagl import nagl_charges
from pesfit.params.preparation import Parameterize
from tests.parameterize import interchange_oracle as oracle
from tests.parameterize.offxml import write_offxml

EVERY = ("dataset", "nagl", "sqm", "gasteiger")


@pytest.fixture(autouse=True)
def no_ambertools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has, AmberTools is not on PATH unless a test puts it there."""
    monkeypatch.setenv("PATH", str(tmp_path))


def with_hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


ACETATE = with_hydrogens("CC(=O)[O-]")
GIVEN = np.array([-0.2, 0.9, -0.85, -0.85, 0.0, 0.0, 0.0])
SILANE = with_hydrogens("C[SiH3]")


class TestOrder:
    def test_charges_of_the_data_set_come_first_by_default(self) -> None:
        assigner = ChargeAssigner(Parameterize().charges.methods)
        assigned = assigner.assign(ACETATE, GIVEN, -1)
        assert assigned.method == "dataset"
        assert assigned.failed == ()
        np.testing.assert_allclose(assigned.charges, GIVEN, rtol=0, atol=1e-12)

    def test_without_them_nagl_is_next(self) -> None:
        assigned = ChargeAssigner(EVERY).assign(ACETATE, None, -1)
        assert (assigned.method, assigned.failed) == ("nagl", ())
        np.testing.assert_allclose(assigned.charges, nagl_charges(ACETATE), rtol=0, atol=1e-6)

    def test_is_the_one_asked_for(self) -> None:
        assert ChargeAssigner(("gasteiger", "dataset")).assign(ACETATE, GIVEN, -1).method == "gasteiger"
        assert ChargeAssigner(("nagl", "dataset")).assign(ACETATE, GIVEN, -1).method == "nagl"

    def test_nagl_outside_its_domain_is_remembered_and_the_next_is_taken(self) -> None:
        assigned = ChargeAssigner(EVERY).assign(SILANE, None, 0)
        assert assigned.method == "gasteiger"
        (said,) = assigned.failed
        assert said.startswith("nagl: element Si (atom 1) is outside the domain of nagl")

    def test_sqm_is_taken_where_it_is_on_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def fake(_: Chem.Mol, total_charge: int) -> np.ndarray:
            asked.append(total_charge)
            return np.array([-0.4, 0.4, *[0.0] * 6]) + 5e-4  # sqm prints three decimals

        monkeypatch.setattr(sqm, "missing_programs", lambda: ())
        monkeypatch.setattr(sqm, "sqm_charges", fake)
        assigned = ChargeAssigner(EVERY).assign(SILANE, None, 0)
        assert (assigned.method, asked) == ("sqm", [0])
        assert abs(math.fsum(assigned.charges)) < 1e-15


class TestFailure:
    def test_says_what_each_method_said(self) -> None:
        with pytest.raises(ChargeCalculationError) as caught:
            ChargeAssigner(("dataset", "nagl", "sqm")).assign(SILANE, np.full(8, np.nan), 0)
        message = str(caught.value)
        assert "dataset: charge 0 is nan" in message
        assert "nagl: element Si" in message
        assert "sqm: AmberTools' antechamber and sqm not found on PATH" in message

    def test_says_that_the_data_set_has_no_charges(self) -> None:
        with pytest.raises(ChargeCalculationError, match="dataset: the data set has none"):
            ChargeAssigner(("dataset",)).assign(ACETATE, None, -1)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (np.where(np.arange(7) == 3, np.inf, GIVEN), "dataset: charge 3 is inf"),
            (np.where(np.arange(7) == 2, np.nan, GIVEN), "dataset: charge 2 is nan"),
            (GIVEN[:6], r"dataset: charges have the shape \(6,\), expected \(7,\)"),
            (GIVEN[:, None], r"dataset: charges have the shape \(7, 1\), expected \(7,\)"),
            (GIVEN + 0.01 / 6, r"dataset: charges add up to -0\.988333 e, expected -1 e to within 0\.01 e"),
        ],
    )
    def test_bad_charges_of_the_data_set(self, given: np.ndarray, said: str) -> None:
        with pytest.raises(ChargeCalculationError, match=said):
            ChargeAssigner(("dataset",)).assign(ACETATE, given, -1)
        assert ChargeAssigner(("dataset", "nagl")).assign(ACETATE, given, -1).method == "nagl"

    def test_gasteiger_without_parameters(self) -> None:
        with pytest.raises(ChargeCalculationError, match="gasteiger: RDKit has no Gasteiger parameters"):
            ChargeAssigner(("gasteiger",)).assign(Chem.MolFromSmiles("[Xe]"), None, 0)

    def test_is_one_of_one_molecule(self) -> None:
        assert issubclass(ChargeCalculationError, MoleculeError)

    def test_a_missing_model_stops_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nagl_file, "_PACKAGE", "openff.no_such_package")
        with pytest.raises(DataError, match="openff-nagl-models is not installed"):
            ChargeAssigner(EVERY).check()


class TestTotalCharge:
    @settings(deadline=None, max_examples=50)
    @given(st.floats(-0.0099, 0.0099), st.integers(0, 2**32 - 1))
    def test_residual_is_spread_evenly(self, residual: float, seed: int) -> None:
        noise = np.random.default_rng(seed).normal(size=7)
        exact = GIVEN + noise - noise.mean()
        assigned = ChargeAssigner(("dataset",)).assign(ACETATE, exact + residual / 7, -1)
        assert math.fsum(assigned.charges) == pytest.approx(-1.0, abs=1e-14)
        np.testing.assert_allclose(assigned.charges, exact, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("smiles", ["CC(=O)[O-]", "NC(N)=[NH2+]", "COP(=O)([O-])OP(=O)([O-])[O-]", "CC(=O)Oc1ccccc1C(=O)O"])
    @pytest.mark.parametrize("method", ["nagl", "gasteiger"])
    def test_is_exact_by_every_method(self, smiles: str, method: str) -> None:
        molecule = with_hydrogens(smiles)
        total = Chem.GetFormalCharge(molecule)
        assigned = ChargeAssigner((method,)).assign(molecule, None, total)
        assert math.fsum(assigned.charges) == pytest.approx(total, abs=1e-14)
        assert assigned.charges.dtype == np.float64
        assert np.abs(assigned.charges).max() > 0.1

    def test_input_is_left_as_it_was(self) -> None:
        given = GIVEN + 1e-4
        before = given.copy()
        ChargeAssigner(("dataset",)).assign(ACETATE, given, -1)
        np.testing.assert_array_equal(given, before)


class TestAssigner:
    def test_travels_to_a_worker(self) -> None:
        assigner = ChargeAssigner(EVERY)
        assert pickle.loads(pickle.dumps(assigner)) == assigner
        assert len(pickle.dumps(assigner)) < 300

    def test_refuses_what_it_does_not_know(self) -> None:
        with pytest.raises(ParamsError, match="'am1bcc' is not known; expected some of dataset, nagl, sqm, gasteiger"):
            ChargeAssigner(("dataset", "am1bcc"))
        with pytest.raises(ParamsError, match="empty"):
            ChargeAssigner(())

    def test_check_passes_where_all_is_there(self) -> None:
        ChargeAssigner(EVERY).check()

    def test_check_refuses_sqm_alone_without_ambertools(self) -> None:
        with pytest.raises(ParamsError, match="sqm alone, but AmberTools' antechamber and sqm not found"):
            ChargeAssigner(("sqm",)).check()


@settings(deadline=None)
@given(
    charges=st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=300),
    total=st.integers(-5, 5),
    deviation=st.floats(-0.0099, 0.0099),
    seed=st.integers(0, 100),
)
def test_sum_is_exact_in_any_order(charges: list[float], total: int, deviation: float, seed: int) -> None:
    given_charges = np.array(charges)
    given_charges += (total + deviation - given_charges.sum()) / len(charges)
    exact = with_exact_sum(given_charges, total)
    shuffled = np.random.default_rng(seed).permutation(exact)
    assert exact.sum() == shuffled.sum() == sum(shuffled.tolist()) == math.fsum(exact) == total
    assert np.abs(exact - given_charges).max() <= 0.01 / len(charges) + 3e-14


def test_what_is_exact_already_is_kept() -> None:
    np.testing.assert_allclose(with_exact_sum(np.array([0.417, -0.834, 0.417]), 0), [0.417, -0.834, 0.417], rtol=0, atol=2e-14)


def test_charges_of_another_ion_are_refused() -> None:
    with pytest.raises(
        NonIntegralMoleculeChargeError, match=r"add up to 0\.500000 e and formal charges to 1 e; they may differ by 0\.01 e"
    ):
        with_exact_sum(np.array([0.25, 0.25]), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_charges_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteChargeError, match=f"the partial charge of atom 2 is {value}"):
        with_exact_sum(np.array([0.0, value]), 0)


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
