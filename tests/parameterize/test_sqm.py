"""AmberTools' antechamber, played by a program that checks what it is given and writes what antechamber writes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize import sqm
from pesfit.parameterize.sqm import missing_programs, sqm_charges

ANTECHAMBER = """#!{python}
import os, subprocess, sys
from pathlib import Path
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("Welcome to antechamber 22.0: molecular input file processor.")
with open({log!r}, "a") as log:
    print(*sys.argv[1:], "OMP_NUM_THREADS=" + os.environ["OMP_NUM_THREADS"], file=log)
{body}
"""

WORKS = """
source = Path(arguments["-i"]).read_text()
if arguments["-c"] == "bcc":
    counts = source.splitlines()[3]
    n_atoms = int(counts[:3])
    assert subprocess.run(["sqm", "-O"]).returncode == 0
    atoms = [line.split() for line in source.splitlines()[4 : 4 + n_atoms]]
    charges = [0.1 * index + 0.000123 for index in range(n_atoms)]
    lines = ["@<TRIPOS>MOLECULE", "MOL", f"{n_atoms:5d}     0     1     0     0", "SMALL", "bcc", "", "", "@<TRIPOS>ATOM"]
    for index, (atom, charge) in enumerate(zip(atoms, charges)):
        lines.append(f"{index + 1:7d} {atom[3]}{index + 1:<3d} {atom[0]:>12s} {atom[1]:>8s} {atom[2]:>8s} c3  1 MOL {charge:13.6f}")
    Path(arguments["-o"]).write_text("\\n".join(lines) + "\\n")
else:
    charges = [float(line.split()[-1]) for line in source.split("@<TRIPOS>ATOM")[1].splitlines() if line.strip()]
    rows = ["".join(f"{charge:10.6f}" for charge in charges[start : start + 8]) for start in range(0, len(charges), 8)]
    Path(arguments["-cf"]).write_text("\\n".join(rows) + "\\n")
    Path(arguments["-o"]).write_text(source)
"""

SCF_FAILS = """
Path("sqm.out").write_text(\"\"\"
  QMMM: SINGLET STATE CALCULATION
QMMM: ERROR!
QMMM: Unable to achieve self consistency to the tolerances specified
QMMM: No convergence in SCF after   1000 steps.
\"\"\")
print("/opt/amber/bin/wrapped_progs/antechamber: Fatal Error!")
print('Cannot properly run "/opt/amber/bin/sqm -O -i sqm.in -o sqm.out".')
sys.exit(1)
"""

OPEN_SHELL = """
print("Info: The number of electrons is odd (15).")
print("Please check the total charge (-nc flag) and spin multiplicity (-m flag).")
sys.exit(1)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "commands.txt"


def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path, body: str, sqm_body: str = "exit 0") -> None:
    """Put antechamber and sqm on PATH, and nothing else that is called like that."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "antechamber").write_text(ANTECHAMBER.format(python=sys.executable, log=str(log), body=body))
    (folder / "sqm").write_text(f"#!/bin/sh\n{sqm_body}\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))


def with_hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def test_charges_are_read_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    install(monkeypatch, tmp_path, log, WORKS)
    charges = sqm_charges(with_hydrogens("CC(=O)[O-]"), -1)
    np.testing.assert_allclose(charges, 0.1 * np.arange(7) + 0.000123, rtol=0, atol=1e-9)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_commands_are_those_of_the_openff_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    install(monkeypatch, tmp_path, log, WORKS)
    sqm_charges(with_hydrogens("CC(=O)[O-]"), -1)
    assert log.read_text().splitlines() == [
        "-i molecule.sdf -fi sdf -o charged.mol2 -fo mol2 -pf yes -dr n -c bcc -nc -1 OMP_NUM_THREADS=1",
        "-dr n -i charged.mol2 -fi mol2 -o charges2.mol2 -fo mol2 -c wc -cf charges.txt -pf yes OMP_NUM_THREADS=1",
    ]


def test_molecule_is_written_with_one_conformer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    copy = tmp_path / "given.sdf"
    keep = f"if arguments['-c'] == 'bcc':\n    Path({str(copy)!r}).write_text(Path('molecule.sdf').read_text())\n"
    install(monkeypatch, tmp_path, log, keep + WORKS)
    molecule = with_hydrogens("C[C@H](N)C(=O)[O-]")
    sqm_charges(molecule, -1)
    first = copy.read_bytes()
    sqm_charges(molecule, -1)
    assert copy.read_bytes() == first
    (given,) = Chem.SDMolSupplier(str(copy), removeHs=False)
    assert [atom.GetAtomicNum() for atom in given.GetAtoms()] == [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    assert Chem.MolToSmiles(Chem.RemoveHs(given)) == "C[C@H](N)C(=O)[O-]"
    distances = Chem.Get3DDistanceMatrix(given) + 10 * np.eye(given.GetNumAtoms())
    assert 0.9 < distances.min() < 1.2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (SCF_FAILS, r"exit status 1 .* sqm: QMMM: ERROR! QMMM: Unable to achieve self consistency"),
        (OPEN_SHELL, r"exit status 1 and wrote no charged\.mol2: .*total charge"),
        ("pass", r"exit status 0 and wrote no charged\.mol2: Welcome to antechamber"),
        (WORKS.replace("{charge:10.6f}", "   *******"), r"charges\.txt is not a list of numbers"),
        (
            WORKS.replace("charges[start : start + 8]", "charges[start : start + 3]"),
            r"charges\.txt holds 3 charges, expected 7",
        ),
        (WORKS.replace('Path(arguments["-cf"]).write_text', "str.strip"), r"wrote no charges\.txt"),
    ],
)
def test_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path, body: str, said: str) -> None:
    install(monkeypatch, tmp_path, log, body)
    with pytest.raises(MoleculeError, match=said):
        sqm_charges(with_hydrogens("CC(=O)[O-]"), -1)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_is_given_up_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    pid = tmp_path / "sqm.pid"
    install(monkeypatch, tmp_path, log, WORKS, sqm_body=f"echo $$ > {pid}\nexec sleep 600")
    with pytest.raises(MoleculeError, match=r"not done after 1\.5 s"):
        sqm_charges(with_hydrogens("C"), 0, time_limit=1.5)
    process = Path("/proc") / pid.read_text().strip()
    while process.exists() and "Z" not in (process / "stat").read_text().split()[2]:
        time.sleep(0.02)


def test_no_conformer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path) -> None:
    install(monkeypatch, tmp_path, log, WORKS)
    monkeypatch.setattr(sqm.rdDistGeom, "EmbedMolecule", lambda *_: -1)
    with pytest.raises(MoleculeError, match="no conformer"):
        sqm_charges(with_hydrogens("C"), 0)
    assert not log.exists()


def test_missing_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_programs() == ("antechamber", "sqm")
    (tmp_path / "sqm").write_text("#!/bin/sh\n")
    (tmp_path / "sqm").chmod(0o755)
    assert missing_programs() == ("antechamber",)
