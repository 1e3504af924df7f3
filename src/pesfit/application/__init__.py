"""Models for their users: the commands `predict`, `md` and `label`, and the ASE calculator.

`commands` defines the command line and imports nothing heavy before a command runs. `geometries.read_geometries` reads what a user
gives, `predict.predict` evaluates it, `frames` writes the result as a table or extxyz, and `md.run_md` runs dynamics, by the same loop
as stage 08 (`simulate.loop`). `label_dataset` gives a data set, such as a trajectory, the energies and forces of another model
(`labeler`), which makes training data of it; `geometry_dataset` makes a data set of a file first. `ase_calculator.calculator` is
`pesfit.calculator`. All of them open models by `models.open.open_model`; docs/using.md shows them at work.
"""
