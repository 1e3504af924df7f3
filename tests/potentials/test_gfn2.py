"""GFN2-xTB against published energies, tblite's own ASE calculator and numerical derivatives; and the same bits each time."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError, PesfitError
from pesfit.core.units import BOHR, EV, HARTREE
from pesfit.potentials.gfn2 import Gfn2


def embedded(smiles: str) -> tuple[IntArray, FloatArray, int]:
    """Return atomic numbers, coordinates [Å] and total charge of an ETKDG conformer, which is not at a minimum of GFN2."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
    return numbers, np.array(mol.GetConformer().GetPositions()), Chem.GetFormalCharge(mol)


def test_energy_of_silane_is_what_the_documentation_of_tblite_prints() -> None:
    silane = np.array([[0, 0, 0], [1, 1, -1], [-1, -1, -1], [1, -1, 1], [-1, 1, 1]]) * 1.617683897558
    energy = Gfn2(np.array([14, 1, 1, 1, 1], dtype=np.int32), 0).energy_and_forces(silane * BOHR).energy
    assert energy / HARTREE == pytest.approx(-3.7632337506836944, abs=1e-8)


@pytest.mark.parametrize("smiles", ["CCO", "CC(=O)[O-]", "CNC(N)=[NH2+]", "CS(=O)(=O)c1cccc(Br)c1"])
def test_energy_and_forces_are_those_of_the_ase_calculator(smiles: str) -> None:
    import ase
    from tblite.ase import TBLite

    numbers, coords, charge = embedded(smiles)
    ours = Gfn2(numbers, charge).energy_and_forces(coords)
    atoms = ase.Atoms(numbers=numbers, positions=coords)
    atoms.calc = TBLite(method="GFN2-xTB", charge=charge, accuracy=0.01, verbosity=0)
    # ASE's units rest on the CODATA constants of 2014: 1e-8 of an energy of 1e4 kcal/mol.
    assert ours.energy == pytest.approx(atoms.get_potential_energy() * EV, abs=1e-3)
    np.testing.assert_allclose(ours.forces, atoms.get_forces() * EV, rtol=0, atol=1e-4)


@pytest.mark.parametrize("smiles", ["CCO", "CC(=O)[O-]", "COP(=O)([O-])OC"])
def test_forces_are_the_negative_gradient(smiles: str) -> None:
    numbers, coords, charge = embedded(smiles)
    gfn2 = Gfn2(numbers, charge)
    forces = gfn2.energy_and_forces(coords).forces
    for atom in (0, len(numbers) // 2, len(numbers) - 1):
        for axis in range(3):
            shift = np.zeros_like(coords)
            shift[atom, axis] = 0.004
            e = {k: gfn2.energy_and_forces(coords + k * shift).energy for k in (-2, -1, 1, 2)}
            slope = (e[-2] - 8 * e[-1] + 8 * e[1] - e[2]) / (12 * 0.004)
            assert forces[atom, axis] == pytest.approx(-slope, abs=2e-3)


def test_a_call_leaves_no_trace_in_the_next() -> None:
    numbers, coords, charge = embedded("NCC=O")
    first = Gfn2(numbers, charge).energy_and_forces(coords)
    gfn2 = Gfn2(numbers, charge)
    for scale in (1.01, 0.97, 1.0):
        last = gfn2.energy_and_forces(coords * scale)
    assert last.energy == first.energy
    assert last.forces.tobytes() == first.forces.tobytes()


def test_bits_do_not_depend_on_the_number_of_threads_or_the_process() -> None:
    numbers, coords, charge = embedded("NS(=O)(=O)c1ccccc1")
    here = Gfn2(numbers, charge).energy_and_forces(coords)
    script = (
        "import sys, numpy as np\nfrom pesfit.potentials.gfn2 import Gfn2\n"
        f"x = np.frombuffer(bytes.fromhex('{coords.tobytes().hex()}')).reshape(-1, 3)\n"
        f"r = Gfn2(np.array({numbers.tolist()}, dtype=np.int32), {charge}).energy_and_forces(x)\n"
        "sys.stdout.write(np.float64(r.energy).tobytes().hex() + r.forces.tobytes().hex())\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert there == np.float64(here.energy).tobytes().hex() + here.forces.tobytes().hex()


def test_the_caller_gets_its_number_of_threads_back() -> None:
    numbers, coords, charge = embedded("C")
    gfn2 = Gfn2(numbers, charge)
    openmp = ctypes.CDLL("libgomp.so.1")
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(3)
    try:
        gfn2.energy_and_forces(coords)
        assert openmp.omp_get_max_threads() == 3
    finally:
        openmp.omp_set_num_threads(before)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    numbers, coords, charge = embedded("CO")
    Gfn2(numbers, charge).energy_and_forces(coords)
    with pytest.raises(MoleculeError):
        Gfn2(numbers, charge).energy_and_forces(coords * 0.0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("numbers", "charge", "uhf", "message"),
    [
        ([8, 1, 87], 0, 0, r"1 to 86; this molecule has \[87\]"),
        ([0, 118, 1, 1], 0, 0, r"this molecule has \[0, 118\]"),
        ([8, 1], 0, 0, r"9 electrons \(total charge \+0\) cannot have 0 of them unpaired"),
        ([8, 1, 1], 1, 0, r"9 electrons \(total charge \+1\) cannot have 0 of them unpaired"),
        ([8, 1, 1], 0, 1, "10 electrons .* cannot have 1 of them unpaired"),
        ([1], 0, 3, "1 electrons .* cannot have 3"),
        ([], 0, 0, "at least one atom"),
    ],
)
def test_molecules_it_cannot_treat_are_refused(numbers: list[int], charge: int, uhf: int, message: str) -> None:
    with pytest.raises(MoleculeError, match=message):
        Gfn2(np.array(numbers, dtype=np.int32), charge, uhf)


def test_an_open_shell_is_treated_when_asked_for() -> None:
    coords = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.97]])
    hydroxyl = Gfn2(np.array([8, 1], dtype=np.int32), 0, uhf=1).energy_and_forces(coords).energy
    hydroxide = Gfn2(np.array([8, 1], dtype=np.int32), -1).energy_and_forces(coords).energy
    assert hydroxide < hydroxyl - 20.0  # it binds the electron


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (np.zeros((2, 3)), r"coords has shape \(2, 3\); expected \(3, 3\)"),
        (np.array([[0, 0, 0], [0, 0, 1.0], [0, np.nan, 0]]), "not finite"),
        (np.zeros((3, 3)), "Too close interatomic distances"),
    ],
)
def test_coordinates_it_cannot_treat_are_refused(coords: FloatArray, message: str) -> None:
    with pytest.raises(MoleculeError, match=message):
        Gfn2(np.array([8, 1, 1], dtype=np.int32), 0).energy_and_forces(coords)


def test_a_field_that_does_not_converge_is_a_molecule_error() -> None:
    metals = Gfn2(np.array([26, 26, 24, 8, 7], dtype=np.int32), -3)
    coords = np.array([[4.1, -5.1, 0.8], [-1.1, -0.9, -0.4], [-4.0, -0.5, -1.7], [6.6, 0.5, -0.7], [-0.6, -1.3, -2.1]])
    with pytest.raises(MoleculeError, match="SCF not converged in 250 cycles"):
        metals.energy_and_forces(coords)


def test_where_the_system_has_no_openmp_runtime_the_copy_in_torch_does() -> None:
    script = (
        "import ctypes, numpy as np\n"
        "load = ctypes.CDLL\n"
        "def bare(name, *args, **kwargs):\n"
        "    if name == 'libgomp.so.1':\n"
        "        raise OSError(name)\n"
        "    return load(name, *args, **kwargs)\n"
        "ctypes.CDLL = bare\n"
        "from pesfit.potentials.gfn2 import Gfn2\n"
        "x = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0.9, -0.3]])\n"
        "print(Gfn2(np.array([8, 1, 1], dtype=np.int32), 0).energy_and_forces(x).energy.hex())\n"
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line})\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    lines = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    energy, libraries = lines.splitlines()
    x = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0.9, -0.3]])
    assert energy == Gfn2(np.array([8, 1, 1], dtype=np.int32), 0).energy_and_forces(x).energy.hex()
    assert "torch" in libraries
    assert libraries.count("libgomp") == 1


def test_where_there_is_no_openmp_runtime_at_all_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object, **__: object) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PesfitError, match=r"libgomp\.so\.1, which is not on this system; install it"):
        Gfn2(np.array([1, 1], dtype=np.int32), 0)
