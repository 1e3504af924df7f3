"""The chain of methods: order, what is passed over, what is remembered, and the total charge."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.core.exceptions import DataError, MoleculeError, ParamsError
from pesfit.parameterize import nagl_file, sqm
from pesfit.parameterize.charges import ChargeAssigner, ChargeCalculationError
from pesfit.parameterize.errors import ImplicitHydrogensError, MultipleFragmentsError, TotalChargeError
from pesfit.parameterize.nagl import nagl_charges
from pesfit.params.preparation import Parameterize

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


class TestMolecule:
    def test_total_charge_is_checked(self) -> None:
        with pytest.raises(TotalChargeError, match="total charge 0 e, but the formal charges add up to -1 e"):
            ChargeAssigner(EVERY).assign(ACETATE, GIVEN, 0)

    def test_fragments_are_refused(self) -> None:
        with pytest.raises(MultipleFragmentsError, match="2 fragments"):
            ChargeAssigner(EVERY).assign(with_hydrogens("CC(=O)[O-].[NH4+]"), None, 0)

    def test_implied_hydrogens_are_refused(self) -> None:
        with pytest.raises(ImplicitHydrogensError, match=r"3 hydrogens on C \(atom 0\)"):
            ChargeAssigner(EVERY).assign(Chem.MolFromSmiles("CC"), None, 0)


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
