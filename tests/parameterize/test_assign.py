"""Assigned parameters against openff-interchange, term by term, and energies of stored topologies against OpenMM."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openff.interchange import exceptions as interchange_exceptions
from openff.toolkit.utils import exceptions as toolkit_exceptions

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.exceptions import ForceFieldError, MoleculeError
from pesfit.core.units import COULOMB
from pesfit.data.topology import ForceField, Topology
from pesfit.parameterize import exceptions
from pesfit.parameterize.assign import Assigner, Pattern, Patterns
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.sources.espaloma import build_molecule, read_entries, read_openff_json
from pesfit.sources.md17 import MD17_MOLECULES
from pesfit.sources.xtb import MOLECULES
from tests.openff_oracle import molecule, openmm_energy_forces
from tests.parameterize import interchange_oracle as oracle

SAGE = "openff_unconstrained-2.1.0.offxml"

FUNCTIONAL_GROUPS = r"""
    C CC C=C CC#CC C=C=C CC#N [C-]#[N+]C N#N O=C=O CN=C=S C=C=O CO COC OO COOC CC=O CC(C)=O CC(=O)O CC(=O)[O-] CC(=O)OC
    CC(=O)OC(C)=O COC(=O)N CN C[NH3+] CN(C)C C[N+](C)(C)C NN NO CC(N)=O CC(=O)NC NC(N)=O NC(N)=[NH2+] CC(N)=[NH2+]
    C[N+](=O)[O-] CN=[N+]=[N-] C/N=N/C C/C=N/O C=[N+]=[N-] C[N+]([O-])(C)C [O-][n+]1ccccc1 CN=O CS CSC CSSC CS(C)=O
    C[S@](=O)CC CS(C)(=O)=O CS(=O)(=O)[O-] NS(C)(=O)=O CC(=S)N CS(=O)(=O)F CP(C)C COP(=O)([O-])OC CP(=O)(O)O COP(=S)(OC)OC
    CP(C)(C)=O C[P+](C)(C)C CF FC(F)F CCl CBr CI F[C@](Cl)(Br)I C=CF Clc1ccccc1Br [Cl-] [Na+] [K+] [Br-] C1CC1 C1CO1 C1CN1
    C1CCC1 C1CCCC1 C1CCCCC1 C1=CC1 O=C1CCN1 C1CC2CCC1C2 C12C3C4C1C5C2C3C45 c1ccccc1 c1ccncc1 c1cc[nH]c1 c1cnc[nH]1 c1ccsc1
    c1ccoc1 c1nn[n-]n1 c1c[nH+]c[nH]1 c1ccc(-c2ccccc2)cc1 c1ccc2ccccc2c1 c1ccc2[nH]ccc2c1 Cn1cnc2c1c(=O)n(C)c(=O)n2C
    O=C1C=CC(=O)C=C1 C1=CC=CC=CC=C1 O=c1cccc[nH]1 c1ccc2cccc-2cc1 F/C=C/F F/C=C\F C[C@H](N)C(=O)O
    O=S(=O)(Nc1ccccn1)c1ccccc1 c1ccccc1/N=N/c1ccccc1
""".split()  # noqa: SIM905 - one line each would fill two screens
"""Each bonded to few other atoms, so that what fails names the group."""

HARD = r"""
    CB(O)O C[Si](C)(C)C OCl(=O)(=O)=O FS(F)(F)(F)(F)F C[Se]C CC(=C=O)C O=S(=O)=O C=S(=O)=O [O-][Cl+3]([O-])([O-])O
    CN(C)P(=O)(N(C)C)N(C)C O=P12OP3(=O)OP(=O)(O1)OP(=O)(O2)O3 C1C2CC3CC1CC(C2)C3 C1=C2C=CC1C=C2 N#CC(C#N)=C(C#N)C#N [H][H]
    F [NH4+] [OH-] [Li+] C[N-]C CC#[O+] O=[N+]=O
""".split()  # noqa: SIM905 - one line each would fill two screens
"""Molecules some of which OpenFF has no parameters for: whichever it refuses, we must refuse too, with the same kind of error."""


@cache
def _ours(name: str) -> tuple[ForceField, Patterns, Assigner]:
    force_field, patterns = read_force_field(name)
    return force_field, patterns, Assigner(patterns)


def _differences(name: str, molecules: Iterable[str], *, allow_undefined_stereo: bool = False) -> tuple[int, list[str]]:
    """Compare with Interchange; return the number of terms compared and what differs."""
    force_field, _, assigner = _ours(name)
    reference = oracle.toolkit_force_field(name)
    n_terms, differences = 0, []
    with oracle.frozen_objects():
        for smiles in molecules:
            ours = _outcome(partial(_by_us, force_field, assigner, smiles))
            theirs = _outcome(partial(_by_interchange, reference, smiles, allow_undefined_stereo=allow_undefined_stereo))
            n_terms += len(theirs) if isinstance(theirs, dict) else 0
            if ours != theirs:
                differences.append(f"{smiles}: {_first_difference(ours, theirs)}")
    return n_terms, differences


def _by_us(force_field: ForceField, assigner: Assigner, smiles: str) -> oracle.Assignment:
    return oracle.assigned_by_us(force_field, assigner.assign(read_mapped_smiles(smiles)))


def _by_interchange(reference: Any, smiles: str, *, allow_undefined_stereo: bool) -> oracle.Assignment:
    return oracle.assigned_by_interchange(oracle.interchange(reference, smiles, allow_undefined_stereo=allow_undefined_stereo))


def _outcome(assign: Callable[[], oracle.Assignment]) -> oracle.Assignment | str:
    """Return the assignment, or the name of the exception."""
    try:
        return assign()
    except (MoleculeError, ValueError, RuntimeError, toolkit_exceptions.OpenFFToolkitException) as error:
        return type(error).__name__
    except interchange_exceptions.InterchangeException as error:
        return type(error).__name__


def _first_difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, str) or isinstance(theirs, str):
        return (
            f"{ours if isinstance(ours, str) else 'assigned'}; Interchange: {theirs if isinstance(theirs, str) else 'assigned'}"
        )
    where = min(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return f"{where}: {ours.get(where)}; Interchange: {theirs.get(where)}"


@pytest.mark.parametrize(
    "name",
    [
        SAGE,
        pytest.param("openff_unconstrained-2.2.1.offxml", marks=pytest.mark.slow),
        pytest.param("openff_unconstrained-2.0.0.offxml", marks=pytest.mark.slow),
    ],
)
def test_functional_groups_as_interchange(name: str) -> None:
    n_terms, differences = _differences(name, map(oracle.mapped, FUNCTIONAL_GROUPS))
    assert differences == []
    assert n_terms > 5000


def test_hard_molecules_as_interchange() -> None:
    n_terms, differences = _differences(SAGE, map(oracle.mapped, HARD))
    assert differences == []
    assert n_terms > 500


def test_molecules_of_built_in_sources_as_interchange() -> None:
    smiles = [entry.smiles for entry in MOLECULES]
    smiles += [one.replace("N=N", "/N=N/") for one in MD17_MOLECULES.values()]  # stereo of azobenzene comes from its geometry
    n_terms, differences = _differences(SAGE, map(oracle.mapped, smiles))
    assert differences == []
    assert n_terms > 4000


@pytest.mark.slow
def test_golden_molecules_as_interchange(real_data: Path) -> None:
    files = ("smee-openff-2.1.0.npz", "nagl-am1bcc-1.0.0.npz")
    smiles = [str(one) for file in files for one in np.load(real_data / "golden" / file)["smiles"]]
    n_terms, differences = _differences(SAGE, smiles)
    assert differences == []
    assert len(smiles) == 153
    assert n_terms > 40000


def test_espaloma_molecules_as_interchange(real_data: Path) -> None:
    folder = real_data / "mirror" / "espaloma"
    entries = [entry for path in sorted(folder.iterdir()) for entry in read_entries(path, path.name.removesuffix(".tar.gz"))]
    smiles = {mapped_smiles(build_molecule(read_openff_json(entry.files["mol.json"], entry.id))) for entry in entries}
    # The phosphates of RNA have no stereo, though the toolkit takes them for stereocenters.
    n_terms, differences = _differences(SAGE, sorted(smiles), allow_undefined_stereo=True)
    assert differences == []
    assert n_terms > 2000


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(=O)NC",
        "O=[N+]([O-])c1ccccc1",
        "NC(N)=[NH2+]",
        "C=CC(=O)[O-]",
        "COP(=O)([O-])OC",
        "CN(C)c1ccc(F)cc1",
        "CS(=O)(=O)NC#C",
    ],
)
def test_energy_as_openmm(smiles: str) -> None:
    """What is stored is enough: no other number of Interchange's is needed to get OpenMM's energy of strained conformers."""
    with oracle.frozen_objects():
        reference = molecule(smiles, n_conformers=3, jitter=0.1)
    force_field, topology = _parameterized(reference.smiles, reference.charges)
    energies = [_energy(force_field, topology, coords) for coords in reference.coords]
    expected, _ = openmm_energy_forces(reference)
    assert np.abs(np.array(energies) - expected).max() < 1e-6


def _parameterized(smiles: str, charges: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[ForceField, Topology]:
    force_field, patterns, _ = _ours(SAGE)
    found = read_mapped_smiles(smiles)
    elements = np.array([atom.GetAtomicNum() for atom in found.GetAtoms()], dtype=np.int32)
    total_charge = sum(atom.GetFormalCharge() for atom in found.GetAtoms())
    topology = parameterize(Setup(patterns, ("dataset",)), Request(smiles, elements.tobytes(), charges.tobytes(), total_charge))
    assert isinstance(topology, Topology), topology
    return force_field, topology


def _energy(force_field: ForceField, topology: Topology, coords: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Energy [kcal/mol] of one conformer [Å], written out as the SMIRNOFF specification has it."""
    values = {handler: table.values[topology.parameters(handler)].T for handler, table in force_field.tables.items()}
    i, j = topology.bonds.T
    k, length = values["Bonds"]
    energy = np.sum(k / 2 * (np.linalg.norm(coords[j] - coords[i], axis=1) - length) ** 2)
    i, j, m = topology.angles.T
    k, angle = values["Angles"]
    a, b = coords[i] - coords[j], coords[m] - coords[j]
    theta = np.arccos(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    energy += np.sum(k / 2 * (theta - angle) ** 2)
    for handler, atoms in (("ProperTorsions", topology.propers), ("ImproperTorsions", topology.impropers)):
        k, periodicity, phase, idivf = values[handler]
        energy += np.sum(k / idivf * (1 + np.cos(periodicity * _dihedrals(coords, atoms) - phase)))
    return float(energy + _nonbonded(force_field, topology, coords, *values["vdW"]))


def _dihedrals(coords: Any, atoms: Any) -> Any:
    i, j, k, m = atoms.T
    a, b, c = coords[j] - coords[i], coords[k] - coords[j], coords[m] - coords[k]
    first, second = np.cross(a, b), np.cross(b, c)
    sine = np.sum(a * second, axis=1) * np.linalg.norm(b, axis=1)
    return np.arctan2(sine, np.sum(first * second, axis=1))


def _nonbonded(force_field: ForceField, topology: Topology, coords: Any, epsilon: Any, sigma: Any) -> float:
    adjacent = np.zeros((topology.n_atoms, topology.n_atoms), dtype=int)
    adjacent[tuple(topology.connectivity.T)] = 1
    adjacent += adjacent.T
    reach = [np.linalg.matrix_power(np.eye(topology.n_atoms, dtype=int) + adjacent, n) > 0 for n in (2, 3)]
    energy = 0.0
    for i in range(topology.n_atoms):
        for j in range(i):
            if reach[0][i, j]:
                continue
            scales = (force_field.vdw_scale_14, force_field.electrostatics_scale_14) if reach[1][i, j] else (1.0, 1.0)
            r = np.linalg.norm(coords[i] - coords[j])
            ratio = ((sigma[i] + sigma[j]) / 2 / r) ** 6
            energy += scales[0] * 4 * np.sqrt(epsilon[i] * epsilon[j]) * (ratio**2 - ratio)
            energy += scales[1] * COULOMB * topology.charges[i] * topology.charges[j] / r
    return energy


def _assign(smiles: str) -> None:
    _ours(SAGE)[2].assign(read_mapped_smiles(smiles))


def test_an_atom_without_van_der_waals_parameter_is_refused() -> None:
    """Interchange lets it pass."""
    with pytest.raises(exceptions.UnassignedVdWError, match="no vdW parameter for atom He:1"):
        _assign("[He:1]")


def test_a_term_without_parameter_is_named() -> None:
    with pytest.raises(exceptions.UnassignedBondError, match=r"no Bonds parameter for bond C:1-B:2 and 2 more"):
        _assign("[C:1]([B:2]([O:3][H:4])[O:5][H:6])([H:7])([H:8])[H:9]")


def test_a_molecule_held_rigid_is_refused() -> None:
    with pytest.raises(exceptions.ConstrainedMoleculeError, match="c-tip3p-H-O holds H:2-O:1 at a fixed distance"):
        _assign("[O:1]([H:2])[H:3]")


WATER = "[H:1][O:2][H:3]"


def test_matches_are_by_tag_and_in_every_order() -> None:
    assert set(Pattern("[#1:2]-[#8:1]-[#1:3]").matches(read_mapped_smiles(WATER))) == {(1, 0, 2), (1, 2, 0)}
    assert set(Pattern("[#1]-[#8:1]").matches(read_mapped_smiles(WATER))) == {(1,)}


def test_stereochemistry_is_respected() -> None:
    pattern = Pattern("[#6](-[#9:1])(-[#1])(-[#17])=[#6]", 1)
    assert pattern.matches(read_mapped_smiles(WATER)) == []
    chiral = Pattern("[#9:1]-[C@](-[#17])(-[#35])-[#53]")
    matched = [bool(chiral.matches(read_mapped_smiles(f"[C{tag}:1]([F:2])([Cl:3])([Br:4])[I:5]"))) for tag in ("@", "@@")]
    assert sorted(matched) == [False, True]


@pytest.mark.parametrize(
    ("smarts", "n_tags", "message"),
    [
        ("[#6:1", 1, r"SMARTS '\[#6:1' cannot be read by RDKit"),
        ("[#6]", None, r"has the tags \[\]; expected 1 to 1"),
        ("[#6:1]-[#6:3]", 2, r"has the tags \[1, 3\]; expected 1 to 2"),
        ("[#6:1]-[#6:2]", 3, r"has the tags \[1, 2\]; expected 1 to 3"),
        ("[#6:1]-[#6:1]", 2, r"has the tags \[1, 1\]; expected 1 to 2"),
    ],
)
def test_unusable_patterns_are_refused(smarts: str, n_tags: int | None, message: str) -> None:
    with pytest.raises(ForceFieldError, match=message):
        Pattern(smarts, n_tags)
