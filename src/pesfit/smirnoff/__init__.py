"""SMIRNOFF force fields: energies and forces, the fit of their parameters, and its posterior.

Read in this order:

- `potential`: `SmirnoffPotential`, energies and forces of any batch; `replicas`: the same for many replicas of one molecule.
- `parameters`: `Layout`, the trained parameters as a vector in which the energy is linear; `features`: these linear functions.
- `fit`: `fit_smirnoff`, the whole of stage 06; `fit_data`: its molecules, shards and weights; `errors`, `fit_report`: its results.
- `exact`: the fit by normal equations. `gradient`: the fit for other losses, van der Waals parameters and charges.
- `posterior`: standard deviations of energies and forces of any molecule, from the fit.
- `exported_files`: the fitted `.offxml` and its constrained twin: `export` writes values, `exported_charges` charges, `provenance` the
  comment at the head, and `openmm_check` loads it. `smee`: force fields in the form of smee and descent.
- `model`: `open_smirnoff`, a force field opened to be used.
"""
