"""Atomrefs: what each element contributes to energies, so that the network learns the small rest; and the scale of that rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.painn.train.graphs import TrainingData


@dataclass(frozen=True)
class Atomrefs:
    """Atomrefs and a scale.

    Attributes:
        elements: atomic numbers, ascending.
        values: [kcal/mol], of each element, shape (n_elements,).
        scale: [kcal/mol], what an energy of 1 of the network is worth.
    """

    elements: tuple[int, ...]
    values: FloatArray
    scale: float


def fit_atomrefs(data: TrainingData) -> Atomrefs:
    """Fit one energy for each element by least squares in float64, and take the root mean square of forces for the scale.

    ::

        min_e Σ_c (E_c - Σ_elements n_c,element e_element)²

    Conformers of a row have the same composition, so that rows with the mean energy and the number of their conformers as weight give
    the same optimum. Where compositions do not fix every element (one molecule alone, say) it is the solution of least norm.

    A network whose energies are of order 1 per atom and Å then has forces of about the right size from the start. Without forces, the
    scale is the root mean square of what is left of the energies, and 1 where nothing is.

    Args:
        data: the training split.
    """
    elements = data.elements
    n_conformers = np.bincount(data.row, minlength=len(data.rows))
    energy = data.energy.cpu().numpy()
    mean = np.bincount(data.row, weights=energy) / n_conformers
    counts = np.zeros((len(data.rows), len(elements)))
    np.add.at(counts, (data.row_of_atom, np.searchsorted(elements, data.atomic_numbers.cpu().numpy())), 1.0)
    weight = np.sqrt(n_conformers)
    values, *_ = np.linalg.lstsq(weight[:, None] * counts, weight * mean, rcond=None)
    n_components = 3 * int((data.n_atoms * data.has_forces).sum())
    rest = energy - (counts @ values)[data.row]
    square = float((data.forces**2).sum()) / n_components if n_components else float(np.mean(rest**2))
    return Atomrefs(elements, values.astype(np.float64), float(np.sqrt(square)) if square > 0.0 else 1.0)
