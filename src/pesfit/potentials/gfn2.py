"""GFN2-xTB energies and forces from tblite, with the same bits on every call.

The method: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Two things would change the last bits of a label, and
neither happens here: starting the self-consistent field from an earlier solution, and sums that several threads share.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError, PesfitError
from pesfit.core.units import BOHR, HARTREE

LEVEL_OF_THEORY = "GFN2-xTB"
MAX_ATOMIC_NUMBER = 86
"""GFN2-xTB has parameters for the elements from hydrogen to radon."""

_ACCURACY = 0.01
"""tblite's threshold factor: energies converge to about 1e-8 hartree, 100 times tighter than its default of 1."""


@dataclass(frozen=True)
class EnergyAndForces:
    """Energy and forces of one conformer.

    Attributes:
        energy: [kcal/mol].
        forces: [kcal/mol/Å], -dE/dx, shape (n_atoms, 3).
    """

    energy: float
    forces: FloatArray


class Gfn2:
    """GFN2-xTB for one molecule in vacuum, at tblite's default electronic temperature of 300 K.

    Every call stands alone: it starts from the superposition of atomic densities and runs on one thread, so that a label depends on
    the coordinates only, and not on what was computed before or on `OMP_NUM_THREADS`.

    Args:
        atomic_numbers: shape (n_atoms,), 1 to 86.
        total_charge: [e].
        uhf: number of unpaired electrons.

    Raises:
        MoleculeError: if an element is not covered, or the number of electrons does not allow `uhf` unpaired ones.
    """

    def __init__(self, atomic_numbers: IntArray, total_charge: int, uhf: int = 0) -> None:
        numbers = np.asarray(atomic_numbers, dtype=np.int32)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise MoleculeError(f"atomic_numbers has shape {numbers.shape}; GFN2-xTB needs (n_atoms,) with at least one atom")
        unknown = sorted({int(number) for number in numbers if not 1 <= number <= MAX_ATOMIC_NUMBER})
        if unknown:
            raise MoleculeError(
                f"GFN2-xTB covers the elements with atomic numbers 1 to {MAX_ATOMIC_NUMBER}; this molecule has {unknown}"
            )
        n_electrons = int(numbers.sum()) - total_charge
        if uhf < 0 or n_electrons < uhf or (n_electrons - uhf) % 2:
            # tblite itself would quietly take another number of unpaired electrons where none were asked for.
            raise MoleculeError(f"{n_electrons} electrons (total charge {total_charge:+d}) cannot have {uhf} of them unpaired")
        self._numbers, self._total_charge, self._uhf = numbers, total_charge, uhf
        self._tblite, self._openmp = _load_tblite()

    def energy_and_forces(self, coords: FloatArray) -> EnergyAndForces:
        """Compute the energy and its negative gradient.

        Args:
            coords: [Å], shape (n_atoms, 3).

        Raises:
            MoleculeError: if coordinates are not finite or have the wrong shape, atoms coincide, or the self-consistent field does
                not converge.
        """
        coords = np.asarray(coords, dtype=np.float64)
        if coords.shape != (len(self._numbers), 3):
            raise MoleculeError(f"coords has shape {coords.shape}; expected {(len(self._numbers), 3)}")
        if not np.isfinite(coords).all():
            raise MoleculeError("GFN2-xTB was given coordinates that are not finite")
        try:
            with _one_thread(self._openmp):
                calculator = self._tblite.Calculator(
                    LEVEL_OF_THEORY, self._numbers, coords / BOHR, charge=float(self._total_charge), uhf=self._uhf
                )
                calculator.set("verbosity", 0)
                calculator.set("accuracy", _ACCURACY)
                result = calculator.singlepoint()
        except RuntimeError as error:
            raise MoleculeError(f"GFN2-xTB: {error}") from error
        energy = float(result.get("energy")) * HARTREE
        forces = np.asarray(result.get("gradient"), dtype=np.float64) * (-HARTREE / BOHR)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise MoleculeError("GFN2-xTB returned an energy or a force that is not finite")
        return EnergyAndForces(energy, forces)


def _load_tblite() -> tuple[Any, ctypes.CDLL]:
    """Return tblite's Python interface and the OpenMP runtime that it is linked to."""
    openmp = _openmp_runtime()
    import tblite.interface

    return tblite.interface, openmp


def _openmp_runtime() -> ctypes.CDLL:
    """Load the OpenMP runtime, which tblite's wheel expects on the system.

    Bare images of Python come without it. torch brings a copy of the same name, and what is loaded once is found by all.
    """
    name = "libgomp.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        torch = importlib.util.find_spec("torch")
        for folder in (torch and torch.submodule_search_locations) or ():
            copy = Path(folder) / "lib" / name
            if copy.is_file():
                return ctypes.CDLL(str(copy), mode=ctypes.RTLD_GLOBAL)
    raise PesfitError(
        f"tblite needs the OpenMP runtime {name}, which is not on this system; install it (Debian: apt install libgomp1)"
    )


@contextmanager
def _one_thread(openmp: ctypes.CDLL) -> Iterator[None]:
    """Run OpenMP regions that this thread enters on one thread: the order of a sum that several share is undefined."""
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        openmp.omp_set_num_threads(before)
