"""Stage 05: a split (training, validation, test) for every conformer of every data set.

- `stage`: `split_datasets`, which applies the rules of params.yaml in their order.
- `rules`: the rules themselves: by frame, by stretches of a trajectory, as rMD17 or Espaloma were published, by molecule.
- `rows`: `RowAssignment`, the rows without their coordinates, and draws that depend on the seed and on names alone.
- `twins`: stereoisomers, tautomers and protonation states, which are never divided.

Read `stage` first. The format of the result is `data.splits`.
"""
