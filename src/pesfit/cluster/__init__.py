"""Stage 04: one representative of each cluster of similar conformers.

- `stage`: `cluster_datasets`, which clusters the sources that params.yaml names, and draws the histogram of cluster sizes.
- `representatives`: one molecule: atoms that are compared, their symmetry-equivalent orders, Butina's clustering, the choice.
- `rmsd`: pairs of conformers within a cutoff after superposition, without computing a rotation.

Read `representatives`, then `rmsd`.
"""
