"""The fitted force field as its users get it: the files, with their charges and their history, and checks of them.

- `force-field.offxml`: the file of the starting force field with other numbers, the charges that were fitted with, and a comment at its
  head; read back, and tried in OpenMM (`openmm_check`).
- `force-field-constrained.offxml`: the same with bonds to hydrogen held at fixed length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pesfit.core.arrays import FloatArray
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.smirnoff.export import check_offxml, write_constrained, write_offxml
from pesfit.smirnoff.exported_charges import choose_charges
from pesfit.smirnoff.fit_data import FitInputs, MoleculeRows
from pesfit.smirnoff.openmm_check import check_in_openmm, checked_molecules, order_of_magnitude
from pesfit.smirnoff.parameters import AddedPeriodicities
from pesfit.smirnoff.provenance import provenance

OFFXML, CONSTRAINED_OFFXML = "force-field.offxml", "force-field-constrained.offxml"


def export_force_field(  # noqa: PLR0913 - all that is known of a fit
    output: Path,
    inputs: FitInputs,
    molecules: Sequence[MoleculeRows],
    extension: AddedPeriodicities,
    fitted: ForceField,
    *,
    params: FitSmirnoff,
    trained_charges: Sequence[tuple[str, FloatArray]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a fitted force field and check what was written.

    Args:
        output: folder to write to.
        inputs: what was fitted to.
        molecules: of the fit.
        extension: the starting force field with the periodicities that were added.
        fitted: the same with the fitted values.
        params: section `fit_smirnoff`.
        trained_charges: mapped SMILES of molecules whose charges were trained, and these charges [e], shape (n_atoms,).
        facts: metrics of the fit that the comment tells, see `provenance`.

    Returns:
        Metrics of the export.

    Raises:
        ForceFieldError: where a file does not mean what was fitted.
    """
    start = inputs.parameterized.force_field
    topologies = [inputs.parameterized[number] for number in dict.fromkeys(molecule.topology for molecule in molecules)]
    charges = choose_charges(start, topologies, trained_charges)
    levels = {source: level for dataset in inputs.datasets.values() for source, level in dataset.level_of_theory.items()}
    path = output / OFFXML
    write_offxml(path, start, fitted, charges, provenance(start.name, levels, params, charges, facts))
    check_offxml(path, start, fitted)
    write_constrained(output / CONSTRAINED_OFFXML, path)
    check = check_in_openmm(path, start.offxml, checked_molecules(inputs, molecules, extension, fitted, charges))
    return {
        "exported_charges": {
            "nagl": charges.nagl,
            "library_molecules": len(charges.library) + len(charges.trained),
            "library_molecules_left_out": charges.n_left_out,
            "largest_change_e": order_of_magnitude(charges.largest_change),
        },
        "exported_energy_difference_to_openmm_kcal_per_mol": order_of_magnitude(check.largest_difference),
        "openmm_check": {
            "molecules": check.n_molecules,
            "not_minimized": check.not_minimized,
            "largest_drift_kcal_per_mol_per_atom": order_of_magnitude(check.largest_drift),
        },
    }
