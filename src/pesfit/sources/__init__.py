"""Stage 02: published archives, data sets of the user's own, and one that is built here, all converted to Arrow data sets.

- `convert`: `convert_sources`, the stage, which calls one function of each source.
- `espaloma` (with `dgl`), `md17` (MD17 and rMD17), `own` (with `own_folder`), `xtb` (with `xtb_dynamics`): the sources. Each yields
  `Record`s in kcal/mol, Å and forces = -dE/dx, or `Failure`s, and names its level of theory.
- `checks`: the examination every row passes: finite labels, bonds, energies against forces (`PhysicsCheck`).
- `archives`: compressed tar archives, read member by member.
- `download`: stage 01, which brings the files here.

Read `convert`, then `checks`, then any one source.
"""
