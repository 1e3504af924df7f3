"""Charges by our evaluation of the published network against those by openff-nagl itself."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize.exceptions import MultipleFragmentsError
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.nagl import OutsideDomainError, nagl_charges, nagl_model
from pesfit.parameterize.nagl_features import ELEMENTS, N_FEATURES, NEIGHBORS, RING_SIZES

CLOSE = 1e-5
"""[e] within which charges are the same; what both programs compute in 32 bits differs by 1e-6."""

OPENFF_NAGL = json.loads(Path(__file__).with_name("openff_nagl_charges.json").read_text())["molecules"]
DRUGS = (
    "CC(=O)Oc1ccccc1C(=O)[O-]",
    "CN(C)C(=N)NC(N)=[NH2+]",
    "O=[N+]([O-])c1cc([N+](=O)[O-])ccc1[O-]",
    "c1ccc(cc1)S(=O)(=O)NC1=NC=CS1",
    "COP(=O)([O-])OP(=O)([O-])[O-]",
    "CN(C)c1ccc2nc3ccc(cc3[s+]c2c1)N(C)C",
)


def with_hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize("entry", OPENFF_NAGL, ids=[entry["name"] for entry in OPENFF_NAGL])
def test_agrees_with_openff_nagl(entry: dict[str, Any]) -> None:
    molecule = read_mapped_smiles(entry["smiles"])
    np.testing.assert_allclose(nagl_charges(molecule, use_table=False), entry["network"], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(nagl_charges(molecule), entry.get("table", entry["network"]), rtol=0, atol=CLOSE)


def test_agrees_with_openff_nagl_on_every_golden_molecule(real_data: Path) -> None:
    golden = np.load(real_data / "golden" / "nagl-am1bcc-1.0.0.npz")
    ends = np.cumsum(golden["n_atoms"])
    worst = {}
    for smiles, end, n_atoms in zip(golden["smiles"], ends, golden["n_atoms"], strict=True):
        molecule = read_mapped_smiles(str(smiles))
        for use_table, name in ((False, "network"), (True, "with_table")):
            expected = golden[name][end - n_atoms : end]
            worst[smiles, name] = np.abs(nagl_charges(molecule, use_table=use_table) - expected).max()
    assert len(worst) == 2 * 127
    assert max(worst.values()) < CLOSE


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(DRUGS), st.randoms(use_true_random=False))
def test_order_of_atoms_does_not_matter(smiles: str, random: Any) -> None:
    molecule = with_hydrogens(smiles)
    order = list(range(molecule.GetNumAtoms()))
    random.shuffle(order)
    charges = nagl_charges(molecule)
    np.testing.assert_allclose(nagl_charges(Chem.RenumberAtoms(molecule, order)), charges[order], rtol=0, atol=2e-6)


@pytest.mark.parametrize("smiles", [*DRUGS, "CO", "CC(=O)[O-]", "FC(F)(F)c1ccccc1"])
def test_equivalent_atoms_have_equal_charges(smiles: str) -> None:
    molecule = with_hydrogens(smiles)
    charges = nagl_charges(molecule)
    connectivity = Chem.Mol(molecule)
    for bond in connectivity.GetBonds():  # so that the oxygens of a carboxylate count as equivalent
        bond.SetBondType(Chem.BondType.SINGLE)
        bond.SetIsAromatic(False)
    for atom in connectivity.GetAtoms():
        atom.SetFormalCharge(0)
        atom.SetIsAromatic(False)
    ranks = np.array(Chem.CanonicalRankAtoms(connectivity, breakTies=False))
    for rank in set(ranks):
        assert np.ptp(charges[ranks == rank]) < 2e-6
    assert len(set(ranks)) < len(ranks)


@pytest.mark.parametrize("smiles", DRUGS)
def test_sum_is_the_total_charge(smiles: str) -> None:
    molecule = with_hydrogens(smiles)
    assert nagl_charges(molecule).sum() == pytest.approx(Chem.GetFormalCharge(molecule), abs=1e-5)


def test_same_bytes_every_time() -> None:
    molecule = with_hydrogens(DRUGS[3])
    assert nagl_charges(molecule).tobytes() == nagl_charges(molecule).tobytes()


def test_molecule_is_left_as_it_was() -> None:
    molecule = read_mapped_smiles("[C:1]([H:2])([H:3])([H:4])[C:5](=[O:6])[O-:7]")
    before = pickle.dumps(molecule)
    nagl_charges(molecule)
    assert pickle.dumps(molecule) == before


class TestTable:
    def test_comes_first_in_any_order_of_atoms(self) -> None:
        """Every 40th entry of the table, with its atoms shuffled, gets the entry's own charges."""
        random = np.random.default_rng(0)
        n_compared = 0
        for entry in list(nagl_model().file.table.values())[::40]:
            parameters = Chem.SmilesParserParams()
            parameters.removeHs = False
            molecule = Chem.MolFromSmiles(entry.mapped_smiles, parameters)
            if molecule is None:  # some are such as RDKit has no valence for
                continue
            molecule = Chem.RenumberAtoms(molecule, random.permutation(molecule.GetNumAtoms()).tolist())
            expected = entry.charges[[atom.GetAtomMapNum() - 1 for atom in molecule.GetAtoms()]]
            for atom in molecule.GetAtoms():
                atom.SetAtomMapNum(0)
            ranks = np.array(Chem.CanonicalRankAtoms(molecule, breakTies=False, includeChirality=False))
            if any(np.ptp(expected[ranks == rank]) > CLOSE for rank in ranks):  # averaged, which the next test is about
                continue
            np.testing.assert_allclose(nagl_charges(molecule), expected, rtol=0, atol=CLOSE)
            n_compared += 1
        assert n_compared > 250

    def test_equivalent_atoms_are_averaged(self) -> None:
        dioxide = with_hydrogens("O=S=O")
        entry = nagl_model().file.table["InChI=1/O2S/c1-3-2"]
        assert entry.charges[0] != entry.charges[2]
        charges = nagl_charges(dioxide)
        assert charges[0] == charges[2] == pytest.approx((entry.charges[0] + entry.charges[2]) / 2)

    def test_has_molecules_that_the_network_was_not_trained_on(self) -> None:
        molecule = read_mapped_smiles("[H:5][S:3]#[N+:2][S:1][H:4]")
        assert nagl_charges(molecule).sum() == pytest.approx(1.0)
        with pytest.raises(OutsideDomainError, match="S2-N1"):
            nagl_charges(molecule, use_table=False)


class TestDomain:
    @pytest.mark.parametrize(
        ("smiles", "named"),
        [
            ("CB(O)O", "element B "),
            ("C[Si](C)(C)C", "element Si "),
            ("C[Se]C", "element Se "),
            ("[Na]OC", "element Na "),
            ("[He]", "element He "),
            ("*CC", r"element \* "),
            ("[H][H]", r"bond H0-H1 .*\[#1:1\]-\[#1:2\]"),
            ("CS(C)(C)Br", r"bond S1-Br\d .*\[#16:1\]-\[#35,#53:2\]"),
            ("CP(I)I", r"bond P1-I2 .*\[#15:1\]-\[#53:2\]"),
            ("C[CH2]", "unpaired electrons .C, atom 1."),
        ],
    )
    def test_refuses_by_name(self, smiles: str, named: str) -> None:
        parameters = Chem.SmilesParserParams()
        parameters.removeHs = False
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles, parameters))
        with pytest.raises(OutsideDomainError, match=named):
            nagl_charges(molecule)

    def test_is_a_failure_of_one_molecule(self) -> None:
        assert issubclass(OutsideDomainError, MoleculeError)

    def test_refuses_fragments(self) -> None:
        with pytest.raises(MultipleFragmentsError, match="2 fragments"):
            nagl_charges(with_hydrogens("CC(=O)[O-].C[NH3+]"))


class TestModel:
    def test_is_read_once(self) -> None:
        assert nagl_model() is nagl_model()

    def test_is_the_one_that_is_evaluated(self) -> None:
        """What the code takes for granted is what the file says."""
        config = nagl_model().file.config
        assert config["atom_features"] == [
            {"name": "atomic_element", "categories": list(ELEMENTS)},
            {"name": "atom_connectivity", "categories": list(NEIGHBORS)},
            {"name": "atom_average_formal_charge"},
            *({"name": "atom_in_ring_of_size", "ring_size": size} for size in RING_SIZES),
        ]
        layers = config["convolution"]["layers"]
        assert config["convolution"]["architecture"] == "SAGEConv"
        assert {(layer["aggregator_type"], layer["activation_function"], layer["dropout"]) for layer in layers} == {
            ("mean", "ReLU", 0.0)
        }
        readout = config["readouts"]["am1bcc_charges"]
        assert [layer["activation_function"] for layer in readout["layers"]] == ["Sigmoid"]
        assert readout["postprocess"] == "regularized_compute_partial_charges"
        assert nagl_model().file.state["convolution_module.gcn_layers.0.fc_self.weight"].shape == (512, N_FEATURES)
