"""Molecules as RDKit reads them.

- `smiles`: reading and writing mapped SMILES. `mapped_molecule` is the one reader of the SMILES of data sets; `mapped_smiles` writes
  them; `group_of` is the identity that all rows of a molecule share.
- `bonds`: bonds of geometries. `BondsFromSmiles` gives the atoms of a file the bonds of a SMILES; `Connectivity` tells whether they
  still hold in a conformer.

Read `smiles` first. Two readers are elsewhere for a reason: `parameterize.molecule` follows the OpenFF toolkit's own rules, and
`split.twins` hashes molecules whatever their map numbers.
"""
