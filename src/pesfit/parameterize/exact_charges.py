"""Partial charges that add up to the total charge exactly, in any order of summation."""

from __future__ import annotations

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.parameterize.errors import NonFiniteChargeError, NonIntegralMoleculeChargeError

MAX_DEVIATION = 0.01
"""[e] by which partial charges may miss the total charge; the same as Interchange allows."""

_GRID = 2.0**-46
"""[e], 1.4e-14. Sums of multiples of it below 128 e have no rounding error in float64."""


def with_exact_sum(charges: FloatArray, total_charge: int) -> FloatArray:
    """Spread what partial charges miss of the total charge evenly over the atoms.

    Charges are put on a grid of 2^-46 e, on which float64 adds without rounding: the sum is exact whatever its order. What cannot be
    spread evenly on the grid goes in single steps to the first atoms.

    Args:
        charges: [e], shape (n_atoms,).
        total_charge: [e].

    Returns:
        [e], shape (n_atoms,), each within `MAX_DEVIATION` / n_atoms + 1.4e-14 e of what it was.

    Raises:
        NonFiniteChargeError: where a charge is not finite.
        NonIntegralMoleculeChargeError: where the sum is off by more than `MAX_DEVIATION`.
    """
    if not np.isfinite(charges).all():
        atom = int(np.argmin(np.isfinite(charges)))
        raise NonFiniteChargeError(f"the partial charge of atom {atom + 1} is {charges[atom]}; a finite number is needed")
    missing = total_charge - float(np.sum(charges))
    if abs(missing) > MAX_DEVIATION:
        raise NonIntegralMoleculeChargeError(
            f"partial charges add up to {np.sum(charges):.6f} e and formal charges to {total_charge} e; they may differ by "
            f"{MAX_DEVIATION} e"
        )
    steps = np.rint((charges + missing / len(charges)) / _GRID).astype(np.int64)
    left = round(total_charge / _GRID) - int(steps.sum())
    every, first = divmod(left, len(steps))
    steps += every
    steps[:first] += 1
    return steps.astype(np.float64) * _GRID
