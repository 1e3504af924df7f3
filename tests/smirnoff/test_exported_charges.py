"""Charges in a written force field: what the OpenFF toolkit and our own reader then give to molecules."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openff.interchange import Interchange
from openff.toolkit import ForceField as ToolkitForceField
from openff.toolkit import Molecule as ToolkitMolecule
from rdkit import Chem

from pesfit.chemistry.smiles import elements_of, group_of, mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.data.topology import ForceField, Topology
from pesfit.parameterize.assign import Pattern, Patterns, TaggedCharges
from pesfit.parameterize.charges import ForceFieldCharges
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.params.preparation import ChargeMethod
from pesfit.smirnoff import exported_charges
from pesfit.smirnoff.export import check_offxml, write_offxml
from pesfit.smirnoff.exported_charges import ExportedCharges, choose_charges, library_charges, symmetry_classes
from tests import openff_oracle


@pytest.fixture(scope="module")
def sage() -> ForceField:
    return read_force_field(openff_oracle.FORCE_FIELD)[0]


def molecule_of(smiles: str, seed: int | None = None) -> Chem.Mol:
    """Read a SMILES, with its atoms in another order where there is a seed."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if seed is not None:
        mol = Chem.RenumberAtoms(mol, np.random.default_rng(seed).permutation(mol.GetNumAtoms()).tolist())
    return read_mapped_smiles(mapped_smiles(mol))


def made_up(mol: Chem.Mol) -> FloatArray:
    """Charges that differ where SMIRKS can tell atoms apart, whose sum is that of the formal charges."""
    charges = np.sqrt(2.0 + np.unique(symmetry_classes(mol), return_inverse=True)[1])
    charges = 0.1 * (charges - charges.mean()) + Chem.GetFormalCharge(mol) / mol.GetNumAtoms()
    return np.asarray(charges, dtype=np.float64)


SYMMETRIC_OR_NOT = (
    "C", "O", "[H][H]", "[Na+]", "CCO", "[NH4+]", "CC(=O)[O-]", "c1ccc2[nH]ccc2c1", "C[N+](=O)[O-]", "CP(=O)([O-])OC", "F[C@](Cl)(Br)I",
    "C[C@H](N)C(=O)O", "C[C@H](O)[C@@H](C)O", "C[C@H](O)[C@H](C)O", "C/C=C/C", "C/C=C\\C", "C/C=N/O", "C[C@@H]1CCCC[C@H]1C",
    "CC(C)(C)c1cc(C(C)(C)C)cc(C(C)(C)C)c1",
)  # fmt: skip


@pytest.mark.parametrize("smiles", SYMMETRIC_OR_NOT)
def test_library_charges_are_found_again_whatever_the_order_of_atoms_and_by_no_other_molecule(smiles: str) -> None:
    mol = molecule_of(smiles)
    written = library_charges(mol, made_up(mol))
    entries = tuple(TaggedCharges(smirks, tuple(charges.tolist()), is_fitted=True) for smirks, charges in written)
    reader = ForceFieldCharges(Patterns((), (), entries, None, ()))
    for seed in range(3):
        other = molecule_of(smiles, seed)
        match = other.GetSubstructMatch(mol, useChirality=True)
        found = reader.fitted(other)
        assert found is not None
        np.testing.assert_allclose(found[list(match)], made_up(mol), atol=1e-14)
    strangers = [text for text in SYMMETRIC_OR_NOT if group_of(molecule_of(text)) != group_of(mol)]
    for other in strangers:
        for entry in entries:
            assert not Pattern(entry.smirks).matches(molecule_of(other)), (entry, other)


def test_library_charges_are_those_that_interchange_assigns(sage: ForceField, tmp_path: Path) -> None:
    smiles = ("CC(=O)NC", "C[C@H](N)C(=O)O", "C/C=C/C", "C/C=C\\C", "COP(=O)([O-])OC")
    mols = [molecule_of(text) for text in smiles]
    path = tmp_path / "a.offxml"
    trained = tuple((mapped_smiles(mol), made_up(mol)) for mol in mols)
    write_offxml(path, sage, sage, ExportedCharges(trained))
    check_offxml(path, sage, sage)
    for mol in mols:
        np.testing.assert_allclose(interchange_charges(path, mol), made_up(mol), atol=1e-12)


def interchange_charges(path: Path, mol: Chem.Mol) -> FloatArray:
    """Return the charges that the file alone gives, [e], shape (n_atoms,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        molecule = ToolkitMolecule.from_mapped_smiles(mapped_smiles(mol), allow_undefined_stereo=True)
        found = Interchange.from_smirnoff(ToolkitForceField(str(path)), molecule.to_topology())["Electrostatics"].charges
    charges = {key.atom_indices[0]: charge.m_as("elementary_charge") for key, charge in found.items()}
    return np.array([charges[atom] for atom in range(len(charges))])


def fitted_with(
    name: str, smiles: str, methods: tuple[ChargeMethod, ...], charges: FloatArray | None = None, seed: int | None = None
) -> Topology:
    """Parameterize a molecule as stage 03 does."""
    mol = molecule_of(smiles, seed)
    elements = elements_of(mol).astype(np.int32).tobytes()
    given = None if charges is None else charges.tobytes()
    request = Request(mapped_smiles(mol), elements, given, Chem.GetFormalCharge(mol))
    topology = parameterize(Setup(read_force_field(name)[1], methods), request)
    assert isinstance(topology, Topology)
    return topology


def written(path: Path, start: ForceField, topologies: list[Topology]) -> ExportedCharges:
    charges = choose_charges(start, topologies)
    write_offxml(path, start, start, charges)
    check_offxml(path, start, start)
    return charges


NAMES = ("CCO", "CC#N", "CC(=O)[O-]", "C[N+](=O)[O-]")


@pytest.mark.slow
def test_charges_of_nagl_are_left_to_nagl(sage: ForceField, tmp_path: Path) -> None:
    """The section is as in openff-2.3.0.offxml. The toolkit has no NAGL here: our reader stands in for it."""
    path = tmp_path / "a.offxml"
    topologies = [fitted_with(sage.name, smiles, ("nagl",)) for smiles in NAMES]
    charges = written(path, sage, topologies)
    assert (charges.nagl, charges.library) == (True, ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sections = [ToolkitForceField(name) for name in (str(path), "openff_unconstrained-2.3.0.offxml")]
        assert "ToolkitAM1BCC" not in sections[0].registered_parameter_handlers
        ours, official = (section.get_parameter_handler("NAGLCharges").to_dict() for section in sections)
    assert ours == official
    for smiles, topology in zip(NAMES, topologies, strict=True):
        again = fitted_with(str(path), smiles, ("dataset", "nagl"))
        assert again.charge_method == "nagl"
        np.testing.assert_array_equal(again.charges, topology.charges)
    assert written(tmp_path / "b.offxml", read_force_field(str(path))[0], topologies).nagl
    assert path.read_bytes() == (tmp_path / "b.offxml").read_bytes()


@pytest.mark.slow
def test_charges_of_data_come_with_the_file_and_the_rest_from_nagl(sage: ForceField, tmp_path: Path) -> None:
    path = tmp_path / "a.offxml"
    of_data = {smiles: made_up(molecule_of(smiles)) for smiles in ("CC(=O)NC", "C[C@H](N)C(=O)O")}
    topologies = [fitted_with(sage.name, smiles, ("dataset",), charges) for smiles, charges in of_data.items()]
    topologies.append(fitted_with(sage.name, "CCO", ("nagl",)))
    charges = written(path, sage, topologies)
    assert (charges.nagl, len(charges.library), charges.n_left_out) == (True, 2, 0)
    assert charges.largest_change < 1e-13
    for smiles, expected in of_data.items():
        np.testing.assert_allclose(interchange_charges(path, molecule_of(smiles)), expected, atol=1e-12)
    assert fitted_with(str(path), "CC(=O)NC", ("nagl",)).charge_method == "force-field"
    assert fitted_with(str(path), "CCO", ("nagl",)).charge_method == "nagl"
    own = np.zeros(12)  # charges of a data set come before those of the file, unless a fit trained them
    assert fitted_with(str(path), "CC(=O)NC", ("dataset",), own).charge_method == "dataset"


def test_rows_of_one_molecule_share_charges_and_tell_how_far_they_were_apart(sage: ForceField, tmp_path: Path) -> None:
    mol, other = molecule_of("CC(=O)NC"), molecule_of("CC(=O)NC", seed=1)
    charges = made_up(mol)
    uneven = charges.copy()
    uneven[np.flatnonzero(elements_of(mol) == 1)[:2]] += (0.003, -0.003)
    place = np.argsort(other.GetSubstructMatch(mol))
    topologies = [
        fitted_with(sage.name, "CC(=O)NC", ("dataset",), charges),
        fitted_with(sage.name, "CC(=O)NC", ("dataset",), uneven[place], seed=1),
    ]
    found = written(tmp_path / "a.offxml", sage, topologies)
    assert (found.nagl, len(found.library)) == (False, 1)
    assert found.largest_change == pytest.approx(0.003)
    assert "ToolkitAM1BCC" in (tmp_path / "a.offxml").read_text()
    found = written(tmp_path / "b.offxml", sage, topologies[1:])
    np.testing.assert_allclose(interchange_charges(tmp_path / "b.offxml", mol), charges, atol=1e-12)
    assert found.largest_change == pytest.approx(0.003)


def test_charges_of_sqm_are_left_to_the_toolkit_unless_nagl_takes_its_place(sage: ForceField) -> None:
    by_sqm = replace(fitted_with(sage.name, "CCO", ("nagl",)), charge_method="sqm")
    of_file = replace(by_sqm, charge_method="force-field")
    alone = choose_charges(sage, [by_sqm, of_file])
    assert (alone.nagl, alone.library) == (False, ())
    mixed = choose_charges(sage, [by_sqm, of_file, fitted_with(sage.name, "CC#N", ("nagl",))])
    assert (mixed.nagl, len(mixed.library)) == (True, 1)


def test_trained_charges_come_before_those_of_the_data(sage: ForceField) -> None:
    topology = fitted_with(sage.name, "CCO", ("dataset",), made_up(molecule_of("CCO")))
    trained = ((topology.smiles, topology.charges),)
    charges = choose_charges(sage, [topology], trained)
    assert (charges.trained, charges.library) == (trained, ())


def test_too_many_molecules_are_left_out_together(sage: ForceField, monkeypatch: pytest.MonkeyPatch) -> None:
    topologies = [fitted_with(sage.name, smiles, ("gasteiger",)) for smiles in ("CCO", "CC#N", "CCC")]
    monkeypatch.setattr(exported_charges, "MAX_LIBRARY_MOLECULES", 2)
    charges = choose_charges(sage, topologies)
    assert (charges.library, charges.n_left_out) == ((), 3)
    assert len(choose_charges(sage, topologies[:2]).library) == 2
