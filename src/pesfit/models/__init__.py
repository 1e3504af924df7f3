"""Opened models: one door to everything that predicts energies and forces.

`open.open_model` opens a folder or an .offxml by path, `open.open_fitted` the outputs of the pipeline by their names,
and `open.open_gfn2` GFN2-xTB. Each gives a `potentials.model.Model`: `prepare` a molecule once, then `evaluate` its conformers.

The families have modules of their own, which stages that need one family alone import: `smirnoff.model`, `painn.model` and
`potentials.gfn2_model`. A new family gets such a module, and a line in `open`.
"""
