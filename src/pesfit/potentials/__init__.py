"""The interface that all potentials share, and GFN2-xTB.

Read in this order:

- `interface`: `Conformers` joined to a `Batch`, which is one graph; a `Potential` gives a `Prediction` of it.
- `model`: a `Model` is a potential with the preparation of molecules (`PreparedMolecule`) and their uncertainty.
- `neighbors`: neighbor lists, from scratch (`find_edges`) or followed along a trajectory (`SkinnedEdges`).
- `terms`, `internal_coordinates`: SMIRNOFF topologies as index tensors; distances, angles and dihedrals with derivatives.
- `integrators`: one step of molecular dynamics.
- `gfn2`, `gfn2_model`: GFN2-xTB for one molecule in numpy, and as a potential and a model.

Whatever implements `Potential` passes tests/contract.
"""
