"""AM1-BCC charges from AmberTools, whose `antechamber` and `sqm` have to be on PATH.

The commands are the OpenFF toolkit's (`AmberToolsToolkitWrapper.assign_partial_charges`): `antechamber -c bcc` relaxes one conformer with
AM1 by calling sqm and adds bond charge corrections (Jakalian, Jack, Bayly, https://doi.org/10.1002/jcc.10128); a second call
writes the charges to a file of their own. They are those of one conformer, not averaged over several as in AM1-BCC-ELF10.

Tested are the files written for antechamber, the commands, the reading of its output and every way to fail, against a program of that
name which the tests write. AmberTools itself is not part of the test environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError

PROGRAMS = ("antechamber", "sqm")
TIME_LIMIT = 3600.0
"""Seconds after which a calculation is given up; large drugs take 90."""

_SEED = 1
_MAX_MESSAGE = 300


def missing_programs() -> tuple[str, ...]:
    """Return which of AmberTools' programs are not on PATH."""
    return tuple(program for program in PROGRAMS if shutil.which(program) is None)


def sqm_charges(mol: Chem.Mol, total_charge: int, *, time_limit: float = TIME_LIMIT) -> FloatArray:
    """Return AM1-BCC charges of one conformer.

    Args:
        mol: one connected molecule, all hydrogens explicit, stereochemistry assigned. Conformers it may have are not used.
        total_charge: [e].
        time_limit: [s].

    Returns:
        [e], shape (n_atoms,), as antechamber printed them: 6 decimals, made of sqm's 3.

    Raises:
        MoleculeError: with antechamber's message, if there is no conformer or a program fails, gives no charges or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="pesfit-sqm-") as name:
        folder = Path(name)
        (folder / "molecule.sdf").write_text(_sdf(mol), encoding="ascii")
        convert = ["-i", "molecule.sdf", "-fi", "sdf", "-o", "charged.mol2", "-fo", "mol2", "-pf", "yes", "-dr", "n"]
        _run([*convert, "-c", "bcc", "-nc", str(total_charge)], folder, time_limit, "charged.mol2")
        write = ["-dr", "n", "-i", "charged.mol2", "-fi", "mol2", "-o", "charges2.mol2", "-fo", "mol2", "-c", "wc"]
        _run([*write, "-cf", "charges.txt", "-pf", "yes"], folder, time_limit, "charges.txt")
        return _read_charges(folder / "charges.txt", mol.GetNumAtoms())


def _sdf(mol: Chem.Mol) -> str:
    """Return the molecule with one conformer by distance geometry, the same on every call."""
    copy = Chem.Mol(mol)
    for atom in copy.GetAtoms():
        atom.SetAtomMapNum(0)
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = _SEED  # type: ignore[assignment]
    with rdBase.BlockLogs():
        conformer = rdDistGeom.EmbedMolecule(copy, parameters)
        if conformer < 0:
            parameters.useRandomCoords = True  # type: ignore[assignment]
            conformer = rdDistGeom.EmbedMolecule(copy, parameters)
    if conformer < 0:
        raise MoleculeError("RDKit finds no conformer to start from")
    return f"{Chem.MolToMolBlock(copy)}$$$$\n"


def _run(arguments: Sequence[str], folder: Path, time_limit: float, result: str) -> None:
    """Run antechamber in a session of its own, so that sqm, which it starts, can be ended with it."""
    with subprocess.Popen(  # noqa: S603 (no shell; the arguments are names from this file and a number)
        ["antechamber", *arguments],  # noqa: S607 (the user's PATH finds AmberTools)
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired as error:
            raise MoleculeError(f"antechamber was not done after {time_limit:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0 or not (folder / result).is_file():
        message = _error_message(output.decode(errors="replace"), folder)
        raise MoleculeError(f"antechamber ended with exit status {process.returncode} and wrote no {result}: {message}")


def _error_message(output: str, folder: Path) -> str:
    """Return the error in one line: from sqm's output, or else the last lines that antechamber printed."""
    sqm_out = folder / "sqm.out"
    text = sqm_out.read_text(errors="replace") if sqm_out.is_file() else ""
    complaints = [line.strip() for line in text.splitlines() if "ERROR" in line or "Unable" in line]
    if complaints:
        return f"sqm: {' '.join(complaints)}"[:_MAX_MESSAGE]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "cannot" in line.lower()]
    return " ".join(errors or lines[-3:])[:_MAX_MESSAGE] or "it printed nothing"


def _read_charges(path: Path, n_atoms: int) -> FloatArray:
    words = path.read_text(errors="replace").split()
    try:
        charges = np.array([float(word) for word in words])
    except ValueError as error:
        raise MoleculeError(f"antechamber's {path.name} is not a list of numbers: {error}") from error
    if len(charges) != n_atoms:
        raise MoleculeError(f"antechamber's {path.name} holds {len(charges)} charges, expected {n_atoms}")
    return charges
